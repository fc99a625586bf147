import json
import os
import signal
import subprocess
import sys

import pytest

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
