"""`k2 gaps`: which trade ids were missed, and what became of them."""

from __future__ import annotations

from pathlib import Path

import click

from k2cli import console, options
from k2client import records

_STATES = click.Choice(["open", "filled", "unfillable", "void"], case_sensitive=False)


@click.command()
@click.argument("symbol", required=False)
@click.option("--exchange", help="Only of this one.")
@click.option("--state", type=_STATES, help="Only in this state.  [default: any]")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@options.as_json
@options.data_dir
def gaps(
    symbol: str | None,
    exchange: str | None,
    state: str | None,
    limit: int | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """The ledger of gaps, of all symbols or of SYMBOL: runs of trade ids that were missed.

    OPEN ones are being fetched, FILLED ones are on the tape, UNFILLABLE ones the venue does not
    have, VOID ones it printed without a trade.
    """
    with options.connect(data_dir) as k2:
        found = k2.gaps(symbol, exchange=exchange, state=state, limit=limit)
    if as_json:
        console.echo_json({"gaps": [_document(each) for each in found]})
        return
    rows = [
        (
            each.symbol,
            str(each.first_trade_id),
            str(each.last_trade_id),
            each.last_trade_id - each.first_trade_id + 1,
            each.state,
            each.cause,
            each.detect_time,
            each.fill_time,
            each.reason or None,
        )
        for each in found
    ]
    columns = ("symbol", "first id", "last id", "ids", "state", "cause", "detected", "filled")
    console.table((*columns, "reason"), rows)


def _document(gap: records.GapRecord) -> dict[str, object]:
    return {name: getattr(gap, name) for name in gap.__dataclass_fields__}
