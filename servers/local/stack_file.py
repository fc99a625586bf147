"""Publishes the state of a running stack in `DIR/run/stack.json`, and holds a lock while it runs.

`stack.json` is replaced whole whenever something changes:

    version         1
    state           STARTING, SERVING, FAILING (a process is; it ends soon), DRAINING, STOPPED,
                    FAILED
    run_id          32 hexadecimal digits, also K2_RUN_ID in the environment of every process
    supervisor_pid  the process to send SIGTERM to
    data_dir, source, venue, exchange, symbols, started_at_us, updated_at_us
    addresses       control, flight, query, edge, broker, registry, venue, jupyter (its URL, with
                    the token): once the part has served
    processes       of each: name, pid (null while it does not run), state (WAITING, STARTING,
                    SERVING, RESTARTING, FAILING, STOPPING, STOPPED, FAILED), restarts,
                    addresses, exit_code (of its last life), log
    failure         null, or reason and message
    trusted_networks    whose peers are taken beside this machine's

`targets.json` beside it lists the addresses of metrics, as Prometheus reads them (file_sd).

The file outlives the stack; `DIR/run/lock` tells whether it runs: the supervisor holds an exclusive
`flock` on it, which the kernel gives back however it ends.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid, Reason

RUN_ID = "K2_RUN_ID"
_LOCK_WAIT_S = 1.0
_TOKEN = "token="  # in the address of Jupyter
_PRIVATE, _PUBLIC = 0o600, 0o666
_log = logging.getLogger(__name__)


@dataclass
class ProcessRecord:
    """One process, as `stack.json` shows it."""

    name: str
    log: str
    pid: int | None = None
    state: str = "WAITING"
    restarts: int = 0
    addresses: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


@dataclass
class StackRecord:
    """The stack, as `stack.json` shows it."""

    run_id: str
    supervisor_pid: int
    data_dir: str
    source: str
    venue: str
    exchange: str
    symbols: list[str]
    started_at_us: int
    state: str = "STARTING"
    version: int = 1
    updated_at_us: int = 0
    addresses: dict[str, str] = field(default_factory=dict)
    processes: list[ProcessRecord] = field(default_factory=list)
    failure: dict[str, str] | None = None
    trusted_networks: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, in a stable order."""
        return asdict(self)


class Journal:
    """Writes a record to `stack.json` when it has changed."""

    def __init__(self, folder: Path, record: StackRecord, clock: Clock) -> None:
        self.record = record
        self._path = folder / "stack.json"
        self._clock = clock
        self._written: dict[str, Any] = {}
        self._targets: list[dict[str, Any]] | None = None

    def write(self) -> None:
        """Replace the file if the record has changed; a full disk only delays it."""
        current = self.record.as_dict() | {"updated_at_us": 0}
        if current == self._written:
            return
        self.record.updated_at_us = self._clock.now_us()
        targets = metrics_targets(self.record)
        try:
            _replace(self._path, self.record.as_dict())
            self._written = current
            if targets != self._targets:
                _replace(self._path.with_name("targets.json"), targets)
                self._targets = targets
        except OSError as error:
            _log.error("stack.json cannot be written", extra={"error": str(error)})


def metrics_targets(record: StackRecord) -> list[dict[str, Any]]:
    """List where processes serve metrics, with the label `process`; one that died stays listed."""
    return [
        {"targets": [process.addresses["metrics"]], "labels": {"process": process.name}}
        for process in record.processes
        if "metrics" in process.addresses
    ]


@contextmanager
def holding(folder: Path, clock: Clock) -> Iterator[None]:
    """Be the one stack of a data directory.

    Raises:
        Invalid: ALREADY_RUNNING when there is another.
    """
    with (folder / "lock").open("a") as file:
        end = clock.monotonic_s() + _LOCK_WAIT_S  # who only looks holds it for a moment
        while not _locked(file.fileno()):
            if clock.monotonic_s() > end:
                raise Invalid(Reason.ALREADY_RUNNING, _already(folder))
            clock.sleep(0.05)
        yield


def is_held(folder: Path) -> bool:
    """Whether a stack runs in this data directory."""
    try:
        with (folder / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def failing(folder: Path) -> frozenset[str]:
    """List the processes that the supervisor of this data directory has given up, by name."""
    listed = _read(folder).get("processes") or ()
    names = frozenset(
        str(process["name"]) for process in listed if process.get("state") == "FAILING"
    )
    return names if names and is_held(folder) else frozenset()


def addresses(folder: Path) -> dict[str, str]:
    """Return the addresses of the stack that runs in this data directory; none where none runs."""
    listed = _read(folder).get("addresses") or {}
    return {str(name): str(address) for name, address in listed.items()} if is_held(folder) else {}


def restarts_of(folder: Path) -> dict[str, int]:
    """Count how often the supervisor of this data directory started each process again."""
    listed = _read(folder).get("processes") or ()
    return {str(process["name"]): int(process.get("restarts", 0)) for process in listed}


def end_leftovers(folder: Path, say: Callable[[str], None]) -> None:
    """Kill what an earlier stack of this data directory left behind.

    A process is a leftover if its environment carries the run id of that stack: its parts do, and
    what they started, and nothing else, whatever ids were given again since. Call it while holding
    the directory.
    """
    run_id = _read(folder).get("run_id")
    if not run_id:
        return
    leftovers = [process for process in psutil.process_iter() if _run_of(process) == run_id]
    for process in leftovers:
        say(f"ending process {process.pid}, left over from an earlier run")
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(leftovers, timeout=limits.CHILD_DRAIN_S)


def _replace(path: Path, content: object) -> None:
    """Replace a file; only its user may read one that holds a token."""
    scratch, text = path.with_suffix(".new"), json.dumps(content, indent=1) + "\n"
    scratch.unlink(missing_ok=True)
    mode = _PRIVATE if _TOKEN in text else _PUBLIC
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    scratch.rename(path)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _already(folder: Path) -> str:
    pid = _read(folder).get("supervisor_pid")
    known = f" (pid {pid})" if pid else ""
    return (
        f"a K2 runs in {folder.parent} already{known}: stop it with k2 down, "
        "or take another --data-dir"
    )


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "stack.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _run_of(process: psutil.Process) -> str | None:
    """Return the run id of the stack that a process belongs to, as far as this user may know."""
    try:
        return process.environ().get(RUN_ID) if process.pid != os.getpid() else None
    except (psutil.Error, OSError):
        return None
