"""Implements `k2 snapshots` and `feeds`: control-plane answers as tables or JSON."""

from __future__ import annotations

from pathlib import Path

import click

from k2cli import console, options


@click.command()
@click.argument("as_of", required=False, metavar="[ID|TIME]")
@click.option("--limit", type=click.IntRange(min=1), help="The number of snapshots, newest first.")
@options.common
def snapshots(as_of: str | None, limit: int | None, as_json: bool, data_dir: Path | None) -> None:
    """List the retained snapshots of the lake, newest first; or show one, by its id or a time."""
    with options.connect(data_dir) as k2:
        listed = k2.snapshots(limit) if as_of is None else [k2.snapshot(as_of)]
    if as_json:
        console.echo_json({"snapshots": listed})
        return
    rows = [
        (
            str(snapshot.snapshot_id),
            snapshot.commit_time,
            snapshot.rows_added,
            snapshot.rows_total,
            snapshot.files_total,
            snapshot.bytes_total,
            sum(counter.duplicate for counter in snapshot.counters),
            sum(counter.dead for counter in snapshot.counters),
        )
        for snapshot in listed
    ]
    columns = ("snapshot", "committed", "rows added", "rows", "files", "bytes")
    console.table((*columns, "duplicates", "dead letters"), rows)


@click.command()
@options.common
def feeds(as_json: bool, data_dir: Path | None) -> None:
    """List the feeds: their venues, symbols, states and counters."""
    with options.connect(data_dir) as k2:
        listed = k2.feeds()
    if as_json:
        console.echo_json({"feeds": listed})
        return
    for feed in listed:
        connected = "connected" if feed.connected else "not connected"
        console.echo(
            f"{feed.name}: {feed.state}, {feed.exchange}, {feed.source.lower()},"
            f" {connected} to {feed.venue_url}; {feed.trades_acknowledged:,} trades acknowledged,"
            f" {feed.frames_skipped:,} frames skipped, {feed.frames_malformed:,} malformed,"
            f" {feed.reconnects:,} reconnects"
        )
        rows = [
            (
                symbol.symbol,
                None if symbol.acknowledged_trade_id is None else str(symbol.acknowledged_trade_id),
                symbol.gaps,
                symbol.ids_missing,
                symbol.duplicates,
                symbol.reordered,
                symbol.resets,
            )
            for symbol in feed.symbols
        ]
        columns = ("symbol", "last id acknowledged", "gaps", "ids missing", "duplicates")
        console.table((*columns, "reordered", "resets"), rows)
