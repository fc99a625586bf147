"""`python -m servers backup DIR`: copies catalog, warehouse and registry, with or without a stack.

progress   message, done, total     bytes; total 0: not known
stopped    message                  it was asked to; DIR holds what it held before
result     what the backup is of, how much it is, and how much had to be copied
"""

from __future__ import annotations

from pathlib import Path

from k2.errors import Invalid, Reason
from k2.settings import Settings
from servers.local.backup import PRIVATE, Made, Meter, Stopped, back_up
from servers.local.stack_options import absolute
from servers.runtime import INTERRUPTED, Runtime


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Back up into the folder that is the one argument."""
    if len(argv) != 1:
        raise Invalid(Reason.BAD_REQUEST, "backup takes one argument, the folder of the backup")
    folder = absolute(argv[0], "the folder of the backup")
    meter = Meter(runtime.progress(), runtime.stopping.is_set)
    try:
        made = back_up(settings, folder, runtime.clock, runtime.run_id[:12], meter)
    except Stopped:
        runtime.emit("stopped", message=f"stopped; {folder} holds what it held before")
        return INTERRUPTED
    runtime.emit("result", **_document(made, folder))
    return 0


def _document(made: Made, folder: Path) -> dict[str, object]:
    backup = made.backup
    rows = sum(table.get("rows", 0) for table in backup.tables)
    private = any(entry.to == PRIVATE for entry in backup.files)
    return {
        "folder": str(folder),
        "made_at_us": backup.made_at_us,
        "source": backup.source,
        "tables": list(backup.tables),
        "files": len(backup.files),
        "bytes": backup.size,
        "copied_bytes": made.copied_bytes,
        "pins": made.pins,
        "message": (
            f"{rows:,} rows, {backup.size:,} bytes in {len(backup.files):,} files in {folder}, of "
            f"which {made.copied_bytes:,} bytes of data files had to be copied"
            + ("; it holds the key that signs tickets: keep it private" if private else "")
        ),
    }
