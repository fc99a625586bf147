"""Five minutes of overload on a real stack: what is shed, what is not, and how it heals.

    python -m tests.chaos.overload --seconds 300 --hold 600

The writer takes `ROWS_PER_S` rows a second at most; the venue prints five times that, most of it in
symbols that are not critical, and eight clients ask for heavy scans at twelve times the places of
their class. Then:

* every trade of the critical symbols that the feed acknowledged is in the lake, their freshness
  stays below `FRESH_S` at p99, and `ANSWERED` of the point queries on them are answered;
* the other tiers are deferred first, and critical partitions never;
* no process dies, none exceeds its memory;
* the process whose signal crosses sheds within `OWN_S`, the platform's level within `PLATFORM_S`;
* after the load the level is NORMAL within `RECOVER_S`, a pressure held on a threshold for `--hold`
  seconds makes it change at most once up and once down, and the lake is complete in the end.

`--mutant idle` and `--mutant wrong-tier` run it with a table that does nothing, and with one that
pauses the wrong tier: each must fail.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import sys
import tempfile
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import k2client
from k2 import limits
from k2.degrade.level import Level, Tuning
from k2.degrade.policy import POLICIES
from k2.market.instrument import Tier
from tests.chaos.account import acknowledged, committed_ids, wrong_ids
from tests.chaos.stack import CLOCK, Stack, until
from tests.chaos.storm import Memory

ROWS_PER_S = 800
CRITICAL = ("BTCUSDT", "ETHUSDT")
CRITICAL_RATE, OTHER_RATE = 300.0, 5 * ROWS_PER_S - 300.0
CLIENTS, TIMES_THE_CLASS = 8, 12
ONCE = k2client.Retry(attempts_max=1)
FRESH_S, ANSWERED, OWN_S, PLATFORM_S, RECOVER_S = 1.0, 0.994, 1.0, 3.0, 180.0
SETTLE_S = 2400.0  # four of five trades waited, and the writer takes no more than before
REFUSAL_S = 0.001
POLL_S = 0.2
TIMED_EVERY_S = 0.1  # between two looks at what a process sheds: no time is known better
SCAN_PAUSE_S = 0.2  # of a refused client; all of them share the interpreter of the measurement
PRESSED = ("feed", "lake", "query")
PAUSED = {"lake": "k2_lake_partitions_paused", "query": "k2_tail_partitions_paused"}
DWELL_S = 5.0
ENVIRONMENT = {
    "K2_LAKE__ROWS_PER_S_MAX": str(ROWS_PER_S),
    "K2_LAKE__COMMIT_INTERVAL_S": "2",
    "K2_QUERY__TAIL_RECENT_S": "5",
    "K2_DEGRADE__DWELL_S": str(DWELL_S),
}
MUTANTS = {
    "idle": "policy.POLICIES.update({l: replace(policy.POLICIES[Level.NORMAL], summary=p.summary)"
    " for l, p in policy.POLICIES.items()})",
    "wrong-tier": "policy.POLICIES.update({l: replace(p, tiers=frozenset(Tier) - {Tier.CRITICAL})"
    " for l, p in policy.POLICIES.items() if len(p.tiers) < len(Tier)})",
}
_MUTATION = """from dataclasses import replace
from k2.degrade import policy
from k2.degrade.level import Level
from k2.market.instrument import Tier
"""


@dataclass
class Findings:
    """What the threads of a run found."""

    levels: Counter[str] = field(default_factory=Counter)  # seconds at each
    deferred_max: Counter[str] = field(default_factory=Counter)
    own_late_s: list[float] = field(default_factory=list)
    platform_late_s: list[float] = field(default_factory=list)
    fresh_s: list[float] = field(default_factory=list)
    points: Counter[str] = field(default_factory=Counter)
    heavy: Counter[str] = field(default_factory=Counter)
    refused_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Overload:
    """One run against one stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._control = str(stack.addresses["control"])
        record = json.loads((stack.data_dir / "run" / "stack.json").read_text())
        self._venue = record["addresses"]["venue"]
        self._stop = threading.Event()
        with k2client.connect(self._control) as k2:
            self._symbols = [symbol.symbol for feed in k2.feeds() for symbol in feed.symbols]
        self.findings = Findings()

    def load(self, seconds: float) -> None:
        """Load the stack for so long, and watch it."""
        work: list[Callable[[], None]] = [self._watch, self._time_platform]
        work += [partial(self._time, name) for name in PRESSED]
        work += [lambda symbol=symbol: self._point(symbol) for symbol in CRITICAL]  # type: ignore[misc]
        each = TIMES_THE_CLASS * self._places() // CLIENTS
        work += [self._scan for _ in range(CLIENTS) for _ in range(max(1, each))]
        threads = [threading.Thread(target=one, daemon=True) for one in work]
        self._set_rates(CRITICAL_RATE, OTHER_RATE)
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        for thread in threads:
            thread.join(limits.QUERY_DEADLINE_S)
        self._set_rates(50.0, 50.0)

    # --- threads --------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Sample the level and what is deferred."""
        found, since_s = self.findings, CLOCK.monotonic_s()
        with k2client.connect(self._control) as k2:
            while not self._stop.wait(POLL_S):
                level, now_s = k2.degradation().level, CLOCK.monotonic_s()
                found.levels[level] += now_s - since_s  # type: ignore[assignment]
                since_s = now_s
                for tier, count in _deferred(k2).items():
                    found.deferred_max[tier] = max(found.deferred_max[tier], count)

    def _time(self, name: str) -> None:
        """Time how late a process follows a signal that crosses an entry: until it sheds.

        What it sheds at a level is what the table of K2 says; it is seen as paused partitions where
        the process has some, else as its level. A signal that falls before that is late too, if it
        took longer than the bound.
        """
        found, entries = self.findings, Tuning().entries
        address, began = self._metric_addresses()[name], dict[int, float]()
        while not self._stop.wait(TIMED_EVERY_S):
            text, now_s = _scraped(address), CLOCK.monotonic_s()
            pressure = max(_samples(text, "k2_degradation_pressure"), default=0.0)
            for entry, above in enumerate(entries, start=1):
                sheds = _sheds(text, name, Level(entry))
                if pressure >= above and not sheds:
                    began.setdefault(entry, now_s)
                elif entry in began:
                    late_s = now_s - began.pop(entry)
                    if sheds or late_s > OWN_S:
                        found.own_late_s.append(late_s)
        found.own_late_s += [
            late_s for since in began.values() if (late_s := now_s - since) > OWN_S
        ]

    def _time_platform(self) -> None:
        """Time how late the platform's level follows the highest pressure that crosses an entry."""
        found, entries = self.findings, Tuning().entries
        addresses, waiting = self._metric_addresses(), dict[int, float]()
        while not self._stop.wait(TIMED_EVERY_S):
            texts = [_scraped(addresses[name]) for name in (*PRESSED, "control")]
            now_s = CLOCK.monotonic_s()
            pressures = [p for text in texts for p in _samples(text, "k2_degradation_pressure")]
            platform = max(_samples(texts[-1], "k2_degradation_level", 'scope="platform"'))
            for entry, above in enumerate(entries, start=1):
                if max(pressures) >= above and platform < entry:
                    waiting.setdefault(entry, now_s)
                elif (since := waiting.pop(entry, None)) is not None and platform >= entry:
                    found.platform_late_s.append(now_s - since)

    def _point(self, symbol: str) -> None:
        """Ask for the newest trades of a critical symbol, ten times a second."""
        found = self.findings
        with k2client.connect(self._control, request_class="critical") as k2:
            while not self._stop.wait(0.1):
                try:
                    rows = k2.trades(symbol, last="10s", limit=100, order="desc").to_arrow()
                except k2client.K2Error as error:
                    with found.lock:
                        found.points[error.reason] += 1
                    continue
                newest_us = max(map(_us, rows.column("receive_time")), default=0)
                with found.lock:
                    found.points["answered"] += 1
                    found.fresh_s.append((CLOCK.now_us() - newest_us) / 1e6)

    def _scan(self) -> None:
        """Ask for all rows of all symbols, without retries, again and again."""
        found = self.findings
        with k2client.connect(self._control, request_class="batch", retry=ONCE) as k2:
            while not self._stop.wait(SCAN_PAUSE_S):
                began_s = CLOCK.monotonic_s()
                try:
                    sum(batch.num_rows for batch in k2.trades(None, deadline_s=30).batches())
                    outcome = "answered"
                except k2client.K2Error as error:
                    outcome = error.reason
                with found.lock:
                    found.heavy[outcome] += 1
                    if outcome in ("SHED", "TOO_MANY_QUERIES", "DEFERRED"):
                        found.refused_s.append(CLOCK.monotonic_s() - began_s)

    # --- the stack ------------------------------------------------------------------------------

    def _set_rates(self, critical: float, others: float) -> None:
        rest = ",".join(symbol for symbol in self._symbols if symbol not in CRITICAL)
        critical_too = ",".join(CRITICAL)
        for query in (
            f"trades_per_s={others:g}&symbols={rest}",
            f"trades_per_s={critical:g}&symbols={critical_too}",
        ):
            address = f"http://{self._venue}/k2/rate?{query}"
            urllib.request.urlopen(address, timeout=10).close()

    def _metric_addresses(self) -> dict[str, str]:
        processes = self._stack.processes()
        return {
            name: one["addresses"]["metrics"]
            for name, one in processes.items()
            if "metrics" in one["addresses"]
        }

    def _places(self) -> int:
        text = _scraped(self._metric_addresses()["query"])
        return round(sum(_samples(text, "k2_query_places", 'class="batch"')))

    def refusal_p99_s(self) -> float:
        """Read the 99th percentile of the time from handler entry to a refusal, its upper bound."""
        buckets: Counter[float] = Counter()
        for address in self._metric_addresses().values():
            pattern = r'^k2_query_refusal_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} (\S+)$'
            for bound, count in re.findall(pattern, _scraped(address), re.MULTILINE):
                buckets[float(bound)] += int(float(count))
        total = max(buckets.values(), default=0)
        return min((le for le, count in buckets.items() if count >= 0.99 * total), default=0.0)

    def recover(self) -> float:
        """Wait until the level is NORMAL; the seconds it took."""
        began_s = CLOCK.monotonic_s()
        with k2client.connect(self._control) as k2:
            until(lambda: k2.degradation().level == "NORMAL", "the level is NORMAL", RECOVER_S)
        return CLOCK.monotonic_s() - began_s

    def settle(self) -> None:
        """Wait until nothing is deferred and no gap is OPEN."""
        with k2client.connect(self._control) as k2:
            until(lambda: not any(_deferred(k2).values()), "nothing is deferred", SETTLE_S)
            until(lambda: not k2.gaps(state="open"), "no gap is OPEN", 600.0)

    def account(self) -> None:
        """Compare the lake with what the feed had acknowledged."""
        with k2client.connect(self._control) as k2:
            goal = acknowledged(k2)
        for symbol, last in goal.items():

            def there(symbol: str = symbol, last: int = last) -> bool:
                ids = committed_ids(self._stack, symbol)
                return bool(ids) and max(ids) >= last

            until(there, f"{symbol} is committed up to {last}", 300.0)
            ids = committed_ids(self._stack, symbol)
            self.findings.faults += wrong_ids(symbol, ids, last)

    def hold(self, seconds: float) -> int:
        """Hold a pressure on the threshold of SOFT for so long; how often the level changed."""
        if not seconds:
            return 0
        with k2client.connect(self._control) as k2:
            before = len(k2.transitions(limit=1000))
            end_s = CLOCK.monotonic_s() + seconds
            while (left := end_s - CLOCK.monotonic_s()) > 0:
                k2.inject_pressure("writer_lag_s", 0.5, min(600.0, left + 1))
                CLOCK.sleep(min(300.0, left))
            CLOCK.sleep(3 * DWELL_S)
            return len(k2.transitions(limit=1000)) - before


