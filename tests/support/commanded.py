"""Commands of `python -m servers`, run inside a test's own process, which spares their start."""

import importlib
import io
import json
from typing import Any

from k2.clock import SystemClock
from k2.errors import K2Error
from k2.settings import Settings
from servers.__main__ import exit_code
from servers.process_table import COMMANDS
from servers.runtime import Runtime


def commanded(settings: Settings, name: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and last word of a command."""
    out = io.StringIO()
    runtime = Runtime(SystemClock(), "c" * 32, out=out)
    try:
        code = importlib.import_module(COMMANDS[name]).run(settings, runtime, [*arguments])
    except K2Error as error:
        code = exit_code(error)
        runtime.emit("failed", reason=error.reason, message=error.message)
    return code, json.loads(out.getvalue().splitlines()[-1])
