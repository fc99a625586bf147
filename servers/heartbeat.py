"""Heartbeats: each process publishes its state, level and counters about once a second.

A `Heart` reads the signals of its process four times a second, computes pressures and level
(`k2/degrade`), and publishes one JSON document a second, or at once when the level changes, under
the process's name on the compacted topic of heartbeats. Readers get `Beat` records
and judge freshness by how long ago a beat arrived: clocks of two machines may differ, so the time
that a process states is only shown. A stale beat means a process that does not serve, whatever its
last beat said.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from k2 import limits
from k2.clock import Clock
from k2.degrade.level import Level, LevelState, Tuning, level_of, step
from k2.degrade.platform import lost_pressure
from k2.degrade.signals import UNREADABLE
from k2.errors import K2Error
from k2.market.instrument import Instrument
from k2.tape.ports import DocumentTopic
from servers.process_signals import SignalReading
from servers.process_table import is_essential

SERVING = "SERVING"
DRAINING = "DRAINING"
REFUSED = "REFUSED"  # it ended: what is stored contradicts itself, and an operator must look
LOST = "LOST"  # no fresh beat
STARTING = "STARTING"  # not serving yet; or no fresh beat yet, and the reader is new itself

T = TypeVar("T")

_log = logging.getLogger(__name__)


_UNREAD = SignalReading({"sample": None}, {"sample": UNREADABLE})


@dataclass(frozen=True)
class Sample:
    """The state of a process at one moment, as its heartbeat publishes it.

    Attributes:
        counters: anything worth knowing, JSON values.
        state: STARTING, SERVING, DRAINING or REFUSED.
    """

    counters: Mapping[str, Any] = field(default_factory=dict)
    state: str = SERVING


class Heart:
    """Reads signals and beats in a thread of its own, from `start` to `close`.

    Args:
        board: the topic of heartbeats.
        clock: wall time for the beat, monotonic time for the level.
        process: its name, the key on the topic.
        run_id: of this run of the process (`Runtime.run_id`).
        addresses: where it listens, by protocol.
        read: reads the signals, in the heart's thread; must be quick.
        sample: called before each beat, in the same thread; must be quick.
        tuning: of the level.
        on_tick: called after each reading, in the same thread; quick, raises nothing.

    Attributes:
        reading: the signals as last read.
        late_s: how much later than asked the thread woke the last time.
    """

    def __init__(  # noqa: PLR0913 one owner, `servers/process.py`
        self,
        *,
        board: DocumentTopic,
        clock: Clock,
        process: str,
        run_id: str,
        addresses: Mapping[str, str],
        sample: Callable[[], Sample],
        read: Callable[[], SignalReading] = SignalReading,
        tuning: Tuning | None = None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._board = board
        self._clock = clock
        self._process = process
        self._run_id = run_id
        self._addresses = dict(addresses)
        self._sample = sample
        self._read = read
        self._tuning = tuning or Tuning()
        self._on_tick = on_tick
        self._state = LevelState()
        self.reading = SignalReading()
        self.late_s = 0.0
        self._evaluated_s = clock.monotonic_s()
        self._last: dict[str, Any] = {}
        self._beaten_s = -math.inf
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    @property
    def level(self) -> Level:
        """This process's own level, as of the last reading."""
        return self._state.level

    @property
    def last(self) -> dict[str, Any]:
        """The last beat by process, published or not; empty before the first."""
        return {self._process: self._last} if self._last else {}

    @property
    def beaten_s(self) -> dict[str, float]:
        """The time of that beat, monotonic seconds, by process."""
        return {self._process: self._beaten_s} if self._last else {}

    @property
    def evaluated_age_s(self) -> float:
        """How long ago the level was last evaluated; the last level holds meanwhile."""
        return self._clock.monotonic_s() - self._evaluated_s

    def start(self) -> None:
        """Read and beat once now, then every `limits.SIGNAL_INTERVAL_S`."""
        self.tick()
        self._thread.start()

    def tick(self) -> None:
        """Read the signals and move the level; beat when it changed, or when a beat is due."""
        before, now_s = self._state.level, self._clock.monotonic_s()
        self.reading = _attempted(self._read, _UNREAD, "signals could not be read")
        self._state = step(self._state, self.reading.pressure, now_s, self._tuning)
        self._on_tick()
        self._evaluated_s = now_s
        due = now_s - self._beaten_s >= limits.HEARTBEAT_INTERVAL_S - limits.SIGNAL_INTERVAL_S / 2
        if due or self._state.level is not before:
            self.beat()

    def beat(self) -> dict[str, Any]:
        """Sample and publish once; returns what was published.

        A sample that raises is published as a process in an unknown state; a topic that cannot be
        reached is logged, and the next beat tries again.
        """
        sample = _attempted(self._sample, Sample(state="UNKNOWN"), "sample failed")
        beat = {
            "process": self._process,
            "pid": os.getpid(),
            "run_id": self._run_id,
            "state": sample.state,
            "level": self._state.level.name,
            "signals": dict(self.reading.signals),
            "pressures": dict(self.reading.pressures),
            "injected": list(self.reading.injected),
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
        self.reading = SignalReading()
        self.beat()

    def _run(self) -> None:
        asked_s = self._clock.monotonic_s()
        while not self._stop.wait(limits.SIGNAL_INTERVAL_S):
            woken_s = self._clock.monotonic_s()
            self.late_s = max(0.0, woken_s - asked_s - limits.SIGNAL_INTERVAL_S)
            _attempted(self.tick, None, "the level was not evaluated")
            asked_s = self._clock.monotonic_s()


def _attempted(call: Callable[[], T], otherwise: T, failure: str) -> T:
    """Call something that must not stop the heart; log what it raises."""
    try:
        return call()
    except Exception:  # noqa: BLE001 whatever is broken in a process, its heart goes on
        _log.exception(failure)
        return otherwise


@dataclass(frozen=True)
class Beat:
    """One process's last heartbeat, as a reader sees it.

    Attributes:
        process, pid, run_id, addresses, counters: as published.
        state: as published, or LOST when the beat is stale.
        level: as published, or what the pressure means when the beat is stale.
        pressures: as published; of a stale beat, `lost_pressure`; none where it drained before.
        signals: readings by name.
        at_us: when it was published, wall microseconds.
        injected: signals whose pressure an operator set.
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
    injected: tuple[str, ...] = ()

    @property
    def pressure(self) -> float:
        """The highest pressure, 0..1."""
        return max(self.pressures.values(), default=0.0)


def read_beats(
    notices: Mapping[str, Mapping[str, Any]],
    heard_s: Mapping[str, float],
    now_s: float,
    since_s: float = -math.inf,
) -> list[Beat]:
    """List the last heartbeat of each process, by name; a stale or unreadable one is LOST.

    Args:
        notices: the newest document of each process.
        heard_s: when each arrived at this reader, monotonic seconds; one that is not in it arrived
            before the reader followed the topic, and counts as stale.
        now_s: monotonic seconds now.
        since_s: since when one that is not in `heard_s` counts as silent.
    """
    beats = []
    for process in sorted(notices):
        beat = _read_beat(process, notices[process])
        silent_s = now_s - heard_s.get(process, since_s)
        fresh = process in heard_s and silent_s <= limits.HEARTBEAT_STALE_S
        alive = fresh and beat.state != LOST
        beats.append(beat if alive else _lost(beat, silent_s))
    return beats


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
            injected=tuple(notice.get("injected", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        _log.warning("heartbeat of %s is not readable", process)
        return Beat(process, 0, "", LOST, Level.NORMAL, {}, {}, {}, {}, 0)


def _lost(beat: Beat, silent_s: float) -> Beat:
    """Mark a process as LOST: it does not serve, and presses unless it said that it drains."""
    if beat.state == DRAINING:
        return _calm(beat, LOST)
    pressure = lost_pressure(silent_s)
    return replace(
        beat,
        state=LOST,
        level=level_of(pressure),
        signals={"heartbeat": None},
        pressures={"heartbeat": pressure},
    )


def _calm(beat: Beat, state: str) -> Beat:
    """Mark a process that does not serve, and exerts no pressure."""
    return replace(beat, state=state, level=Level.NORMAL, signals={}, pressures={})


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
        stack start together, and a first beat takes its time. A process of an earlier stack, that
        is neither expected nor ever heard of, is LOST and exerts no pressure. Nor does one that the
        stack goes on without: shedding load for it would help nothing.
        """
        notices = dict.fromkeys(self._expected, _NEVER) | dict(self._board.current())
        heard_s = dict(self._heard_s)
        if self._own is not None:
            notices |= self._own.last
            heard_s |= self._own.beaten_s
        now_s = self._clock.monotonic_s()
        since_s = self._patient_until_s - limits.HEARTBEAT_STALE_S
        beats = read_beats(notices, heard_s, now_s, since_s)
        if now_s < self._patient_until_s:
            return [_calm(beat, STARTING) if beat.state == LOST else beat for beat in beats]
        waited_for = set(filter(is_essential, heard_s.keys() | set(self._expected)))
        return [
            beat if beat.process in waited_for or beat.state != LOST else _calm(beat, LOST)
            for beat in beats
        ]

    def wait(self, version: int, timeout_s: float) -> int:
        """Wait for a heartbeat after `version`, at most so long; returns the newest version."""
        return self._board.wait_change(version, timeout_s)


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
