"""Starts `k2`, also as `python -m k2cli`.

The command takes most of a second to import. Ctrl-C during that time ends the process at once:
nothing has begun, and an exception inside the imports of a library would print a traceback.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def main() -> None:
    """Run the `k2` script."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # a job in the background ignores it
        signal.signal(signal.SIGINT, _end)
    command = importlib.import_module("k2cli.main")
    signal.signal(signal.SIGINT, before)
    try:
        code = command.run(sys.argv[1:])
    except KeyboardInterrupt:  # while a failure was being reported
        code = _INTERRUPTED
    sys.exit(code)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"k2: interrupted\n")
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
