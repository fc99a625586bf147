"""Finds K2: by a given address, by `K2_ADDRESS`, or by the stack of a data directory.

A stack describes itself in `DIR/run/stack.json` and holds a lock on `DIR/run/lock` while it runs.
The lock decides: the file may outlive the stack, and its ports may then belong to another one. Of
the clients, only this module reads the environment and those files.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k2client.errors import Data, Invalid, NotFound

try:
    import fcntl
except ImportError:  # no stack runs on such a machine, but remote ones can be queried
    fcntl = None  # type: ignore[assignment]

DATA_DIR_DEFAULT = ".k2"
CONTROL_PORT = 50051


@dataclass(frozen=True)
class Stack:
    """The description that a stack wrote of itself.

    Attributes:
        directory: its data directory, absolute.
        running: whether its supervisor lives.
        content: the JSON object of its file; empty when it never ran.
    """

    directory: Path
    running: bool
    content: dict[str, Any]

    @property
    def state(self) -> str:
        """STARTING, SERVING, DRAINING, or STOPPED when it does not run."""
        return str(self.content.get("state", "STARTING")) if self.running else "STOPPED"

    @property
    def supervisor_pid(self) -> int | None:
        """The process that runs all others; None when the stack does not run."""
        pid = self.content.get("supervisor_pid")
        return pid if self.running and isinstance(pid, int) else None

    @property
    def processes(self) -> list[dict[str, Any]]:
        """Its processes: name, pid, state, restarts, addresses."""
        listed = self.content.get("processes")
        if not self.running:
            return []
        return [process for process in listed or () if isinstance(process, dict)]

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses of its parts: control, flight, broker, registry, venue."""
        addresses = self.content.get("addresses")
        return dict(addresses) if self.running and isinstance(addresses, dict) else {}


def data_dir(given: str | Path | None = None) -> Path:
    """Return the data directory given, else `K2_DATA_DIR`, else `./.k2`; always absolute.

    Raises:
        Invalid: BAD_SETTING when it names a home directory that does not exist.
    """
    named = given or os.environ.get("K2_DATA_DIR") or DATA_DIR_DEFAULT
    try:
        return Path(named).expanduser().resolve()
    except RuntimeError as error:
        message = f"{named}: there is no such home directory; write an absolute path"
        raise Invalid("BAD_SETTING", message) from error


def api_key(given: str | None = None) -> str | None:
    """Return the key given, else `K2_API_KEY`, else None."""
    return given or os.environ.get("K2_API_KEY") or None


def read_stack(directory: Path) -> Stack:
    """Read the description of the stack of a data directory.

    Raises:
        Data: UNREADABLE_STACK_FILE when its file exists and cannot be read.
    """
    running = is_locked(directory / "run" / "lock")
    path = directory / "run" / "stack.json"
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        content = {}
    except (OSError, ValueError) as error:
        raise Data("UNREADABLE_STACK_FILE", f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise Data("UNREADABLE_STACK_FILE", f"{path} is not a JSON object")
    return Stack(directory, running, content)


def is_locked(path: Path) -> bool:
    """Return whether another process holds the lock; the kernel releases it with that process."""
    if fcntl is None:
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def control_address(given: str | None = None, directory: str | Path | None = None) -> str:
    """Return `host:port` of the control server.

    A given data directory takes precedence over `K2_ADDRESS`.

    Raises:
        NotFound: STACK_NOT_RUNNING when no address is given or found.
    """
    named = given or (None if directory else os.environ.get("K2_ADDRESS"))
    if named:
        return _host_port(named)
    stack = read_stack(data_dir(directory))
    if not stack.running:
        raise not_running(stack.directory)
    address = stack.addresses.get("control")
    if address is None:
        raise NotFound(
            "STACK_NOT_RUNNING", f"the K2 of {stack.directory} is still {stack.state.lower()}"
        )
    return address


def not_running(directory: Path) -> NotFound:
    """Make the error that says that no stack runs, and what to do."""
    return NotFound(
        "STACK_NOT_RUNNING",
        f"no K2 runs in {directory}: start one with `k2 up`, or set K2_ADDRESS to host:port",
    )


def _host_port(text: str) -> str:
    host, colon, port = text.strip().removeprefix("grpc://").rpartition(":")
    if not colon:
        host, port = port, str(CONTROL_PORT)
    if not host or not port.isdecimal():
        raise Invalid("BAD_REQUEST", f"{text!r} is not an address: write host:port")
    return f"{host}:{port}"
