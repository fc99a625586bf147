"""Decides whether a demonstration may begin: each item of the checklist is computed.

`read_state` asks the running stack; `checklist` and `decision` are pure.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from k2cli.demo.evidence import Latency, latency
from k2cli.demo.stage.history_load import SPAN_S
from k2cli.demo.stage.page_addresses import FAILED, Found, looked_at
from k2cli.operate import scrape
from k2cli.operate.fetching import NotServed
from k2cli.operate.running_stack import RunningStack
from k2client.errors import K2Error, NotFound
from k2client.stack import Stack
from k2client.times import to_us

P99_TARGET_MS = 500.0
STABLE_S = 300.0
FLOW_S = 2.0
_LATENCY_CALLS = 100
_LATENCY_S = 4.0  # then with as many calls as were made
_SPAN_SHARE = 0.99
MATERIALS = ("demo", "materials")


@dataclass(frozen=True)
class StageState:
    """What was found of a stack at one moment.

    Attributes:
        running: whether its supervisor lives.
        processes: the state of each, by name.
        restarts: of each, by name.
        ages_s: how long each process has run, by name, as far as its metrics say.
        level: of the platform; empty when the control plane does not answer.
        source: live, recorded or simulated.
        trades_per_s: that reached the tape while it was looked at; None: not known.
        without_history: symbols with less than an hour of trades.
        open_ids: trade ids that are missing and not fetched yet.
        answers: latencies of a small query; None when one failed.
        failure: why one failed.
        pages: what is at each address.
        materials: the newest backup materials; None when there are none.
    """

    running: bool
    processes: Mapping[str, str] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    ages_s: Mapping[str, float] = field(default_factory=dict)
    level: str = ""
    source: str = ""
    trades_per_s: float | None = None
    without_history: tuple[str, ...] = ()
    open_ids: int = 0
    answers: Latency | None = None
    failure: str = ""
    pages: tuple[Found, ...] = ()
    materials: str | None = None


@dataclass(frozen=True)
class Item:
    """One item of the checklist.

    Attributes:
        name: in words.
        ok: whether it is as it should be.
        found: what was found.
        way_out: what to do when it is not.
        required: whether it decides; the others warn.
    """

    name: str
    ok: bool
    found: str
    way_out: str = ""
    required: bool = True


def decision(items: Iterable[Item]) -> str:
    """Return GO when every required item is as it should be, else NO-GO."""
    return "GO" if all(item.ok for item in items if item.required) else "NO-GO"


def checklist(state: StageState) -> list[Item]:
    """Compute every item."""
    if not state.running:
        return [Item("stack runs", False, "no K2 runs", "k2 up -d --venue synthetic")]
    return [
        _processes(state),
        _stable(state),
        Item(
            "level is NORMAL",
            state.level == "NORMAL",
            state.level or "the control plane does not answer",
            "k2 degrade: see what presses, or wait",
        ),
        Item(
            "trades arrive",
            bool(state.trades_per_s and state.trades_per_s > 0),
            "not known" if state.trades_per_s is None else f"{state.trades_per_s:,.0f} a second",
            "k2 feeds; k2 logs feed",
        ),
        Item(
            "an hour of history of every symbol",
            not state.without_history,
            f"missing: {', '.join(state.without_history)}" if state.without_history else "all",
            "python scripts/demo_mode.py --load",
        ),
        Item(
            "no trade id is missing",
            not state.open_ids,
            f"{state.open_ids:,} open ids",
            "k2 gaps --state open: they are being fetched",
        ),
        _answers(state),
        _pages(state),
        Item(
            "backup materials",
            state.materials is not None,
            state.materials or "none",
            "k2 demo export",
            required=False,
        ),
    ]


def _processes(state: StageState) -> Item:
    wrong = {name: is_in for name, is_in in state.processes.items() if is_in != "SERVING"}
    found = ", ".join(f"{name} {is_in}" for name, is_in in sorted(wrong.items()))
    return Item(
        "every process serves",
        not wrong and bool(state.processes),
        found or f"{len(state.processes)} processes",
        "k2 status; make demo-reset",
    )


def _stable(state: StageState) -> Item:
    """No process was started again within the last five minutes."""
    young = [
        name
        for name, count in sorted(state.restarts.items())
        if count and state.ages_s.get(name, 0.0) < STABLE_S
    ]
    found = f"no restart in {STABLE_S / 60:.0f} minutes"
    if not state.restarts:
        found = "restarts are the container engine's: docker compose ps"
    if young:
        found = f"started again within {STABLE_S / 60:.0f} minutes: {', '.join(young)}"
    elif state.ages_s:
        found += f"; the youngest process has run for {min(state.ages_s.values()):,.0f} s"
    return Item("stable", not young, found, "k2 logs; wait, or make demo-reset")


def _answers(state: StageState) -> Item:
    name = f"the newest trades in less than {P99_TARGET_MS:.0f} ms (p99)"
    if state.answers is None:
        return Item(name, False, state.failure or "no answer", "k2 status; k2 logs query")
    ok = state.answers.p99_ms < P99_TARGET_MS
    return Item(name, ok, str(state.answers), "htop: what else runs on this machine?")


def _pages(state: StageState) -> Item:
    failed = [page for page in state.pages if page.state == FAILED]
    words = [f"{page.name} {page.state}" for page in state.pages]
    return Item(
        "every address of this stack answers",
        not failed,
        "; ".join(page.message for page in failed) or ", ".join(words),
        "make test-e2e-health",
    )


def state_of(data_dir: Path | None) -> StageState:
    """Ask the stack of a data directory, or that of containers, whether or not one runs."""
    try:
        with RunningStack.open(data_dir) as demo:
            return read_state(demo)
    except NotFound:
        return StageState(running=False)


def read_state(demo: RunningStack, flow_s: float = FLOW_S) -> StageState:
    """Ask a running stack for everything the checklist needs."""
    with ThreadPoolExecutor(1) as beside:  # the checklist has to turn within seconds
        measuring = beside.submit(_measured, demo)
        found = _asked(demo, flow_s)
        answers, refused = measuring.result()
    return replace(found, answers=answers, failure=refused or found.failure)


def _asked(demo: RunningStack, flow_s: float) -> StageState:
    """Ask for everything but the latencies."""
    rate, level, open_ids, failure = None, "", 0, ""
    states, restarts = _supervised(demo.described)
    try:
        rate = demo.trade_rate(flow_s)
        level = demo.k2.degradation().level
        status = demo.k2.status()
        for component in status.components:
            lost = component.report_time is not None and component.state in ("LOST", "DRAINING")
            if component.name in states and lost:
                states[component.name] = component.state
        gaps = demo.k2.gaps(state="open")
        open_ids = sum(gap.last_trade_id - gap.first_trade_id + 1 for gap in gaps)
    except K2Error as error:
        failure = f"{error.reason}: {error.message}"
    return StageState(
        running=True,
        processes=states,
        restarts=restarts,
        ages_s=ages_s(demo.metrics(), time.time_ns() / 1e9),
        level=level,
        source=demo.source,
        trades_per_s=rate,
        without_history=tuple(_without_history(demo)),
        open_ids=open_ids,
        failure=failure,
        pages=tuple(looked_at(demo.described)),
        materials=newest_materials(demo.directory),
    )


def ages_s(metrics: Mapping[str, str], now_s: float) -> dict[str, float]:
    """Read from scrapes how long each process has run."""
    found = {}
    for name, text in metrics.items():
        for started_s in scrape.samples(text, "k2_process_start_time_seconds").values():
            found[name] = now_s - started_s
    return found


def newest_materials(directory: Path) -> str | None:
    """Return the newest folder of backup materials of a data directory."""
    folders = sorted(directory.joinpath(*MATERIALS).glob("*/"))
    return str(folders[-1]) if folders else None


def _supervised(described: Stack) -> tuple[dict[str, str], dict[str, int]]:
    states: dict[str, str] = {}
    restarts: dict[str, int] = {}
    for record in described.processes:
        name = str(record.get("name"))
        states[name] = str(record.get("state"))
        if "restarts" in record:
            restarts[name] = int(record["restarts"] or 0)
    return states, restarts


def _measured(demo: RunningStack) -> tuple[Latency | None, str]:
    """Time a small query, over HTTP where there is an edge."""
    took_ms: list[float] = []
    end_s = time.monotonic() + _LATENCY_S
    try:
        newest_ms(demo)  # connects
        while len(took_ms) < _LATENCY_CALLS and (time.monotonic() < end_s or not took_ms):
            took_ms.append(newest_ms(demo))
        return latency(took_ms), ""
    except K2Error as error:
        return None, f"{error.reason}: {error.message}"
    except NotServed as error:
        return None, str(error)


def newest_ms(demo: RunningStack, path: str = "/v1/trades", limit: int = 5) -> float:
    """Ask for the newest trades of the first symbol; returns the milliseconds until their rows.

    Raises:
        K2Error: the query was refused.
        NotServed: the edge did not answer, or without rows.
    """
    symbol = demo.symbols[0]
    began = time.perf_counter()
    if demo.edge is not None:
        answer: Any = demo.ask_edge(f"{path}?symbol={symbol}&limit={limit}")
        rows = len(answer.get("data") or ())
    else:
        rows = demo.k2.trades(symbol, limit=limit, order="desc").to_arrow().num_rows
    if not rows:
        raise NotServed(f"no trade of {symbol}")
    return (time.perf_counter() - began) * 1000


def _without_history(demo: RunningStack) -> list[str]:
    """List the symbols without a trade of an hour ago: of the two minutes before it."""
    now_us = time.time_ns() // 1000
    until_us = now_us - int(SPAN_S * _SPAN_SHARE * 1e6)
    missing = []
    for symbol in demo.symbols:
        try:
            rows = demo.k2.trades(symbol, limit=1, columns=["event_time"]).to_arrow()
        except K2Error:
            missing.append(symbol)
            continue
        if not rows.num_rows or to_us(rows.column(0)[0].as_py()) > until_us:
            missing.append(symbol)
    return missing
