"""Implements `k2 asof` and `markouts`: trades beside other trades."""

from __future__ import annotations

from typing import Any

import click

from k2cli.shapes import asking
from k2client import shape_questions

_ASOF_COLUMNS = (
    *("event_time", "exchange", "symbol", "trade_id", "price"),
    *("right_event_time", "right_symbol", "right_trade_id", "right_price"),
)
_MARKOUT_COLUMNS = (
    *("event_time", "exchange", "symbol", "trade_id", "side", "price"),
    *("horizon_us", "price_then", "markout"),
)


@click.command(epilog="Example: k2 asof ETHUSDT BTCUSDT --tolerance 5s --last 15m")
@click.argument("left", metavar="LEFT")
@click.argument("right", metavar="RIGHT")
@click.option(
    "--tolerance",
    metavar="DURATION",
    help="How far apart both may be: 500ms, 5s.  [default: any, at the cost of all the history]",
)
@click.option(
    "--direction",
    type=click.Choice(["backward", "forward"]),
    default="backward",
    show_default=True,
    help="The last right trade at or before the left one, or the first at or after it.",
)
@asking.options
def asof(
    left: str,
    right: str,
    tolerance: str | None,
    direction: str,
    **asked: Any,  # noqa: ANN401 shared options
) -> None:
    """Query each trade of LEFT (several with commas) beside the nearest trade of RIGHT.

    The columns of the right trade begin with `right_`; they are empty where there is none.
    """
    question = asking.Typed.of_options((left,), asked, _ASOF_COLUMNS)
    asking.answer(question, shape_questions.asof(question.of, right, tolerance, direction))


@click.command(epilog="Example: k2 markouts BTCUSDT --horizons 1s,10s,1m --last 15m")
@asking.symbols
@click.option(
    "--horizons",
    default=",".join(shape_questions.HORIZONS),
    show_default=True,
    metavar="A,B",
    help="How long after each trade.",
)
@asking.options
def markouts(symbols: tuple[str, ...], horizons: str, **asked: Any) -> None:  # noqa: ANN401 shared options
    """Query what the price did after each trade, in favour of the side that took.

    One row for each trade and horizon; empty where the price at that moment is not known yet.
    """
    question = asking.Typed.of_options(symbols, asked, _MARKOUT_COLUMNS)
    asking.answer(question, shape_questions.markouts(question.of, asking.split(horizons)))
