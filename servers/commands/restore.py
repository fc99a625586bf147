"""`python -m servers restore DIR [--keep-tape]`: restores a backup into the data directory.

progress   message, done, total     bytes
stopped    message                  it was asked to; nothing is in place
result     what came back, and where a lake goes on
"""

from __future__ import annotations

from k2.errors import Invalid, Reason
from k2.settings import Settings
from servers.local.backup import Meter, Stopped
from servers.local.restore import restore
from servers.local.stack_options import absolute
from servers.runtime import INTERRUPTED, Runtime

_KEEP_TAPE = "--keep-tape"


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Restore from the folder that is the one argument."""
    folders = [word for word in argv if word != _KEEP_TAPE]
    if len(folders) != 1:
        raise Invalid(Reason.BAD_REQUEST, f"restore takes a folder and {_KEEP_TAPE} if wanted")
    folder = absolute(folders[0], "the folder of the backup")
    meter = Meter(runtime.progress(), runtime.stopping.is_set)
    keep_tape = _KEEP_TAPE in argv
    try:
        restored = restore(settings, folder, runtime.clock, meter, keep_tape=keep_tape)
    except Stopped:
        runtime.emit("stopped", message="stopped; nothing was restored")
        return INTERRUPTED
    backup = restored.backup
    rows = sum(table.get("rows", 0) for table in backup.tables)
    runtime.emit(
        "result",
        data_dir=str(settings.data_dir.resolve()),
        made_at_us=backup.made_at_us,
        source=backup.source,
        tables=list(backup.tables),
        files=restored.files,
        bytes=restored.bytes,
        message=f"{rows:,} rows, {restored.bytes:,} bytes in {restored.files:,} files are back",
    )
    return 0
