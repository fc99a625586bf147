"""`python -m servers up`: runs the embedded stack in the foreground and prints JSON lines.

step         name, message                what it is doing
progress     name, what, done, total      bytes of artefacts; total 0: not known
serving      name, pid, addresses, took_s a part serves, at first or again
ready        all of stack.json, the addresses also flat; every part serves
restarting   name, exit_code, restarts, in_s
failing      name, message                it died too often; the stack ends soon
stopped      all parts have ended
failed       reason, message              why it ended by itself
"""

from __future__ import annotations

from k2.settings import Settings
from servers.local.embedded_stack import run_stack
from servers.local.stack_options import read_options
from servers.runtime import Runtime


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Run the stack until it is asked to stop."""
    run_stack(read_options(settings, argv), runtime)
    return 0
