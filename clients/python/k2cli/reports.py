"""`k2 snapshots`, `degradation` and `feeds`: what the control plane says, as tables or JSON."""

from __future__ import annotations

from pathlib import Path

import click

from k2cli import console, options


@click.command()
@click.argument("as_of", required=False, metavar="[ID|TIME]")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many.")
@options.as_json
@options.data_dir
def snapshots(as_of: str | None, limit: int | None, as_json: bool, data_dir: Path | None) -> None:
    """The retained snapshots of the lake, newest first; or one, by its id or a time."""
    with options.connect(data_dir) as k2:
        found = k2.snapshots(limit) if as_of is None else [k2.snapshot(as_of)]
    if as_json:
        console.echo_json({"snapshots": found})
        return
    rows = [
        (
            str(each.snapshot_id),
            each.commit_time,
            each.rows_added,
            each.rows_total,
            each.files_total,
            each.bytes_total,
            sum(counter.duplicate for counter in each.counters),
            sum(counter.dead for counter in each.counters),
        )
        for each in found
    ]
    columns = ("snapshot", "committed", "rows added", "rows", "files", "bytes")
    console.table((*columns, "duplicates", "dead letters"), rows)


@click.command()
@options.as_json
@options.data_dir
def degradation(as_json: bool, data_dir: Path | None) -> None:
    """How much the platform can bear now, and which pressures that comes from."""
    with options.connect(data_dir) as k2:
        now = k2.degradation()
    if as_json:
        console.echo_json(now)
        return
    console.echo(f"level {now.level}: {now.summary}")
    rows: list[tuple[object, ...]] = []
    for each in now.processes:
        known = (each.process, each.state, each.level)
        rows += [(*known, one.signal, one.reading, one.pressure) for one in each.pressures]
        rows += [] if each.pressures else [(*known, None, None, None)]
    console.table(("process", "state", "level", "signal", "reading", "pressure"), rows)


@click.command()
@options.as_json
@options.data_dir
def feeds(as_json: bool, data_dir: Path | None) -> None:
    """What K2 listens to, and how well it hears."""
    with options.connect(data_dir) as k2:
        found = k2.feeds()
    if as_json:
        console.echo_json({"feeds": found})
        return
    for feed in found:
        connected = "connected" if feed.connected else "not connected"
        console.echo(
            f"{feed.name}: {feed.state}, {feed.exchange}, {feed.source.lower()},"
            f" {connected} to {feed.venue_url}; {feed.trades_acknowledged:,} trades acknowledged,"
            f" {feed.frames_skipped:,} frames skipped, {feed.frames_malformed:,} malformed,"
            f" {feed.reconnects:,} reconnects"
        )
        rows = [
            (
                each.symbol,
                None if each.acknowledged_trade_id is None else str(each.acknowledged_trade_id),
                each.gaps,
                each.ids_missing,
                each.duplicates,
                each.reordered,
                each.resets,
            )
            for each in feed.symbols
        ]
        columns = ("symbol", "last id acknowledged", "gaps", "ids missing", "duplicates")
        console.table((*columns, "reordered", "resets"), rows)
