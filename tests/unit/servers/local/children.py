"""Tiny programs that stand for the parts of a stack, and a supervisor over them."""

import io
import json
import sys
import threading

from k2.clock import SystemClock
from servers.local.child_process import ChildCommand
from servers.local.stack_config import StackPart
from servers.local.stack_file import Journal, StackRecord
from servers.local.supervisor import Supervisor
from servers.runtime import Runtime

SERVES = """
import json, signal, sys, threading
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
print(json.dumps({"event": "serving", "addresses": {"grpc": "127.0.0.1:1"}}), flush=True)
print("noise", flush=True)
stop.wait()
"""
FAILS = """
import json, sys
print("cannot go on", file=sys.stderr)
print(json.dumps({"event": "failed", "reason": %r, "message": %r}), flush=True)
sys.exit(4)
"""
DIES_ONCE_SERVING = """
import json, sys, time
print(json.dumps({"event": "serving", "addresses": None}), flush=True)
time.sleep(0.5)  # until that was heard
sys.exit(9)
"""
DIES_AFTER_A_SECOND = """
import json, sys, time
print(json.dumps({"event": "serving", "addresses": {}}), flush=True)
for name in sys.argv[1:]:
    print(json.dumps({"event": name}), flush=True)
time.sleep(1)
sys.exit(9)
"""
IGNORES_SIGTERM = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps({"event": "serving"}), flush=True)
time.sleep(600)
"""


def part(name, program=SERVES, **changes):
    command = ChildCommand((sys.executable, "-u", "-c", program))
    fields = {"prepare": lambda: command, "addresses": {name: "here"}, "needs_tape": False}
    return StackPart(name, **fields | changes)


class JumpingClock(SystemClock):
    """A clock that goes on after a sleep of the machine: `ahead_s` later."""

    ahead_s = 0.0

    def monotonic_s(self):
        return super().monotonic_s() + self.ahead_s


class FastClock(SystemClock):
    """A clock on which a second is 25 seconds."""

    def monotonic_s(self):
        return 25 * super().monotonic_s()


class _Kept(Journal):
    """A journal that remembers the states it published."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.told = []

    def write(self):
        super().write()
        states = {one.name: one.state for one in self.record.processes}
        if (self.record.state, states) not in self.told[-1:]:
            self.told.append((self.record.state, states))


class Stack:
    """A supervisor over tiny programs, on a thread of its own while the `with` block runs.

    Attributes:
        runtime: asks it to stop.
        record: what it publishes.
        error: why it ended by itself, once it has.
        deployed: how often topics were deployed.
        told: every distinct state of the stack with those of its parts, in the order published.
    """

    def __init__(self, folder, *parts, deploy=None, disk_free=lambda: 2**40, clock=None):
        self.folder = folder
        self.out = io.StringIO()
        self.runtime = Runtime(clock or SystemClock(), "6" * 32, out=self.out)
        self.record = StackRecord(
            run_id="6" * 32,
            supervisor_pid=1,
            data_dir=str(folder),
            source="simulated",
            venue="synthetic",
            exchange="BINANCE",
            symbols=[],
            started_at_us=0,
        )
        self.deployed = 0
        self.error = None
        journal = _Kept(folder, self.record, self.runtime.clock)
        self.told = journal.told
        self._deploy = deploy
        self._supervisor = Supervisor(
            parts, self._count, journal, self.runtime, folder, disk_free=disk_free
        )
        self._thread = threading.Thread(target=self.run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.runtime.stopping.set()
        self.join()

    def join(self):
        self._thread.join(50)
        assert not self._thread.is_alive()

    def _count(self):
        self.deployed += 1
        if self._deploy:
            self._deploy()

    def run(self):
        """On this thread, to its end."""
        try:
            self._supervisor.run()
        except Exception as error:  # noqa: BLE001 the test looks at it
            self.error = error

    def published(self):
        return json.loads((self.folder / "stack.json").read_text())

    def process(self, name):
        return next(one for one in self.record.processes if one.name == name)

    def events(self, kind=None):
        lines = [json.loads(line) for line in self.out.getvalue().splitlines()]
        return [line for line in lines if kind in (None, line["event"])]
