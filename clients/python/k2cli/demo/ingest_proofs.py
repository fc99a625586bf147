"""Measures the claims of the first sections: positioning, live streaming, storage, time travel."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from k2cli.demo.evidence import Evidence, frame_of, latency
from k2cli.demo.stage.readiness import P99_TARGET_MS, newest_ms
from k2cli.operate import scrape
from k2cli.operate.process_logs import LogFile
from k2cli.operate.running_stack import RunningStack
from k2client.errors import K2Error
from k2client.records import TimeRange
from k2client.times import to_us

RATE_TARGET = 100.0  # a market comes in bursts: "about 130" is kept from here on
RATIO_TARGET = 10.0
SHOWN_SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
TRADES_TOPIC = "market.crypto.trades.binance"
_SAMPLE_ROWS = 2000
_COMMIT_WAIT_S = 20.0
_POLL_S = 0.5
_RATE_OVER_S = 12.0  # long enough to hold lulls and bursts

Proof = Callable[[RunningStack, Evidence, bool], None]
"""Measures one claim of a running stack and adds it; in the quick form with fewer samples."""


def answers_in_time(demo: RunningStack, evidence: Evidence, quick: bool) -> None:
    """Time the smallest useful question."""
    measured = latency([newest_ms(demo) for _ in range(40 if quick else 200)])
    evidence.judge(
        f"research questions in less than {P99_TARGET_MS:.0f} ms (p99)",
        f"the 5 newest trades: {measured}",
        measured.p99_ms < P99_TARGET_MS,
        "k2 trades BTCUSDT --limit 5 --order desc",
    )
    evidence.show(
        "no execution system: those answer in less than 10 µs",
        f"K2's p50 is {measured.p50_ms * 1000 / 10:,.0f} times that",
        "docs/demo/positioning.svg",
    )


def what_the_data_is(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Say what the rows are, which decides how everything after is to be read."""
    venue = demo.described.content.get("venue")
    evidence.show("what the trades are", f"{demo.source}, from {venue}", "k2 status")


