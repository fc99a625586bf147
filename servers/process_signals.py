"""Reads the signals that every process has: memory, disk, and where work waits on this machine.

The sources of Linux are found once, at the start. One that is absent then (no pressure stall
information, no memory limit of a control group) is no signal. One that was read and then fails is
None, which counts as high.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from k2.degrade.signals import Signal

_UNLIMITED: Final = 2**60  # version 1 writes a number near 2^63 where there is no limit
_RECLAIMABLE: Final = {
    "memory.max": ("inactive_file", "active_file"),
    "memory.limit_in_bytes": ("total_inactive_file", "total_active_file"),
}
_USAGE: Final = {
    "memory.max": "memory.current",
    "memory.limit_in_bytes": "memory.usage_in_bytes",
}
_STALLS: Final = {
    Signal.CPU_PRESSURE: "cpu",
    Signal.MEMORY_PRESSURE: "memory",
    Signal.IO_PRESSURE: "io",
}


@dataclass(frozen=True)
class SignalReading:
    """The signals of a process at one moment.

    Attributes:
        signals: readings by name (`k2.degrade.signals.Signal`); None for one that failed.
        pressures: what each means, 0..1.
        injected: signals whose pressure an operator set.
    """

    signals: Mapping[str, float | None] = field(default_factory=dict)
    pressures: Mapping[str, float] = field(default_factory=dict)
    injected: tuple[str, ...] = ()

    @property
    def pressure(self) -> float:
        """The highest pressure."""
        return max(self.pressures.values(), default=0.0)


class ProcessSignals:
    """Reads them; one thread calls `read`. It costs some system calls and small files.

    Args:
        data_dir: whose file system is watched.
        proc: where the kernel describes processes.
        cgroups: where it describes control groups.
    """

    def __init__(
        self,
        data_dir: Path,
        proc: Path = Path("/proc"),
        cgroups: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        process = psutil.Process()
        self._sources: dict[str, Callable[[], float]] = {
            Signal.RSS_BYTES: lambda: float(process.memory_info().rss),
            Signal.DISK_FREE_BYTES: lambda: float(shutil.disk_usage(data_dir).free),
        }
        found: dict[str, Callable[[], float]] = {
            signal: partial(_stalled, proc / "pressure" / name) for signal, name in _STALLS.items()
        }
        limited = _limited(proc / "self" / "cgroup", cgroups)
        if limited:
            found[Signal.CGROUP_BYTES] = lambda: max(map(_used, limited))
        self._sources |= {name: read for name, read in found.items() if _value(read) is not None}

    def read(self) -> dict[str, float | None]:
        """Read each signal; None for one that failed."""
        return {name: _value(read) for name, read in self._sources.items()}


def _value(read: Callable[[], float]) -> float | None:
    try:
        return read()
    except (OSError, ValueError, LookupError, psutil.Error):
        return None


def _stalled(path: Path) -> float:
    """Read the share of the last 10 s in which some work waited."""
    words = path.read_text().split(maxsplit=2)  # some avg10=1.25 avg60=…
    return float(words[1].removeprefix("avg10=")) / 100.0


def _limited(membership: Path, cgroups: Path) -> list[Path]:
    """List the memory limits of this process's control group and of those around it.

    In a container, the group may be seen as the root of what is mounted, whatever its path says.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroups / "memory" if controllers else cgroups
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        group = root / path.lstrip("/")
        folders = [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
        found += [folder / name for folder in folders if _value(partial(_limit, folder / name))]
    return found


def _limit(path: Path) -> float:
    """Read a limit; 0 where there is none."""
    text = path.read_text().strip()
    limit = 0.0 if text == "max" else float(text)
    return 0.0 if limit >= _UNLIMITED else limit


def _used(limit_file: Path) -> float:
    """Read the share of a limit that is in use, without what the kernel can take back at once."""
    limit = _limit(limit_file)
    if not limit:
        return 0.0
    kept = _RECLAIMABLE[limit_file.name]
    lines = (limit_file.parent / "memory.stat").read_text().splitlines()
    cached = sum(
        float(value) for name, _, value in (line.partition(" ") for line in lines) if name in kept
    )
    used = float((limit_file.parent / _USAGE[limit_file.name]).read_text())
    return max(0.0, used - cached) / limit
