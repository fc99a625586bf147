"""Overloads K2 until each degradation level is reached, lets it recover, and accounts for all.

    python scripts/demo_degradation.py --quick

starts a stack of its own whose writer and tail are small, and has its practice venue trade faster
and faster: no pressure is injected. With `--data-dir` it works on a stack that runs: on a simulated
one by real load first, and by injected pressure where that load does not reach a level; on a live
one by injected pressure alone. Every line says which. The last line says that nothing was lost;
the exit code is 0 only then.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count, dropwhile
from pathlib import Path
from typing import Any

import k2client
from k2.clock import SystemClock
from k2.degrade.level import Level
from k2.degrade.policy import POLICIES
from k2.settings import environment

CLOCK = SystemClock()
LEVELS = ("NORMAL", "SOFT", "GRACEFUL", "AGGRESSIVE", "CIRCUIT_BREAK")
TIERS = ("critical", "high", "normal", "low")
INJECTED = {"SOFT": 0.6, "GRACEFUL": 0.75, "AGGRESSIVE": 0.9, "CIRCUIT_BREAK": 1.0}
ROWS_PER_S = 3000  # that the writer of the demonstration takes
CALM_RATE = 130.0  # trades a second
RATE_MAX = 20_000.0
POLL_S = 0.25
SETTLE_S = 240.0
RECORDED_S = 10.0


@dataclass(frozen=True)
class Pace:
    """How fast the demonstration goes.

    Attributes:
        dwell_s: of the stack that it starts.
        tail_bytes: of the tail of that stack.
        push_s: so long a rate is tried before a higher one.
        patience_s: so long load is tried on a stack that runs, before pressure is injected.
        calm_s: so long NORMAL is shown first.
    """

    dwell_s: float
    tail_bytes: int
    push_s: float
    patience_s: float
    calm_s: float


QUICK = Pace(dwell_s=2.0, tail_bytes=5 << 20, push_s=2.0, patience_s=6.0, calm_s=2.0)
FULL = Pace(dwell_s=8.0, tail_bytes=16 << 20, push_s=10.0, patience_s=20.0, calm_s=10.0)


class Failed(Exception):
    """The demonstration cannot go on, or something was lost."""


class Demonstration:
    """One run against one stack.

    Args:
        data_dir: of the stack.
        pace: how fast it goes.
        own: whether the stack was started for it.
    """

    def __init__(self, data_dir: Path, pace: Pace, *, own: bool) -> None:
        self._data_dir = data_dir
        self._pace = pace
        self._own = own
        self._began_s = CLOCK.monotonic_s()
        self._k2 = k2client.connect(data_dir=data_dir)
        addresses = json.loads((data_dir / "run" / "stack.json").read_text())["addresses"]
        self._venue = addresses.get("venue", "")
        self._rate_before: float | None = None

    def run(self) -> None:
        """Go through all levels and back; raises `Failed` when something was lost."""
        settings = self._k2.settings()
        whose = "a stack of its own" if self._own else f"the stack of {self._data_dir}"
        self._say(f"{whose}, with a dwell of {settings['degrade.dwell_s']} s")
        self._show_normal()
        try:
            for level in LEVELS[1:]:
                self._rise_to(level)
        finally:
            if self._venue:
                self._set_rate(CALM_RATE if self._own else self._rate_before or CALM_RATE)
        loaded = self._k2.transitions(limit=1)[0].time
        self._recover()
        self._settle()
        if self._own:
            self._assert_it_only_fell(loaded)
        self._account()

    # --- up -------------------------------------------------------------------------------------

    def _show_normal(self) -> None:
        self._until(lambda: self._level() == "NORMAL", "the level is NORMAL", SETTLE_S)
        CLOCK.sleep(self._pace.calm_s)
        self._say("NORMAL         every trade is written and every query is answered")

    def _rise_to(self, level: str) -> None:
        """Load the stack until a level is reached, then say what raised it."""
        if not self._own and not self._by_load(level, self._pace.patience_s):
            self._inject(level)
        elif self._own and not self._by_load(level, SETTLE_S):
            raise Failed(f"{level} was not reached under {RATE_MAX:.0f} trades/s")
        self._show(level)

    def _by_load(self, level: str, patience_s: float) -> bool:
        if not self._venue:
            return False
        rate, end_s = self._rate(), CLOCK.monotonic_s() + patience_s
        before = -1.0
        for push in count(1):
            if CLOCK.monotonic_s() >= end_s:
                break
            pressure = self._pressure()
            if pressure <= before + 0.01 or push % 3 == 0:  # it presses no further, or slowly
                rate = min(RATE_MAX, max(1.7 * ROWS_PER_S, rate * 1.25))
                self._set_rate(rate)
                self._say(f"               the venue prints {rate:,.0f} trades/s")
            before = pressure
            if self._wait_for(level, self._pace.push_s):
                return True
        return False

    def _inject(self, level: str) -> None:
        self._k2.inject_pressure("writer_lag_s", INJECTED[level], 60.0, "lake")
        self._say(f"               writer_lag_s of lake injected at {INJECTED[level]}")
        if not self._wait_for(level, SETTLE_S):
            raise Failed(f"{level} was not reached by injected pressure")

    def _show(self, level: str) -> None:
        change = self._change_to(level)
        reading = "-" if change.reading is None else f"{change.reading:,.6g}"
        deferred = self._deferred()
        self._say(
            f"{level:<14} {change.process} {change.signal} = {reading}, pressure"
            f" {change.pressure:.2f} ≥ {change.threshold:.2f}"
            f"{' (injected)' if change.injected else ''}; deferred records:"
            f" {', '.join(f'{tier} {deferred.get(tier, 0):,}' for tier in TIERS)}"
        )
        self._say(f"               {POLICIES[Level[level]].summary}")

    def _change_to(self, level: str) -> Any:  # noqa: ANN401 a record of the client
        """Return the newest transition to a level or past it; it is on record soon after."""
        wanted, end_s = LEVELS.index(level), CLOCK.monotonic_s() + RECORDED_S
        while CLOCK.monotonic_s() < end_s:
            for change in self._k2.transitions(limit=50):
                if LEVELS.index(change.from_level) < wanted <= LEVELS.index(change.to_level):
                    return change
            CLOCK.sleep(POLL_S)
        raise Failed(f"no transition to {level} is on record")

    # --- down -----------------------------------------------------------------------------------

    def _recover(self) -> None:
        self._say("               the load ends")
        before = self._level()
        end_s = CLOCK.monotonic_s() + SETTLE_S
        while before != "NORMAL":
            level = self._level()
            if level != before:
                down = LEVELS.index(before) - LEVELS.index(level)
                if down > 1:
                    raise Failed(f"the level fell from {before} to {level} in one step")
                self._say(f"{level:<14} {'one step down' if down == 1 else 'up again'}")
                before = level
            if CLOCK.monotonic_s() > end_s:
                raise Failed(f"the level stays {before}")
            CLOCK.sleep(POLL_S)

    def _settle(self) -> None:
        """Wait until all that was deferred is in the lake and no gap is OPEN."""
        goal = self._acknowledged()
        patience_s = SETTLE_S + 2 * self._late() / ROWS_PER_S
        self._until(lambda: not any(self._deferred().values()), "nothing is deferred", patience_s)
        self._until(lambda: not self._k2.gaps(state="open"), "no gap is OPEN", patience_s)
        goal = {symbol: max(of, goal.get(symbol, 0)) for symbol, of in self._acknowledged().items()}
        self._until(lambda: self._committed(goal), "the lake has every trade", SETTLE_S)
        self._say("               nothing is deferred, no gap is OPEN")

    def _assert_it_only_fell(self, since: datetime) -> None:
        """Check that what caught up raised the level to SOFT at most, from its first step down."""
        later = [one for one in self._k2.transitions(limit=200) if one.time > since]
        changes = dropwhile(lambda one: one.cause != "CALM", reversed(later))
        for change in changes:
            at = LEVELS.index(change.to_level)
            if at > max(LEVELS.index(change.from_level), LEVELS.index("SOFT")):
                raise Failed(
                    f"catching up raised the level to {change.to_level}: {change.process}"
                    f" {change.signal} = {change.reading}"
                )

    def _committed(self, goal: dict[str, int]) -> bool:
        for symbol, trade_id in goal.items():
            newest = self._k2.trades(
                symbol, columns=["trade_id"], order="desc", limit=1, consistency="committed"
            ).to_arrow()
            if not len(newest) or newest.column(0)[0].as_py() < trade_id:
                return False
        return True

    def _account(self) -> None:
        total = missing = twice = 0
        for symbol in sorted(self._acknowledged()):
            rows = self._k2.trades(symbol, columns=["trade_id"], consistency="committed").to_arrow()
            ids = sorted(rows.column("trade_id").to_pylist())
            total += len(ids)
            twice += len(ids) - len(set(ids))
            missing += ids[-1] - ids[0] + 1 - len(set(ids)) if ids else 0
        verified = self._k2.verify()
        self._say(f"               k2 verify: exit code {verified.exit_code}")
        said = f"{total:,} trades, {missing} missing, {twice} twice"
        if missing or twice or verified.exit_code or not total:
            raise Failed(f"not all is there: {said}")
        self._say(f"nothing was lost: {said}", plain=True)

    # --- reading --------------------------------------------------------------------------------

    def _level(self) -> str:
        return self._k2.degradation().level

    def _pressure(self) -> float:
        processes = self._k2.degradation().processes
        return max((one.pressure for process in processes for one in process.pressures), default=0)

    def _deferred(self) -> dict[str, int]:
        """Records that a level deferred, by tier, from the lake's heartbeat."""
        lake = next((one for one in self._k2.status().components if one.name == "lake"), None)
        counters = lake.counters if lake else {}
        return {
            name.removeprefix("deferred."): int(float(value))
            for name, value in counters.items()
            if name.startswith("deferred.")
        }

    def _late(self) -> int:
        """Count the trades that wait on the tape, and those that the venue has to send again."""
        gaps = self._k2.gaps(state="open")
        ids = sum(gap.last_trade_id - gap.first_trade_id + 1 for gap in gaps)
        return ids + sum(self._deferred().values())

    def _acknowledged(self) -> dict[str, int]:
        return {
            symbol.symbol: symbol.acknowledged_trade_id
            for feed in self._k2.feeds()
            for symbol in feed.symbols
            if symbol.acknowledged_trade_id is not None
        }

    def _wait_for(self, level: str, patience_s: float) -> bool:
        end_s = CLOCK.monotonic_s() + patience_s
        while LEVELS.index(self._level()) < LEVELS.index(level):
            if CLOCK.monotonic_s() >= end_s:
                return False
            CLOCK.sleep(POLL_S)
        return True

    def _until(self, condition: Callable[[], bool], what: str, patience_s: float) -> None:
        end_s = CLOCK.monotonic_s() + patience_s
        while not condition():
            if CLOCK.monotonic_s() > end_s:
                raise Failed(f"after {patience_s:.0f} s it is not true that {what}")
            CLOCK.sleep(2 * POLL_S)

    def _rate(self) -> float:
        rate = self._ask_venue("")
        if self._rate_before is None:
            self._rate_before = rate
        return rate

    def _set_rate(self, rate: float) -> None:
        self._ask_venue(f"?trades_per_s={rate:g}")

    def _ask_venue(self, query: str) -> float:
        address = f"http://{self._venue}/k2/rate{query}"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(address, timeout=10) as answer:
            return float(json.load(answer)["trades_per_s"])

    def _say(self, text: str, *, plain: bool = False) -> None:
        lead = "" if plain else f"[{CLOCK.monotonic_s() - self._began_s:6.1f} s] "
        print(f"{lead}{text}", flush=True)


