"""Implements `k2 gaps`: lists the trade ids that were missed, and their states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from k2cli import console, options

_STATES = click.Choice(["open", "filled", "unfillable", "void"], case_sensitive=False)


@click.command()
@click.argument("symbol", required=False)
@click.option("--exchange", help="Only gaps of this exchange.")
@click.option("--state", type=_STATES, help="Only gaps in this state.  [default: any]")
@click.option("--limit", type=click.IntRange(min=1), help="The largest number of gaps.")
@options.common
def gaps(
    as_json: bool,
    data_dir: Path | None,
    **asked: Any,  # noqa: ANN401 options named as the parameters of `Client.gaps`
) -> None:
    """List gaps of all symbols or of SYMBOL: runs of trade ids that were missed.

    K2 fetches OPEN gaps, FILLED gaps are on the tape, the venue does not have UNFILLABLE gaps, and
    it printed the ids of VOID gaps without a trade.
    """
    with options.connect(data_dir) as k2:
        listed = k2.gaps(**asked)
    if as_json:
        console.echo_json({"gaps": listed})
        return
    rows = [
        (
            gap.symbol,
            str(gap.first_trade_id),
            str(gap.last_trade_id),
            gap.last_trade_id - gap.first_trade_id + 1,
            gap.state,
            gap.cause,
            gap.detect_time,
            gap.fill_time,
            gap.reason or None,
        )
        for gap in listed
    ]
    columns = ("symbol", "first id", "last id", "ids", "state", "cause", "detected", "filled")
    console.table((*columns, "reason"), rows)
