"""Measures the claims of the later sections: monitoring, resilience, hybrid queries, cost."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from k2cli.cost.cost_model import Deployment, at_scale, bill, read_prices
from k2cli.cost.cost_report import live_figures
from k2cli.demo.evidence import Evidence, latency
from k2cli.demo.ingest_proofs import POSITIONING, STORAGE, STREAMING, Proof
from k2cli.demo.overload_walk import INJECTED, walk
from k2cli.demo.stage.page_addresses import looked_at
from k2cli.demo.stage.readiness import P99_TARGET_MS, newest_ms
from k2cli.operate import scrape
from k2cli.operate.fetching import NotServed, fetch
from k2cli.operate.running_stack import RunningStack

METRICS_TARGET = 83
NO_EDGE = "edge not part of this stack"
_COUNT_METRICS = (
    "k2 status --json | jq -r '.processes[].addresses.metrics // empty' | xargs -I@ curl -s"
    " http://@/metrics | grep '^# TYPE k2_' | sort -u | wc -l"
)
_TARGET_SCALE = 1_000_000.0
_TICK = Decimal("1e-8")
_EXACT = Context(prec=76, rounding=ROUND_HALF_EVEN)
_LEVELS = ("NORMAL", *INJECTED)


def metrics_served(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Count the metrics that the processes serve at this moment."""
    scraped = demo.metrics()
    if not scraped:
        why = "the processes' metrics cannot be reached from here: ask Prometheus"
        evidence.absent(f"{METRICS_TARGET} metrics or more", why, "make test-e2e-health")
        return
    named = set().union(*(scrape.families(text) for text in scraped.values()))
    evidence.judge(
        f"{METRICS_TARGET} metrics or more",
        f"{len(named)} served at this moment by {len(scraped)} processes; docs/metrics.md lists"
        " all",
        len(named) >= METRICS_TARGET,
        _COUNT_METRICS,
    )
    levels = {
        value
        for text in scraped.values()
        for labels, value in scrape.samples(text, "k2_degradation_level").items()
        if 'scope="platform"' in labels
    }
    level = demo.k2.degradation().level
    evidence.judge(
        "k2_degradation_level says the level",
        f"{', '.join(f'{each:.0f}' for each in sorted(levels)) or 'not served'}, the control plane"
        f" says {level}",
        levels == {float(_LEVELS.index(level))},
        "k2 degrade",
    )
    lag = scrape.samples(scraped.get("lake", ""), "k2_consumer_lag_messages")
    evidence.show("records the lake has not committed", f"{sum(lag.values()):,.0f}", "k2 degrade")


