"""Heartbeats: each process publishes its state, level and counters about once a second.

A `Heart` samples its process, computes pressures and level (`k2/degrade`) and publishes one JSON
document under the process's name on the compacted topic of heartbeats. Readers get `Beat` records
and judge freshness by how long ago a beat arrived: clocks of two machines may differ, so the time
that a process states is only shown. A stale beat means a process that does not serve, whatever its
last beat said.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from k2 import limits
from k2.clock import Clock
from k2.degrade.level import Level, LevelState, level_of, step
from k2.degrade.signals import UNREADABLE, Scale, Signal, pressures, scales
from k2.errors import K2Error
from k2.market.instrument import Instrument
from k2.tape.ports import DocumentTopic

SERVING = "SERVING"
DRAINING = "DRAINING"
REFUSED = "REFUSED"  # it ended: what is stored contradicts itself, and an operator must look
LOST = "LOST"  # no fresh beat
STARTING = "STARTING"  # not serving yet; or no fresh beat yet, and the reader is new itself

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """The state of a process at one moment, as its heartbeat publishes it.

    Attributes:
        signals: readings by name (`k2.degrade.signals.Signal`); None for one that failed.
        counters: anything else worth knowing, JSON values.
        state: STARTING, SERVING, DRAINING or REFUSED.
        scales: of the signals, as this process's settings make them.
    """

    signals: Mapping[str, float | None] = field(default_factory=dict)
    counters: Mapping[str, Any] = field(default_factory=dict)
    state: str = SERVING
    scales: Mapping[str, Scale] = field(default_factory=scales)


def process_signals(data_dir: Path) -> dict[str, float | None]:
    """Read the signals of every process: its resident memory and the free disk of its data."""
    return {Signal.RSS_BYTES: _rss_bytes(), Signal.DISK_FREE_BYTES: _disk_free_bytes(data_dir)}


def _rss_bytes() -> float | None:
    try:
        return float(psutil.Process().memory_info().rss)
    except (psutil.Error, OSError):
        return None


def _disk_free_bytes(data_dir: Path) -> float | None:
    try:
        return float(shutil.disk_usage(data_dir).free)
    except OSError:
        return None


class Heart:
    """Beats in a thread of its own, from `start` to `close`.

    Args:
        board: the topic of heartbeats.
        clock: wall time for the beat, monotonic time for the level.
        process: its name, the key on the topic.
        run_id: of this run of the process (`Runtime.run_id`).
        addresses: where it listens, by protocol.
        sample: called before each beat, in the heart's thread; must be quick.
    """

    def __init__(
        self,
        *,
        board: DocumentTopic,
        clock: Clock,
        process: str,
        run_id: str,
        addresses: Mapping[str, str],
        sample: Callable[[], Sample],
    ) -> None:
        self._board = board
        self._clock = clock
        self._process = process
        self._run_id = run_id
        self._addresses = dict(addresses)
        self._sample = sample
        self._state = LevelState()
        self._last: dict[str, Any] = {}
        self._beaten_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    @property
    def level(self) -> Level:
        """This process's own level, as of the last beat."""
        return self._state.level

    @property
    def last(self) -> dict[str, Any]:
        """The last beat by process, published or not; empty before the first."""
        return {self._process: self._last} if self._last else {}

    @property
    def beaten_s(self) -> dict[str, float]:
        """The time of that beat, monotonic seconds, by process."""
        return {self._process: self._beaten_s} if self._last else {}

    def start(self) -> None:
        """Beat once now, then every `limits.HEARTBEAT_INTERVAL_S`."""
        self.beat()
        self._thread.start()

    def beat(self) -> dict[str, Any]:
        """Sample, compute and publish once; returns what was published.

        A sample that raises is published as a process in an unknown state under high pressure; a
        topic that cannot be reached is logged, and the next beat tries again.
        """
        sample = self._sampled()
        pressed = pressures(sample.signals, sample.scales)
        highest = max(pressed.values(), default=0.0)
        self._state = step(self._state, highest, self._clock.monotonic_s())
        beat = {
            "process": self._process,
            "pid": os.getpid(),
            "run_id": self._run_id,
            "state": sample.state,
            "level": self._state.level.name,
            "signals": dict(sample.signals),
            "pressures": pressed,
            "addresses": self._addresses,
            "counters": dict(sample.counters),
            "at_us": self._clock.now_us(),
        }
        self._last, self._beaten_s = beat, self._clock.monotonic_s()
        try:
            self._board.put(self._process, beat)
        except K2Error as error:
            _log.warning("heartbeat not published: %s", error.message)
        return beat

    def close(self) -> None:
        """Stop beating, after one last beat that says DRAINING."""
        if not self._thread.is_alive():
            return
        self._stop.set()
        self._thread.join()
        self._sample = lambda: Sample(state=DRAINING)
        self.beat()

    def _run(self) -> None:
        while not self._stop.wait(limits.HEARTBEAT_INTERVAL_S):
            self.beat()

    def _sampled(self) -> Sample:
        try:
            return self._sample()
        except Exception:  # noqa: BLE001 a broken gauge must not stop the heart
            _log.exception("sample failed")
            return Sample(signals={"sample": None}, state="UNKNOWN")


