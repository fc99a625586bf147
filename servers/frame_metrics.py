"""Measures what every process has: its level and pressures, and its use of the machine.

Control measures the platform too: its level, which processes and components serve, and how often
the supervisor started each again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil

from k2.degrade.level import Level
from k2.metrics import exported
from k2.telemetry import Counter, Gauge
from servers.degradation_topic import DegradationTopic
from servers.heartbeat import SERVING, Heartbeats
from servers.local.stack_file import restarts_of
from servers.process_signals import SignalReading

ByProcess = Mapping[str, Gauge]

# Of the process and of the platform, in two classes: the name is declared once.
_LEVEL = exported(
    "k2_degradation_level",
    "Level of a process by its own pressures, or of the platform: 0 NORMAL to 4 CIRCUIT_BREAK.",
    *("scope", "process"),
)


@dataclass(frozen=True)
class FrameMeasures:
    """What every process measures of itself."""

    level: Annotated[Mapping[str, ByProcess], _LEVEL]
    pressures: Annotated[
        Mapping[str, Mapping[str, Gauge]],
        exported(
            "k2_degradation_pressure",
            "What a signal of a process means, 0 to 1; as injected where an operator did.",
            *("process", "signal"),
        ),
    ]
    signals: Annotated[
        Mapping[str, Mapping[str, Gauge]],
        exported(
            "k2_degradation_signal",
            "Reading of a signal of a process, in the unit that its name ends with.",
            *("process", "signal"),
        ),
    ]
    injected: Annotated[
        Gauge,
        exported("k2_degradation_injected", "Signals whose pressure an operator set."),
    ]
    resident_bytes: Annotated[
        Gauge, exported("k2_process_resident_bytes", "Resident memory of the process.")
    ]
    cpu_seconds: Annotated[
        Gauge, exported("k2_process_cpu_seconds_total", "CPU time of the process.")
    ]
    threads: Annotated[Gauge, exported("k2_process_threads", "Threads of the process.")]
    open_files: Annotated[
        Gauge, exported("k2_process_open_files", "Files and sockets that the process has open.")
    ]
    start_time_seconds: Annotated[
        Gauge, exported("k2_process_start_time_seconds", "Unix time at which the process started.")
    ]


@dataclass(frozen=True)
class PlatformMeasures:
    """What control measures of the platform."""

    level: Annotated[Mapping[str, ByProcess], _LEVEL]
    override: Annotated[
        Gauge,
        exported("k2_degradation_override", "1 while an operator's override of the level holds."),
    ]
    up: Annotated[
        Mapping[str, bool], exported("k2_process_up", "1 while a process serves.", "process")
    ]
    restarts: Annotated[
        Mapping[str, Counter],
        exported(
            "k2_process_restarts_total", "Starts of a process after one of its deaths.", "process"
        ),
    ]
    components: Annotated[
        Mapping[str, bool],
        exported("k2_component_up", "1 while broker or registry answers.", "component"),
    ]


def measure_frame(process: str, own: Level, reading: SignalReading) -> FrameMeasures:
    """Measure this process.

    Args:
        process: its name.
        own: its level by its own pressures.
        reading: its signals.
    """
    machine = psutil.Process()
    with machine.oneshot():
        times = machine.cpu_times()
        return FrameMeasures(
            level={"process": {process: own}},
            pressures={process: reading.pressures},
            signals={
                process: {
                    name: value for name, value in reading.signals.items() if value is not None
                }
            },
            injected=len(reading.injected),
            resident_bytes=machine.memory_info().rss,
            cpu_seconds=times.user + times.system,
            threads=machine.num_threads(),
            open_files=machine.num_fds(),
            start_time_seconds=machine.create_time(),
        )


def measure_platform(
    process: str,
    heartbeats: Heartbeats,
    degradation: DegradationTopic,
    alive: Mapping[str, Callable[[], bool]],
    data_dir: Path,
) -> PlatformMeasures:
    """Measure the platform.

    Args:
        process: the name of the one that measures.
        heartbeats: of all processes.
        degradation: what control says to all processes.
        alive: asks each component without a heartbeat whether it answers.
        data_dir: of the stack.
    """
    return PlatformMeasures(
        level={"platform": {process: degradation.level()}},
        override=degradation.override() is not None,
        up={beat.process: beat.state == SERVING for beat in heartbeats.beats()},
        restarts=restarts_of(data_dir / "run"),
        components={name: ask() for name, ask in alive.items()},
    )
