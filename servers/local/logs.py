"""The logs of the processes: appended to by them, bounded here."""

from __future__ import annotations

import shutil
from pathlib import Path

from k2 import limits

_TAIL_BYTES = 8 * limits.KIB


def bound(path: Path, bytes_max: int = limits.LOG_BYTES_MAX) -> None:
    """Keep a log within `bytes_max` and one older file of that size.

    Its writer appends to the open file, so the content is copied away and the file emptied; what is
    written in between is lost, and nothing else.
    """
    if path.exists() and path.stat().st_size > bytes_max:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        with path.open("r+b") as file:
            file.truncate(0)


def last_lines(path: Path, count: int = 5) -> str:
    """The end of a log, for a message about why a process died."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])