@dataclass(frozen=True)
class Beat:
    """One process's last heartbeat, as a reader sees it.

    Attributes:
        process, pid, run_id, addresses, counters: as published.
        state: as published, or LOST when the beat is stale.
        level: as published, or what `UNREADABLE` pressure means when the beat is stale.
        pressures: as published, or `UNREADABLE` each when the beat is stale.
        signals: readings by name.
        at_us: when it was published, wall microseconds.
    """

    process: str
    pid: int
    run_id: str
    state: str
    level: Level
    signals: Mapping[str, float | None]
    pressures: Mapping[str, float]
    addresses: Mapping[str, str]
    counters: Mapping[str, Any]
    at_us: int


def read_beats(
    notices: Mapping[str, Mapping[str, Any]], heard_s: Mapping[str, float], now_s: float
) -> list[Beat]:
    """List the last heartbeat of each process, by name; a stale or unreadable one is LOST.

    Args:
        notices: the newest document of each process.
        heard_s: when each arrived at this reader, monotonic seconds; one that is not in it arrived
            before the reader followed the topic, and counts as stale.
        now_s: monotonic seconds now.
    """
    fresh = {key for key, at_s in heard_s.items() if now_s - at_s <= limits.HEARTBEAT_STALE_S}
    beats = [_read_beat(process, notices[process]) for process in sorted(notices)]
    return [beat if beat.process in fresh else _lost(beat) for beat in beats]


def _read_beat(process: str, notice: Mapping[str, Any]) -> Beat:
    try:
        return Beat(
            process=process,
            pid=int(notice["pid"]),
            run_id=str(notice["run_id"]),
            state=str(notice["state"]),
            level=Level[notice["level"]],
            signals=dict(notice["signals"]),
            pressures={name: float(value) for name, value in notice["pressures"].items()},
            addresses=dict(notice["addresses"]),
            counters=dict(notice["counters"]),
            at_us=int(notice["at_us"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        _log.warning("heartbeat of %s is not readable", process)
        return _lost(Beat(process, 0, "", LOST, Level.NORMAL, {}, {}, {}, {}, 0))


def _lost(beat: Beat) -> Beat:
    """Mark a process as LOST: it does not serve, and each of its signals counts as high."""
    unread = dict.fromkeys(beat.signals or {"heartbeat": None}, UNREADABLE)
    return replace(
        beat,
        state=LOST,
        level=level_of(UNREADABLE),
        signals=dict.fromkeys(unread),
        pressures=unread,
    )


def _awaited(beat: Beat) -> Beat:
    """Mark a process as STARTING: it does not serve, and exerts no pressure."""
    return replace(beat, state=STARTING, level=Level.NORMAL, signals={}, pressures={})


class Heartbeats:
    """The current state of all processes, as a reader of heartbeats sees them.

    Args:
        board: the topic of heartbeats, followed.
        clock: to judge freshness; only its monotonic time counts.
        expected: processes that are LOST while they have never been heard of.
        patience_s: so long after its own start a silent process is STARTING, not LOST.
    """

    def __init__(
        self,
        board: DocumentTopic,
        clock: Clock,
        expected: Iterable[str] = (),
        patience_s: float = limits.HEARTBEAT_STALE_S,
    ) -> None:
        self._board = board
        self._clock = clock
        self._expected = tuple(expected)
        self._own: Heart | None = None
        self._patient_until_s = clock.monotonic_s() + patience_s
        self._heard_s: dict[str, float] = {}
        board.listen(self._hear)

    def _hear(self, process: str) -> None:
        self._heard_s[process] = self._clock.monotonic_s()

    def include(self, own: Heart) -> None:
        """Read this process's state from its own heart, also while the broker is away."""
        self._own = own

    def beats(self) -> list[Beat]:
        """List the last heartbeat of each process, by name.

        A process without a beat is STARTING, not LOST, while this reader is new itself: parts of a
        stack start together, and a first beat takes its time.
        """
        notices = dict.fromkeys(self._expected, _NEVER) | dict(self._board.current())
        heard_s = dict(self._heard_s)
        if self._own is not None:
            notices |= self._own.last
            heard_s |= self._own.beaten_s
        now_s = self._clock.monotonic_s()
        beats = read_beats(notices, heard_s, now_s)
        if now_s >= self._patient_until_s:
            return beats
        return [_awaited(beat) if beat.state == LOST else beat for beat in beats]

    def level(self) -> Level:
        """Compute the platform's level: the highest of any process."""
        return platform_level(self.beats())

    def wait(self, version: int, timeout_s: float) -> int:
        """Wait for a heartbeat after `version`, at most so long; returns the newest version."""
        return self._board.wait_change(version, timeout_s)


def platform_level(beats: Iterable[Beat]) -> Level:
    """Return the highest level of any process; NORMAL when there is none."""
    return max((beat.level for beat in beats), default=Level.NORMAL)


def listened(beats: Iterable[Beat]) -> frozenset[Instrument]:
    """List the instruments that feeds receive now, by what each fresh heartbeat says of them."""
    instruments = set()
    for beat in beats:
        exchange, symbols = beat.counters.get("exchange"), beat.counters.get("symbols")
        if beat.state == SERVING and isinstance(exchange, str) and isinstance(symbols, Mapping):
            instruments |= {
                Instrument(exchange, symbol)
                for symbol, said in symbols.items()
                if isinstance(said, Mapping) and said.get("listened") is True
            }
    return frozenset(instruments)


_NEVER: Mapping[str, Any] = {
    "pid": 0, "run_id": "", "state": LOST, "level": Level.NORMAL.name,
    "signals": {}, "pressures": {}, "addresses": {}, "counters": {}, "at_us": 0,
}  # fmt: skip