@contextmanager
def own_stack(pace: Pace) -> Iterator[Path]:
    """Run a small stack while the block lasts; yields its data directory."""
    k2 = [sys.executable, "-m", "k2cli"]
    with tempfile.TemporaryDirectory(prefix="k2-degradation-") as folder:
        settings = {
            "K2_DEGRADE__DWELL_S": str(pace.dwell_s),
            "K2_LAKE__ROWS_PER_S_MAX": str(ROWS_PER_S),
            "K2_LAKE__COMMIT_INTERVAL_S": "1",
            "K2_QUERY__TAIL_BYTES_MAX": str(pace.tail_bytes),
            "K2_QUERY__TAIL_RECENT_S": "1",
            "K2_VENUE__RATE": str(CALM_RATE),
        }
        where = ["--data-dir", folder]
        up = [*k2, "up", "-d", "--ports", "free", "--venue", "synthetic", *where]
        started = subprocess.run(
            up, env=environment() | settings, capture_output=True, text=True, check=False
        )
        if started.returncode:
            raise Failed(f"k2 up: {started.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run([*k2, "down", *where], capture_output=True, check=False)


def main() -> int:
    """Run the demonstration; 0 only when nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="in less than two minutes")
    parser.add_argument("--data-dir", type=Path, help="of a stack that runs; else one of its own")
    chosen = parser.parse_args()
    pace = QUICK if chosen.quick else FULL
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as ending:
            own = chosen.data_dir is None
            folder = ending.enter_context(own_stack(pace)) if own else chosen.data_dir
            Demonstration(folder, pace, own=own).run()
    except (Failed, k2client.K2Error, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
