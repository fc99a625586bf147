"""Implements `k2 trades`: queries trades and writes them as a table, text, Arrow or Parquet."""

from __future__ import annotations

from typing import Any

import click

from k2cli.shapes import asking

# All sixteen columns do not fit a screen; --columns shows the others.
TABLE_COLUMNS = ("event_time", "exchange", "symbol", "trade_id", "side", "price", "quantity")


@click.command(epilog="Example: k2 trades BTCUSDT --last 15m --format csv -o btc.csv")
@asking.symbols
@asking.options
def trades(symbols: tuple[str, ...], **asked: Any) -> None:  # noqa: ANN401 shared options
    """Query trades of one or several symbols, exactly once, from lake and tail as one table.

    Without a range, all trades are returned. The origin of the rows is printed to stderr, with the
    read token that requests the same rows again at any later time.
    """
    question = asking.Typed.of_options(symbols, asked, TABLE_COLUMNS)
    asking.answer(question, question.of)
