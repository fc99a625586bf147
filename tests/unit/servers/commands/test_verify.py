import io
import json
import os
import signal
import subprocess
import sys

import pytest

from k2.clock import ManualClock
from servers.commands.verify import paced
from servers.runtime import Interrupted, Runtime


def test_progress_is_told_a_few_times_a_second_at_most():
    out, clock = io.StringIO(), ManualClock()
    progress = paced(Runtime(clock, "r", out=out))
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
    progress = paced(runtime)
    runtime.interrupting.set()
    progress("folding the tape", 1, 2)
    runtime.stopping.set()
    with pytest.raises(Interrupted):
        progress("folding the tape", 1, 2)
    runtime.interrupting.clear()
    progress("copying", 1, 2)  # work that ends in its own way


STANDS_STILL = """
import threading
from k2.tape.topics import TapeAdmin
from servers import __main__

def asked(admin, topic):
    print("asked", flush=True)
    threading.Event().wait()

TapeAdmin.facts = asked
raise SystemExit(__main__.main(["verify"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_verification_stops_wherever_it_is(number, tmp_path):
    environment = os.environ | {"K2_DATA_DIR": str(tmp_path)}  # noqa: TID251 of a child
    command = [sys.executable, "-c", STANDS_STILL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout.readline() == "asked\n"
        child.send_signal(number)
        assert json.loads(child.stdout.readline())["event"] == "stopped"
        assert child.wait(20) == 130
