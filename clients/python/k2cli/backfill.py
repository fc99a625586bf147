"""Implements `k2 backfill`: fetches trade ids from the venue, or loads the venue's daily file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from k2cli import console, options
from k2cli.child import Event, run_tool
from k2cli.verify import tape_of


@click.command()
@click.argument("symbol", required=False)
@click.option("--from-id", type=click.IntRange(min=0), help="The first trade id to fetch.")
@click.option("--to-id", type=click.IntRange(min=0), help="The last one, inclusive.")
@click.option(
    "--exchange",
    help="Id space.  [default: that of the feed of SYMBOL; with --file: the stack's]",
)
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Load a daily file of Binance instead: SYMBOL-trades-YYYY-MM-DD.zip or .csv.",
)
@options.common
@click.pass_context
def backfill(  # noqa: PLR0913, PLR0917 one parameter an option
    context: click.Context,
    symbol: str | None,
    from_id: int | None,
    to_id: int | None,
    exchange: str | None,
    file: Path | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Fetch trade ids FROM..TO of SYMBOL from the venue, or load them from a FILE.

    The lake drops ids that it already has, so a range may be too large. `k2 gaps` shows the
    progress of a request.
    """
    if file is not None:
        if from_id is not None or to_id is not None:
            raise click.UsageError("--file says itself which ids it holds")
        more = options.arguments({"symbol": symbol or None, "exchange": exchange or None})
        context.exit(_load([str(file.resolve()), *more], as_json, data_dir))
    if symbol is None or from_id is None or to_id is None:
        raise click.UsageError("say SYMBOL, --from-id and --to-id, or --file")
    with options.connect(data_dir) as k2:
        plan = k2.backfill(symbol, from_id, to_id, exchange)
    if as_json:
        console.echo_json(plan)
        return
    console.echo(
        f"{plan.exchange}:{plan.symbol} {plan.first_trade_id} to {plan.last_trade_id}:"
        f" {plan.last_trade_id - plan.first_trade_id + 1:,} ids in {plan.requests:,} requests,"
        f" {plan.eta_s:,.0f} s at the earliest; see `k2 gaps {plan.symbol}`"
    )


def _load(arguments: list[str], as_json: bool, data_dir: Path | None) -> int:
    """Load a file in a process of its own and return its exit code."""
    directory = options.directory_of(data_dir)
    answer: dict[str, Any] = {}

    def take(event: Event) -> None:
        if event["event"] == "refused":
            console.say(f"{event.get('place')}: {event.get('error')}")
        else:
            answer.update({name: value for name, value in event.items() if name != "event"})

    code = run_tool("backfill", arguments, directory, take, settings=tape_of(directory))
    if answer and as_json:
        console.echo_json(answer)
    elif answer:
        console.echo(str(answer.get("message")))
    return code
