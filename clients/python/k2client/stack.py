"""Where K2 is: an address that was given, `K2_ADDRESS`, or the stack of a data directory.

A running stack describes itself in `DIR/run/stack.json`; this is the one reader of the environment
and of that file among the clients.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from k2client.errors import Data, Invalid, NotFound

DATA_DIR_DEFAULT = ".k2"
CONTROL_PORT = 50051


@dataclass(frozen=True)
class StackFile:
    """What a stack says of itself, or said before it died.

    Attributes:
        path: where it says so.
        content: the JSON object.
    """

    path: Path
    content: dict[str, Any]

    @property
    def supervisor_pid(self) -> int:
        """The process that runs all others; 0 when the file does not say."""
        pid = self.content.get("supervisor_pid")
        return pid if isinstance(pid, int) else 0

    def address(self, name: str) -> str | None:
        """`host:port` of one part: control, flight, broker, registry, venue."""
        found = self.content.get(name)
        return found if isinstance(found, str) and found else None


def data_dir(given: str | Path | None = None) -> Path:
    """The data directory given, else `K2_DATA_DIR`, else `./.k2`; always absolute."""
    named = given or os.environ.get("K2_DATA_DIR") or DATA_DIR_DEFAULT
    return Path(named).expanduser().resolve()


def api_key(given: str | None = None) -> str | None:
    """The key given, else `K2_API_KEY`, else None."""
    return given or os.environ.get("K2_API_KEY") or None


def read_stack(directory: Path) -> StackFile | None:
    """The stack file of a data directory; None when there is none.

    Raises:
        Data: LAKE_CORRUPT is never used here; UNREADABLE_STACK_FILE when it is no JSON object.
    """
    path = directory / "run" / "stack.json"
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise Data("UNREADABLE_STACK_FILE", f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise Data("UNREADABLE_STACK_FILE", f"{path} is not a JSON object")
    return StackFile(path, content)


def control_address(given: str | None = None, directory: str | Path | None = None) -> str:
    """`host:port` of the control server.

    A data directory that was given goes before `K2_ADDRESS`: whoever names one means its stack.

    Raises:
        NotFound: STACK_NOT_RUNNING when nothing says where it is.
    """
    named = given or (None if directory else os.environ.get("K2_ADDRESS"))
    if named:
        return _host_port(named)
    where = data_dir(directory)
    stack = read_stack(where)
    address = stack.address("control") if stack else None
    if address is None:
        raise NotFound(
            "STACK_NOT_RUNNING",
            f"no K2 runs in {where}: start one with `k2 up`, or set K2_ADDRESS to host:port",
        )
    return address


def _host_port(text: str) -> str:
    host, colon, port = text.strip().removeprefix("grpc://").rpartition(":")
    if not colon:
        host, port = port, str(CONTROL_PORT)
    if not host or not port.isdecimal():
        raise Invalid("BAD_REQUEST", f"{text!r} is not an address: write host:port")
    return f"{host}:{port}"