def requests_counted(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Show that the edge counts its requests."""
    what, command = "k2_http_requests_total counts the requests", "curl {edge}/metrics"
    if demo.edge is None:
        evidence.absent(what, NO_EDGE, command)
        return
    before = _requests(demo)
    for _ in range(5):
        demo.ask_edge("/health")
    after = _requests(demo)
    evidence.judge(
        what,
        f"{after:,.0f}, {after - before:,.0f} more after 5 requests",
        after - before >= 5,
        command.format(edge=demo.edge),
    )


def watched_from_outside(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Say what Prometheus and Grafana have, where they are part of the stack."""
    for page in looked_at(demo.described):
        if page.name not in ("prometheus", "grafana"):
            continue
        if page.state != "healthy":
            evidence.absent(page.name, f"{page.state}: {page.message}", "make test-e2e-health")
        elif page.name == "prometheus":
            groups = json.loads(fetch(f"{page.url}/api/v1/rules", 5.0))["data"]["groups"]
            rules = [rule for group in groups for rule in group.get("rules", ())]
            alerts = [rule for rule in rules if rule.get("type") == "alerting"]
            firing = [rule["name"] for rule in alerts if rule.get("state") == "firing"]
            evidence.show(
                "alerts that Prometheus evaluates",
                f"{len(alerts)}, firing: {', '.join(firing) or 'none'}",
                f"{page.url}/alerts",
            )
        else:
            evidence.show("Grafana", "healthy", page.url)


def through_the_levels(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Take the platform to CIRCUIT_BREAK and back, by injected pressure."""
    before = demo.acknowledged()
    done = walk(demo.k2, evidence.lines.append)
    command = "k2 degrade inject writer_lag_s 1.0 --for 30s --process lake"
    evidence.judge(
        "five levels are reached, by injected pressure",
        f"NORMAL and {len(done.reached)} more in {done.up_s:.1f} s",
        len(done.reached) == len(INJECTED),
        command,
    )
    evidence.judge(
        "recovery is automatic, one step at a time",
        f"{done.level} after {done.down_s:.1f} s in {len(done.steps_down)} steps, with a dwell of"
        f" {done.dwell_s:g} s",
        done.level == "NORMAL" and done.by_single_steps,
        "k2 degrade history",
    )
    rate = demo.trade_rate(2.0)
    evidence.judge(
        "trades flow again",
        f"{rate:,.0f} a second; {demo.acknowledged() - before:,} acknowledged since the walk began",
        rate > 0,
        "python scripts/demo_degradation.py --quick",
    )


def recent_in_time(demo: RunningStack, evidence: Evidence, quick: bool) -> None:
    """Time the hybrid question many times."""
    n = 100 if quick else 1000
    measured = latency([newest_ms(demo, "/v1/trades/recent", 10) for _ in range(n)])
    how = f"over HTTP from {demo.edge}" if demo.edge else f"over gRPC and Flight: {NO_EDGE}"
    evidence.judge(
        f"the last 15 minutes, 10 newest rows, in less than {P99_TARGET_MS:.0f} ms (p99)",
        f"{measured}, {how}",
        measured.p99_ms < P99_TARGET_MS,
        _recent(demo),
    )


def both_sides(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Show how many rows came from the lake and how many from memory."""
    symbol = demo.symbols[0]
    answer = demo.k2.trades(symbol, last="15m")
    ids = answer.to_arrow().column("trade_id").to_pylist()
    origin = answer.provenance
    evidence.judge(
        "one answer from lake and memory, each trade once",
        f"{len(ids):,} rows: {origin.rows_lake or 0:,} of the lake, {origin.rows_tail or 0:,} of"
        f" memory; {len(ids) - len(set(ids))} twice, {origin.completeness}",
        bool(ids) and len(ids) == len(set(ids)) and origin.completeness == "COMPLETE",
        f"k2 trades {symbol} --last 15m",
    )


def bars_of_both_sides(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Make one-minute bars, and make their averages again from the trades of the same token."""
    symbol = demo.symbols[0]
    asked = demo.k2.bars(symbol, every="1m", last="15m")
    bars, origin = asked.to_arrow().to_pylist(), asked.provenance
    if origin.token is None:
        evidence.failures.append("the bars have no read token: they were not whole")
        return
    trades = demo.k2.trades(
        symbol,
        columns=["event_time", "price", "quantity"],
        start=origin.range.start_time,
        end=origin.range.end_time,
        as_of=origin.token,
    )
    expected, sides = minute_averages(trades.to_arrow().to_pylist()), trades.provenance
    same = [bar for bar in bars if bar["vwap"] == expected.get(bar["bar_start"])]
    evidence.judge(
        "each 1-minute bar has the vwap of the trades of the same token, to the last digit",
        f"{len(same)} of {len(bars)} bars, from {sides.rows_lake or 0:,} trades of the lake and"
        f" {sides.rows_tail or 0:,} of memory",
        bool(bars) and len(same) == len(bars) == len(expected),
        f"k2 bars {symbol} --every 1m --last 15m",
    )
    evidence.lines += [
        f"{bar['bar_start']:%H:%M}  open {bar['open']:f}  close {bar['close']:f}"
        f"  volume {bar['volume']:f}  vwap {bar['vwap']:f}{'' if bar['final'] else '  not final'}"
        for bar in bars[-3:]
    ]


def minute_averages(trades: Iterable[Mapping[str, Any]]) -> dict[datetime, Decimal]:
    """Compute the average price of each minute by volume, exactly, rounded half-even once.

    Args:
        trades: event_time, price, quantity.
    """
    sums: dict[datetime, tuple[Decimal, Decimal]] = defaultdict(lambda: (Decimal(), Decimal()))
    for trade in trades:
        minute = trade["event_time"].replace(second=0, microsecond=0)
        quote, base = sums[minute]
        paid = _EXACT.multiply(trade["price"], trade["quantity"])
        sums[minute] = (_EXACT.add(quote, paid), _EXACT.add(base, trade["quantity"]))
    return {
        minute: _EXACT.divide(quote, base).quantize(_TICK, ROUND_HALF_EVEN)
        for minute, (quote, base) in sums.items()
    }


def two_markets(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Join the trades of one symbol with those of another at the same moment."""
    if len(demo.symbols) < 2:
        return
    right, left = demo.symbols[:2]
    columns = ["event_time", "right_event_time"]
    joined = demo.k2.asof(left, right, tolerance="5s", last="5m", columns=columns)
    rows = joined.to_arrow().to_pylist()
    ages = [row["event_time"] - row["right_event_time"] for row in rows if row["right_event_time"]]
    mean_ms = sum(ages, timedelta()) / max(1, len(ages)) / timedelta(milliseconds=1)
    evidence.show(
        f"each {left} trade with the {right} trade before it (as-of join)",
        f"{len(ages):,} of {len(rows):,} have one, {mean_ms:,.0f} ms older in the mean",
        f"k2 asof {left} {right} --tolerance 5s --last 5m",
    )


def edge_agrees(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Compare the ids that the edge returns with those of the client, by the edge's token."""
    what, symbol = "the edge returns the same ids as the client", demo.symbols[0]
    if demo.edge is None:
        evidence.absent(what, NO_EDGE, _recent(demo))
        return
    answer: Any = demo.ask_edge(f"/v1/trades/recent?symbol={symbol}&limit=10")
    ids = [int(row["trade_id"]) for row in answer["data"]]
    token = (answer.get("provenance") or {}).get("token")
    if not token:
        raise NotServed("the edge's answer carries no read token")
    asked = demo.k2.trades(symbol, limit=10, order="desc", columns=["trade_id"], as_of=token)
    same = asked.to_arrow().column(0).to_pylist()
    evidence.judge(what, f"{len(ids)} and {len(same)} ids, newest {ids[:1]}", ids == same,
                   _recent(demo))  # fmt: skip


def what_it_costs(demo: RunningStack, evidence: Evidence, _quick: bool) -> None:
    """Compute the cost at the rate of this moment, and at a million messages a second."""
    rate, measured = live_figures(demo)
    prices = read_prices()
    now = bill(at_scale(rate), measured, prices)
    large = bill(Deployment(_TARGET_SCALE), measured, prices)
    evidence.show(
        "$ per million messages at this moment",
        f"${now.per_million:.2f} at {rate:,.0f}/s: ${now.total:,.0f} a month, nearly all of it the"
        " smallest machine",
        "k2 cost --live",
    )
    evidence.show(
        f"at {_TARGET_SCALE:,.0f} messages/s, extrapolated from one machine",
        f"${large.per_million:.4f} per million, ${large.total:,.0f} a month, {large.vcpus:,.0f}"
        f" vCPU; list prices of {prices.checked}",
        f"k2 cost --live --messages {_TARGET_SCALE:.0f}",
    )
    evidence.show("bytes a trade in this bill", f"{measured.lake_bytes:.1f}", "k2 snapshots")
    why = "no public price for this workload"
    evidence.refuse("cheaper than other vendors", why, "docs/cost-model.md")


def _recent(demo: RunningStack) -> str:
    symbol = demo.symbols[0]
    if demo.edge is None:
        return f"k2 trades {symbol} --last 15m --limit 10 --order desc"
    return f"curl '{demo.edge}/v1/trades/recent?symbol={symbol}&limit=10'"


def _requests(demo: RunningStack) -> float:
    return sum(
        scrape.samples(fetch(f"{demo.edge}/metrics", 5.0), "k2_http_requests_total").values()
    )


PROOFS: dict[str, tuple[Proof, ...]] = {
    "positioning": POSITIONING,
    "streaming": STREAMING,
    "storage": STORAGE,
    "monitoring": (metrics_served, requests_counted, watched_from_outside),
    "resilience": (through_the_levels,),
    "hybrid": (recent_in_time, both_sides, bars_of_both_sides, two_markets, edge_agrees),
    "cost": (what_it_costs,),
}
