"""What a process has from the machine, in processes of their own."""

import io
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from k2.clock import ManualClock, SystemClock
from k2.errors import Data, Overloaded, Reason, Unavailable
from servers.runtime import Interrupted, Runtime

WAITS = """
import sys
from servers import runtime
machine = runtime.start()
machine.emit("serving", run_id=machine.run_id)
machine.stopping.wait(20)
machine.emit("asked", second_signal=machine.second_signal.is_set())
machine.second_signal.wait(20)
machine.emit("insisted")
sys.exit(machine.end(0))
"""


def run(program):
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_lines_are_json_and_whole_from_many_threads():
    out = io.StringIO()
    runtime = Runtime(SystemClock(), "0" * 32, out=out)

    def say(number):
        runtime.emit("step", number=number, path=os.devnull)

    threads = [threading.Thread(target=say, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert sorted(line["number"] for line in lines) == list(range(50))


def test_signals_ask_and_then_insist():
    with run(WAITS) as process:
        assert len(json.loads(process.stdout.readline())["run_id"]) == 32
        process.send_signal(signal.SIGINT)
        assert json.loads(process.stdout.readline())["second_signal"] is False
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline())["event"] == "insisted"
        assert process.wait(20) == 0


def test_a_reader_that_goes_away_does_not_end_the_process():
    with run(WAITS) as process:
        process.stdout.readline()
        process.stdout.close()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


ASKED_WHILE_ENDING = """
import os, signal, sys
from servers import runtime

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)

late = Late()  # destroyed after the interpreter has put the signals' own actions back
sys.exit(runtime.start().end(0))
"""


def test_a_request_to_stop_while_it_ends_changes_nothing():
    with run(ASKED_WHILE_ENDING) as process:
        assert process.wait(20) == 0


def test_processes_do_without_pandas():
    program = "from servers import runtime; runtime.start(); import pyarrow.dataset, sys; "
    with run(program + "print('pandas' in sys.modules)") as process:
        assert process.stdout.read() == "False\n"


READS = """
from servers import runtime
machine = runtime.start()
try:
    with machine.interruptible():
        machine.emit("reading")
        while True:
            pass
except runtime.Interrupted:
    machine.emit("stopped", stopping=machine.stopping.is_set())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_may_end_anywhere_ends_when_asked_to(number):
    with run(READS) as process:
        process.stdout.readline()
        process.send_signal(number)
        assert json.loads(process.stdout.readline()) == {"event": "stopped", "stopping": True}
        assert process.wait(20) == 0


def test_what_was_asked_to_stop_before_does_not_begin():
    runtime = Runtime(SystemClock(), "0" * 32)
    runtime.stopping.set()
    with pytest.raises(Interrupted), runtime.interruptible():
        raise AssertionError("it began")
    assert not runtime.interrupting.is_set()


STUCK = """
import threading
from servers import runtime
machine = runtime.start()
threading.Thread(target=threading.Event().wait).start()
machine.emit("serving")
machine.stopping.wait(20)
machine.stuck.set()
machine.end(0)
"""


def test_a_process_ends_with_its_code_though_a_thread_cannot_be_ended():
    with run(STUCK) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_what_is_away_or_full_is_waited_for_until_asked_to_stop():
    runtime = Runtime(SystemClock(), "0" * 32)
    refusals = [
        Data(Reason.LAKE_CORRUPT, "no wait mends it"),
        Overloaded(Reason.DISK_FULL, "full"),
        Unavailable(Reason.TAPE_UNAVAILABLE, "away"),
    ]

    def attempt():
        if refusals:
            raise refusals.pop()
        return "there"

    with pytest.raises(Data):
        runtime.retry_until_stopped(attempt)
    assert refusals == []
    assert runtime.retry_until_stopped(attempt) == "there"
    runtime.stopping.set()
    assert runtime.retry_until_stopped(attempt) is None


def test_progress_is_told_a_few_times_a_second_at_most():
    out, clock = io.StringIO(), ManualClock()
    progress = Runtime(clock, "r", out=out).progress()
    for done in range(10):
        progress("folding the tape", done, 10)
        clock.advance(0.2)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["done"] for line in lines] == [0, 3, 6, 9]
    assert lines[0] == {
        "event": "progress",
        "message": "folding the tape",
        "done": 0,
        "total": 10,
    }


def test_progress_ends_what_was_asked_to_stop():
    runtime = Runtime(ManualClock(), "r", out=io.StringIO())
    progress = runtime.progress()
    runtime.interrupting.set()
    progress("folding the tape", 1, 2)
    runtime.stopping.set()
    with pytest.raises(Interrupted):
        progress("folding the tape", 1, 2)
    runtime.interrupting.clear()
    progress("copying", 1, 2)  # work that ends in its own way