def rate_of_trades(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Measure the rate at the tape, the growth of topics and the freshness over the same time."""
    before, fresh_before = demo.k2.topics(), _freshness(demo)
    rate = demo.trade_rate(_RATE_OVER_S)
    after, fresh_after = demo.k2.topics(), _freshness(demo)
    evidence.judge(
        f"about 130 trades a second (kept from {RATE_TARGET:.0f} on)",
        f"{rate:,.1f} a second of {len(demo.symbols)} symbols, acknowledged by Kafka",
        rate >= RATE_TARGET,
        "k2 status --watch",
    )
    grew = {topic.name: topic.messages_written for topic in before.topics}
    for topic in after.topics:
        more = topic.messages_written - grew.get(topic.name, 0)
        if topic.name == TRADES_TOPIC:
            evidence.judge(
                f"topic {topic.name} grows",
                f"{topic.messages_written:,} messages, {more:,} more while it was watched",
                more > 0,
                "k2 tape topics --watch",
            )
    if fresh_before and fresh_after and fresh_after[1] > fresh_before[1]:
        mean_s = (fresh_after[0] - fresh_before[0]) / (fresh_after[1] - fresh_before[1])
        evidence.show(
            "a trade is queryable soon after it was received",
            f"mean {mean_s * 1000:,.0f} ms over {fresh_after[1] - fresh_before[1]:,.0f} trades",
            "k2 status --watch",
        )


def newest_of_symbols(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Show the newest trade of the best-known symbols."""
    for symbol in SHOWN_SYMBOLS:
        if symbol in demo.symbols:
            rows = demo.k2.trades(
                symbol, limit=1, order="desc", columns=["event_time", "price", "quantity", "side"]
            ).to_arrow()
            for row in rows.to_pylist():
                age_s = time.time_ns() / 1e9 - to_us(row["event_time"]) / 1e6
                evidence.show(
                    f"{symbol} trades now",
                    f"{row['side']} {row['quantity']:f} at {row['price']:f}, {age_s:.1f} s ago",
                    f"k2 trades {symbol} --limit 1 --order desc",
                )


def nothing_undecodable(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Count what did not fit the schema, and what the feed says."""
    letters = len(demo.k2.dead_letters(limit=1000))
    evidence.show(
        "each message is checked against its schema",
        f"{letters:,} records could not be decoded and are kept with their bytes",
        "k2 dlq list",
    )
    gaps = demo.k2.gaps()
    still = sum(gap.state == "OPEN" for gap in gaps)
    evidence.judge(
        "no trade id is missing",
        f"{len(gaps):,} gaps on record, {still:,} open",
        still == 0,
        "k2 gaps --state open",
    )
    lines = LogFile(demo.directory / "logs" / "feed.log").tail(5)
    evidence.lines += [line.legible.splitlines()[0] for line in lines]


def snapshots_kept(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Show the newest snapshots."""
    listed = demo.k2.snapshots()
    newest = listed[0]
    evidence.show(
        "each commit is a snapshot that does not change",
        f"{len(listed):,} kept; the newest holds {newest.rows_total:,} rows in"
        f" {newest.files_total:,} files",
        "k2 snapshots",
    )
    evidence.lines += [
        f"{each.snapshot_id}  {each.commit_time:%H:%M:%S}  +{each.rows_added:,} rows"
        f"  {each.rows_total:,} rows  {each.bytes_total:,} bytes"
        for each in listed[:3]
        if each.commit_time
    ]


def same_rows_later(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Ask by snapshot and by token, wait for a commit, and ask again."""
    symbol, snapshot = demo.symbols[0], demo.k2.snapshots(1)[0]
    first = _digest(demo, symbol, snapshot.snapshot_id)
    live = demo.k2.trades(symbol, last="1m", columns=["trade_id"])
    before = live.to_arrow().column(0).to_pylist()
    waited = _next_commit(demo, snapshot.snapshot_id)
    again = _digest(demo, symbol, snapshot.snapshot_id)
    evidence.judge(
        "the same rows AS_OF a snapshot, after later commits",
        f"{first[1]:,} rows, SHA-256 {first[0][:12]} and {again[0][:12]}, {waited} commits between",
        first == again and waited > 0,
        f"k2 trades {symbol} --limit 5 --as-of {snapshot.snapshot_id}",
    )
    origin = live.provenance
    if origin.token is None:
        evidence.failures.append("the answer has no read token: it was not whole")
        return
    asked = demo.k2.trades(
        symbol,
        columns=["trade_id"],
        start=origin.range.start_time,
        end=origin.range.end_time,
        as_of=origin.token,
    )
    after = asked.to_arrow().column(0).to_pylist()
    evidence.judge(
        "the same rows by a read token, stream and lake together",
        f"{len(before):,} rows ({origin.rows_tail or 0:,} of memory) and {len(after):,} after the"
        " commit, id by id",
        before == after and bool(before),
        f"k2 trades {symbol} --columns trade_id {_between(origin.range)} --as-of {origin.token}",
    )


def _between(times: TimeRange) -> str:
    """Write a range as options of `k2 trades`."""
    options = (("--from", times.start_time), ("--to", times.end_time))
    return " ".join(f"{name} {at.isoformat()}" for name, at in options if at is not None)


def compression(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Compare the lake's bytes a trade with those of the venue's frame of the same trades."""
    newest = demo.k2.snapshots(1)[0]
    if not newest.rows_total:
        evidence.failures.append("the lake has no rows yet")
        return
    rows = demo.k2.trades(None, limit=_SAMPLE_ROWS, order="desc", consistency="committed")
    trades = rows.to_arrow().to_pylist()
    for trade in trades:
        trade["price"], trade["quantity"] = f"{trade['price']:f}", f"{trade['quantity']:f}"
    raw = sum(len(frame_of(trade, to_us(trade["event_time"]))) for trade in trades) / len(trades)
    kept = newest.bytes_total / newest.rows_total
    evidence.show(
        "bytes a trade in the lake",
        f"{kept:.1f}, over {newest.rows_total:,} rows",
        "k2 snapshots --limit 1",
    )
    evidence.judge(
        f"{RATIO_TARGET:.0f}:1 against the venue's JSON",
        f"{raw / kept:.1f}:1; the frames of {len(trades):,} of these trades are {raw:.0f} bytes",
        raw / kept >= RATIO_TARGET,
        "k2 demo --section 3 --no-wait",
    )


def _digest(demo: RunningStack, symbol: str, snapshot_id: int) -> tuple[str, int]:
    rows = demo.k2.trades(symbol, limit=_SAMPLE_ROWS, order="desc", as_of=snapshot_id).to_arrow()
    digest = hashlib.sha256()
    for batch in rows.to_batches(max_chunksize=_SAMPLE_ROWS):
        digest.update(repr(batch.to_pylist()).encode())
    return digest.hexdigest(), rows.num_rows


def _next_commit(demo: RunningStack, snapshot_id: int) -> int:
    """Wait for a later snapshot; returns how many came."""
    end = time.monotonic() + _COMMIT_WAIT_S
    while time.monotonic() < end:
        try:
            listed = [each.snapshot_id for each in demo.k2.snapshots(50)]
        except K2Error:
            listed = []
        if listed and listed[0] != snapshot_id:
            return listed.index(snapshot_id) if snapshot_id in listed else len(listed)
        time.sleep(_POLL_S)
    return 0


def _freshness(demo: RunningStack) -> tuple[float, float] | None:
    return scrape.freshness(demo.metrics().get("query", ""))


POSITIONING: tuple[Proof, ...] = (what_the_data_is, answers_in_time)
STREAMING: tuple[Proof, ...] = (rate_of_trades, newest_of_symbols, nothing_undecodable)
STORAGE: tuple[Proof, ...] = (snapshots_kept, same_rows_later, compression)
