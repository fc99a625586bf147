"""`python -m servers NAME` for tests of the command: plays the script DIR/NAME.script.json.

The script is {"events": [...], "stay": bool, "exit": int, "stack": {...}}: print the events; with
`stay`, hold the lock and wait for a signal, as the supervisor does. What it was given is kept in
DIR/NAME.given.json.
"""

import fcntl
import json
import os
import signal
import sys
import threading
from pathlib import Path


def emit(event):
    print(json.dumps(event), flush=True)  # noqa: T201 its interface


def main():
    name, *arguments = sys.argv[1:]
    directory = Path(os.environ["K2_DATA_DIR"])  # noqa: TID251 what the command hands on
    script = json.loads((directory / f"{name}.script.json").read_text())
    stopping = threading.Event()
    caught = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: (caught.append(got), stopping.set()))
    run = directory / "run"
    run.mkdir(exist_ok=True)
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stack = script.get("stack", {}) | {"supervisor_pid": os.getpid(), "state": "SERVING"}
        (run / "stack.new").write_text(json.dumps(stack))
        (run / "stack.new").rename(run / "stack.json")  # whole, as the real one
        given = {"arguments": arguments, "pid": os.getpid()}
        (directory / f"{name}.given.json").write_text(json.dumps(given))
        sys.stderr.write(script.get("stderr", ""))
        for event in script["events"]:
            emit(stack | event if event.get("event") == "ready" else event)
        if script.get("stay"):
            stopping.wait(50)
            emit({"event": "draining", "message": f"signal {caught[0] if caught else None}"})
            emit({"event": "stopped"})
    return script.get("exit", 0)


if __name__ == "__main__":
    sys.exit(main())
