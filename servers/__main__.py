"""Runs one process or command: `python -m servers NAME`, with JSON lines on stdout.

Exit codes: 0 it stopped as asked; 1 it failed; 2 the request or a setting is wrong; 3 a port is in
use; 4 the disk is full; 5 a folder cannot be written to; 6 stored data contradicts itself or its
stamp; 7 the data directory is in use by another stack; 8 a process of the stack died; 130 it was
stopped before its end.
"""

from __future__ import annotations

import gc
import importlib
import logging
import sys
from contextlib import AbstractContextManager, nullcontext

from k2 import logs, metrics, settings
from k2.errors import Data, Invalid, K2Error, Reason
from k2.settings import Settings
from servers import runtime
from servers.process_table import MODULES, PROCESSES

_EXIT_CODES = {
    Reason.PORT_IN_USE: 3,
    Reason.DISK_FULL: 4,
    Reason.NOT_WRITABLE: 5,
    Reason.ALREADY_RUNNING: 7,
    Reason.PROCESS_DIED: 8,
}
_log = logging.getLogger(__name__)


def exit_code(error: K2Error) -> int:
    """Return the exit code of an error."""
    if error.reason in _EXIT_CODES:
        return _EXIT_CODES[error.reason]
    if isinstance(error, Invalid):
        return 2
    return 6 if isinstance(error, Data) else 1


def main(arguments: list[str]) -> int:
    """Run one process until it ends; its exit code."""
    machine = runtime.start()
    return machine.end(_code_of(machine, arguments))


def _code_of(machine: runtime.Runtime, arguments: list[str]) -> int:
    try:
        name, *rest = arguments or [""]
        if name not in MODULES:
            raise Invalid(Reason.BAD_REQUEST, f"{name!r} is not one of {', '.join(MODULES)}")
        loaded = settings.load()
        to_file = loaded.telemetry.log_files and name in PROCESSES
        logs.set_up(name, loaded.log_level, loaded.data_dir / "logs" if to_file else None)
        metrics.SWITCH.on = loaded.telemetry.metrics
        module = importlib.import_module(MODULES[name])
        # What was imported stays: a full collection need not look at it, which took 85 ms each.
        gc.collect()
        gc.freeze()
        with _traced(loaded, name, machine):
            code: int = module.run(loaded, machine, rest)
    except runtime.Interrupted:
        machine.emit("stopped", message=f"{name}: stopped before its end")
        return runtime.INTERRUPTED
    except K2Error as error:
        machine.emit("failed", reason=error.reason, message=error.message, metadata=error.metadata)
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 the last resort of a process
        _log.exception("failed")
        machine.emit("failed", reason=Reason.INTERNAL, message=f"{type(error).__name__}: {error}")
        return 1
    return code


def _traced(loaded: Settings, name: str, machine: runtime.Runtime) -> AbstractContextManager[None]:
    """Send spans of a process, where there is a collector; else not even import what sends them."""
    if name not in PROCESSES or not loaded.telemetry.otlp_endpoint:
        return nullcontext()
    exporter = importlib.import_module("servers.trace_export")
    made: AbstractContextManager[None] = exporter.exporting(loaded.telemetry, name, machine.run_id)
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
