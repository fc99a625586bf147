"""Frames every process of the stack: heartbeat, level, counters, and the order of its end.

A process is declared in `process_table.py`. Its module opens a `Process`, adds what the heartbeat
says, and registers what must end with it; `serve` says that it does its work. At the end everything
registered ends in reverse order, then the connections to the tape close: what was registered before
the heartbeat began ends after the last beat, which says DRAINING.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

from k2 import limits, tracing
from k2.degrade.level import Level, LevelState, Tuning, step
from k2.degrade.platform import Levels, own_need
from k2.degrade.policy import POLICIES
from k2.degrade.signals import Scale, Signal, pressures, scales
from k2.errors import Data
from k2.market.instrument import Tier
from k2.metrics import EVENTS, FieldCollector, gauge
from k2.settings import Settings
from k2.tape import topics
from k2.tape.tape_clients import TapeClients
from k2.telemetry import Counters
from servers.degradation_topic import DegradationTopic
from servers.exporter import Exporter
from servers.frame_metrics import measure_frame
from servers.heartbeat import (
    REFUSED,
    SERVING,
    STARTING,
    Heart,
    Heartbeats,
    Sample,
)
from servers.process_signals import ProcessSignals, SignalReading
from servers.process_table import PROCESSES, expected_by
from servers.runtime import Runtime

EVALUATED_AGE = gauge(
    "k2_degradation_evaluated_age_seconds", "Time since the process last evaluated its level."
)

Signals = Mapping[str, float | None]

METRICS = "metrics"  # among the addresses of a process

_log = logging.getLogger(__name__)


class Process:
    """A process from its start to its end; made by `running`.

    Attributes:
        name: in heartbeats.
        settings, runtime: as given.
        clients: of the tape.
        counters: what the heartbeat counts, and a scrape of the metrics.
        measures: what a scrape of the metrics counts beside that.
        levels: as of the last reading of the signals; replaced at each.
        scales: of the signals, as the settings make them; by default those of the default settings.
        ending: what ends with the process, in reverse order.
    """

    def __init__(
        self, process: str, name: str, settings: Settings, runtime: Runtime, clients: TapeClients
    ) -> None:
        self.name = name
        self.settings = settings
        self.runtime = runtime
        self.clients = clients
        self.counters = Counters()
        self.measures = Counters()
        self.scales: Mapping[str, Scale] = scales()
        self.ending = ExitStack()
        self._process = process
        self._spec = PROCESSES[process]
        self._state = STARTING
        self._signals: Callable[[], Signals] = dict
        self._common = ProcessSignals(settings.data_dir)
        self._addresses: Mapping[str, str] = {}
        self._heart: Heart | None = None
        self._heartbeats: Heartbeats | None = None
        self._tuning = Tuning.of(settings.degrade)
        self._needs = LevelState()
        self._subscribers: list[Callable[[Levels], None]] = []
        self._ticking: list[Callable[[], None]] = []
        self.levels = Levels(shadow=settings.degrade.shadow)
        self._progress, self._progress_due_s = 0, -math.inf

    @classmethod
    @contextmanager
    def running(
        cls, process: str, settings: Settings, runtime: Runtime, name: str = ""
    ) -> Iterator[Self]:
        """Run a process while the block lasts.

        Args:
            process: which of `PROCESSES`.
            settings: of it.
            runtime: of it.
            name: of this copy, where there may be several.
        """
        with TapeClients.open(settings, runtime.clock, runtime.stopping.wait) as clients:
            made = cls(process, name or process, settings, runtime, clients)
            made.subscribe(lambda levels: tracing.scale(levels.policy.trace_scale))
            try:
                with made.ending:
                    yield made
            except Data as refusal:
                if made._spec.tells_refusal:
                    made._tell_refusal(refusal)
                raise

    def subscribe(self, on_change: Callable[[Levels], None]) -> None:
        """Have a function called with the levels whenever one of them has changed.

        Args:
            on_change: called in the thread of the heartbeat, at once with the levels now; quick,
                raises nothing. It is not called for a pressure that changes no level.
        """
        self._subscribers.append(on_change)
        on_change(self.levels)

    def read_levels(self) -> None:
        """Take over what control says already, before the first beat."""
        self._tell(self.levels)

    def on_tick(self, call: Callable[[], None]) -> None:
        """Have a function called after each reading of the signals; quick, raises nothing."""
        self._ticking.append(call)

    @property
    def reading(self) -> SignalReading:
        """The signals as last read."""
        return self._heart.reading if self._heart else SignalReading()

    @property
    def is_evaluated(self) -> bool:
        """Whether its level follows its signals; if not, the last level holds."""
        return self._heart is None or self._heart.evaluated_age_s <= limits.HEARTBEAT_STALE_S

    @cached_property
    def degradation(self) -> DegradationTopic:
        """What control says to all processes."""
        return DegradationTopic(self.clients.topic(topics.DEGRADATION), self.runtime.clock)

    def follow(self) -> Heartbeats:
        """Follow the heartbeats of this process and its peers from now on."""
        heartbeats = self.clients.topic(topics.HEARTBEATS)
        heartbeats.start()
        expected = expected_by(self._process, self.settings)
        self._heartbeats = Heartbeats(heartbeats, self.runtime.clock, expected)
        return self._heartbeats

    def start(
        self,
        addresses: Mapping[str, str],
        signals: Callable[[], Signals] = dict,
        state: str = SERVING,
    ) -> None:
        """Begin to beat.

        Args:
            addresses: where it listens, by protocol.
            signals: read before each beat, beside those that every process has; quick.
            state: SERVING, or STARTING while it does not do its work yet.
        """
        addresses = {**addresses, **self._export()}
        self._addresses, self._signals, self._state = addresses, signals, state
        heart = self._heart = self._make_heart(addresses, self._sample)
        EVALUATED_AGE.set_function(lambda: heart.evaluated_age_s)
        if self._heartbeats:
            self._heartbeats.include(self._heart)
        self.ending.callback(heart.close)
        heart.start()

    def serve(self) -> None:
        """Say that it does its work, in the heartbeat and on stdout."""
        assert self._heart is not None, "it beats before it serves"
        if self._state != SERVING:
            self._state = SERVING
            self._heart.beat()
        self.runtime.emit("serving", addresses=self._addresses)

    def _export(self) -> dict[str, str]:
        """Serve the metrics from now on, where the settings want that; returns the address."""
        if not self.settings.telemetry.metrics:
            return {}
        self.measures.add(lambda: measure_frame(self.name, self.levels.own, self.reading))
        fields = (FieldCollector(self.counters), FieldCollector(self.measures))
        trusted = self.settings.access.trusted_networks
        exporter = Exporter(self.settings.telemetry.listen, (EVENTS, *fields), trusted)
        self.ending.callback(exporter.close)
        return {METRICS: exporter.address}

    def _make_heart(self, addresses: Mapping[str, str], sample: Callable[[], Sample]) -> Heart:
        return Heart(
            board=self.clients.topic(topics.HEARTBEATS),
            clock=self.runtime.clock,
            process=self.name,
            run_id=self.runtime.run_id,
            addresses=addresses,
            sample=sample,
            read=self._read,
            tuning=self._tuning,
            on_tick=self._tick,
        )

    def _sample(self) -> Sample:
        counters = self.counters.values()
        self._tell_progress(counters)
        return Sample(counters, self._state)

    def _read(self) -> SignalReading:
        late_s = {Signal.LOOP_LAG_S: self._heart.late_s if self._heart else 0.0}
        signals = self._common.read() | late_s | dict(self._signals())
        injected = self.degradation.injected(self.name)
        pressed = pressures(signals, self.scales) | injected
        return SignalReading(signals, pressed, tuple(sorted(injected)))

    def _tick(self) -> None:
        """Tell the levels where they changed."""
        assert self._heart is not None, "it ticks"
        before, reading = self.levels, self._heart.reading
        now_s = self.runtime.clock.monotonic_s()
        measured = pressures(reading.signals, self.scales)  # an injection hides no need
        self._needs = step(self._needs, own_need(measured), now_s, self._tuning)
        self._tell(
            replace(
                before,
                own=self._heart.level,
                demanded=self._needs.level,
                pressure=reading.pressure,
            )
        )
        if self.levels.shadow and self.levels.prescribed is not before.prescribed:
            self._say_shadow(self.levels.prescribed)
        for call in self._ticking:
            call()

    def _say_shadow(self, level: Level) -> None:
        """Log what a level would shed; the writer logs the partitions."""
        policy = POLICIES[level]
        shed = [tier.name.lower() for tier in sorted(frozenset(Tier) - policy.tiers)]
        refused = [tier.name.lower() for tier in sorted(frozenset(Tier) - policy.intake)]
        _log.info(
            "in shadow: level %s would hold: %s Tiers paused: %s.",
            level.name,
            policy.summary,
            ", ".join(shed) or "none",
            extra={"tiers_paused": shed, "tiers_refused": refused, "queries": policy.queries.name},
        )

    def _tell(self, levels: Levels) -> None:
        """Take these levels, with what control says now; tell them where one has changed."""
        before, degradation = self.levels, self.degradation
        self.levels = replace(
            levels, platform=degradation.platform(), override=degradation.override()
        )
        if replace(self.levels, pressure=before.pressure) != before:
            for on_change in self._subscribers:
                on_change(self.levels)

    def _tell_progress(self, counters: Mapping[str, Any]) -> None:
        """Tell the supervisor that work gets done, while the counter for it grows."""
        count, now_s = int(counters.get(self._spec.progress, 0)), self.runtime.clock.monotonic_s()
        serves = self.runtime.serving.is_set()
        if count > self._progress and now_s >= self._progress_due_s and serves:
            self._progress, self._progress_due_s = count, now_s + limits.PROGRESS_TOLD_S
            self.runtime.emit("progressed", **{self._spec.progress: count})

    def _tell_refusal(self, refusal: Data) -> None:
        """Publish why it refused what is stored, as its last beat."""
        counters = {"reason": refusal.reason, "message": refusal.message}
        self._make_heart({}, lambda: Sample(counters=counters, state=REFUSED)).beat()
