"""Implements `k2 summary`, `symbols` and `availability`: what there is, by instrument and day."""

from __future__ import annotations

from typing import Any

import click

from k2cli.shapes import asking
from k2client import ShapeQuestion, shape_questions

_tz = click.option("--tz", default="UTC", show_default=True, help="Time zone of the days.")


@click.command(epilog="Example: k2 summary BTCUSDT 2026-01-31")
@click.argument("symbol", metavar="SYMBOL")
@click.argument("date", metavar="DATE")
@_tz
@asking.options
def summary(symbol: str, date: str, tz: str, **asked: Any) -> None:  # noqa: ANN401 shared options
    """Query a day of a symbol in one row: prices, volumes, means, first and last trade.

    Of a day that goes on, the twap ends with the newest trade.
    """
    question = asking.Typed.of_options((symbol,), asked)
    asking.answer(question, shape_questions.summary(question.of, date, tz))


@click.command(epilog="Example: k2 symbols --last 1d")
@asking.some_symbols
@asking.options
def symbols(symbols: tuple[str, ...], **asked: Any) -> None:  # noqa: ANN401 shared options
    """Query which symbols have trades: from when, to when, which ids, how many."""
    question = asking.Typed.of_options(symbols, asked)
    asking.answer(question, ShapeQuestion("symbols", question.of))


@click.command(epilog="Example: k2 availability BTCUSDT --last 7d")
@asking.some_symbols
@_tz
@asking.options
def availability(symbols: tuple[str, ...], tz: str, **asked: Any) -> None:  # noqa: ANN401 shared options
    """Query how much there is of each day: available, degraded, pending or missing.

    Degraded days lack trade ids, pending ones may still get trades, and missing ones have none
    although ids of theirs exist.
    """
    question = asking.Typed.of_options(symbols, asked)
    asking.answer(question, shape_questions.availability(question.of, tz))
