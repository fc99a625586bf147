"""Implements `k2 bars`, `vwap`, `twap` and `latest`: what is made of an instrument's trades."""

from __future__ import annotations

from typing import Any

import click

from k2cli import trades
from k2cli.shapes import asking
from k2client import ShapeQuestion, shape_questions


@click.command(epilog="Example: k2 bars BTCUSDT --every 1m --last 1h --fill prev")
@asking.symbols
@click.option(
    "--every",
    default="1m",
    show_default=True,
    help="100ms to 1d: n of ms, s, m, h that divides a day, from midnight on; or 1d, 1w, 1mo.",
)
@click.option(
    "--fill",
    type=click.Choice(["none", "prev", "null"]),
    default="none",
    show_default=True,
    help="Bars without trades: none, with the last close (prev: at the start of a range that of the"
    " hour before it, else null), or with null prices.",
)
@click.option("--tz", default="UTC", show_default=True, help="Time zone of days, weeks and months.")
@asking.options
def bars(
    symbols: tuple[str, ...],
    every: str,
    fill: str,
    tz: str,
    **asked: Any,  # noqa: ANN401 shared options
) -> None:
    """Query bars: open, high, low, close, volumes, vwap, and whether they are final.

    A range begins with the start of a bar. A bar is final when no trade of it can be missing.
    """
    question = asking.Typed.of_options(symbols, asked)
    asking.answer(question, shape_questions.bars(question.of, every, fill, tz))


@click.command(epilog="Example: k2 vwap BTCUSDT ETHUSDT --last 1h")
@asking.symbols
@asking.options
def vwap(symbols: tuple[str, ...], **asked: Any) -> None:  # noqa: ANN401 shared options
    """Query the volume-weighted mean price of each symbol, exact."""
    question = asking.Typed.of_options(symbols, asked)
    asking.answer(question, ShapeQuestion("vwap", question.of))


@click.command(epilog="Example: k2 twap BTCUSDT --from 2026-01-01 --to 2026-01-02")
@asking.symbols
@asking.options
def twap(symbols: tuple[str, ...], **asked: Any) -> None:  # noqa: ANN401 shared options
    """Query the time-weighted mean price of each symbol, exact.

    A price weighs until the next trade, the last one until the end of the range; while the range
    goes on, until the newest trade of the symbols.
    """
    question = asking.Typed.of_options(symbols, asked)
    asking.answer(question, ShapeQuestion("twap", question.of))


@click.command(epilog="Example: k2 latest")
@asking.some_symbols
@asking.options
def latest(symbols: tuple[str, ...], **asked: Any) -> None:  # noqa: ANN401 shared options
    """Query the newest trade of each symbol; without a symbol, of all."""
    question = asking.Typed.of_options(symbols, asked, trades.TABLE_COLUMNS)
    asking.answer(question, ShapeQuestion("latest", question.of))