def _scraped(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _samples(text: str, name: str, label: str = "") -> list[float]:
    """Read the samples of a metric that have a label."""
    pattern = rf"^{name}(?:\{{[^}}\n]*{label}[^}}\n]*\}})? (\S+)$"
    return [float(value) for value in re.findall(pattern, text, re.MULTILINE)]


def _sheds(text: str, name: str, level: Level) -> bool:
    """Return whether a scrape shows a process at this level, and the partitions paused for it."""
    at = max(_samples(text, "k2_degradation_level", 'scope="process"'), default=0.0)
    shed = frozenset(Tier) - POLICIES[level].tiers if name in PAUSED else ()
    return at >= level and all(
        any(_samples(text, PAUSED[name], f'tier="{tier.name.lower()}"')) for tier in shed
    )


def _us(value: Any) -> int:
    return int(value.value)


def _deferred(k2: k2client.Client) -> dict[str, int]:
    lake = next((one for one in k2.status().components if one.name == "lake"), None)
    counters = lake.counters if lake else {}
    lead = "deferred."
    return {
        name.removeprefix(lead): int(float(value))
        for name, value in counters.items()
        if name.startswith(lead)
    }


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else 0.0


def run(stack: Stack, seconds: float, hold_s: float) -> dict[str, Any]:
    """Overload the stack, let it heal, and report."""
    overload = Overload(stack)
    found, faults = overload.findings, overload.findings.faults
    with Memory(stack) as memory:
        CLOCK.sleep(10.0)
        overload.load(seconds)
        refusal_s = overload.refusal_p99_s()
        recovered_s = overload.recover()
        with ThreadPoolExecutor(1) as pool:  # what was deferred catches up meanwhile
            held = pool.submit(overload.hold, hold_s)
            overload.settle()
            changes = held.result()
    overload.account()
    faults += [f"k2 verify: {stack.k2('verify', check=False).returncode}"] * (
        stack.k2("verify", check=False).returncode != 0
    )
    asked = sum(found.points.values())
    share = found.points["answered"] / max(asked, 1)
    checks = {
        f"point queries answered {share:.4f}": share >= ANSWERED,
        f"freshness p99 {_p99(found.fresh_s):.3f} s": 0 < _p99(found.fresh_s) < FRESH_S,
        "a tier was deferred": any(found.deferred_max[t] for t in ("low", "normal", "high")),
        "critical was never deferred": not found.deferred_max["critical"],
        f"the process acted in {max(found.own_late_s, default=0):.2f} s": max(
            found.own_late_s, default=9.0
        )
        <= OWN_S,
        f"the platform acted in {max(found.platform_late_s, default=0):.2f} s": max(
            found.platform_late_s, default=9.0
        )
        <= PLATFORM_S,
        f"refusal p99 ≤ {refusal_s} s": refusal_s <= REFUSAL_S,
        f"{changes} changes while a pressure was held on a threshold": changes <= 2,
        "no process died": not any(p["restarts"] for p in stack.recorded().values()),
    }
    rss = {name: round(max(sizes)) for name, sizes in memory.samples.items()}
    limit = limits.PROCESS_RSS_MAX / limits.MIB
    faults += [f"{name}: {size} MiB" for name, size in rss.items() if size > limit]
    faults += [f"not so: {what}" for what, holds in checks.items() if not holds]
    return {
        "seconds_at_level": {level: round(s, 1) for level, s in found.levels.items()},
        "deferred_max": dict(found.deferred_max),
        "points": dict(found.points),
        "heavy": dict(found.heavy),
        "client_refusal_p99_s": round(_p99(found.refused_s), 4),
        "checks": list(checks),
        "normal_after_s": round(recovered_s, 1),
        "rss_max_mib": rss,
        "faults": faults,
    }


def main() -> int:
    """Run with the options of the command line; 0 when there are no faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--hold", type=float, default=600.0)
    parser.add_argument("--mutant", choices=MUTANTS)
    parser.add_argument("--observe", action="store_true", help="with Prometheus beside the stack")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the stack ends too
    with tempfile.TemporaryDirectory() as name:
        folder, environment = Path(name), dict(ENVIRONMENT)
        if chosen.mutant:
            (folder / "sitecustomize.py").write_text(_MUTATION + MUTANTS[chosen.mutant] + "\n")
            environment["PYTHONPATH"] = str(folder)
        rate = str(CRITICAL_RATE)
        options = ["--venue", "synthetic", "--rate", rate, *(["--observe"] * chosen.observe)]
        print(f"data directory: {folder / 'data'}", file=sys.stderr)
        with Stack(folder / "data", *options, environment=environment) as stack:
            report = run(stack, chosen.seconds, chosen.hold)
    print(json.dumps(report, indent=2))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
