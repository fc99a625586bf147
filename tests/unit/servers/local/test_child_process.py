"""Children: sessions of their own, ended with all they started, never outliving their parent."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from servers.local.child_process import Child, ChildCommand
from tests.support.eventually import eventually

PARENT = """
import sys, time
from pathlib import Path
from servers.local.child_process import Child, ChildCommand
command = ChildCommand((sys.executable, "-c", "import time; time.sleep(60)"))
child = Child(command, Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(60)
"""


def python(program, **env):
    return ChildCommand((sys.executable, "-u", "-c", program), env)


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_child_is_what_was_asked_for(tmp_path):
    program = "import os, sys; print(os.environ, os.getsid(0) == os.getpid()); sys.exit(3)"
    child = Child(python(program, ONLY="this"), tmp_path / "logs" / "a.log")
    assert child.wait(20) == 3
    said = (tmp_path / "logs" / "a.log").read_text()
    assert "'ONLY': 'this'" in said
    assert "PATH" not in said
    assert said.endswith("True\n")


def test_what_a_child_prints_can_be_read_and_messages_are_kept(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("before\n")
    child = Child(
        python("import sys; print('out'); print('err', file=sys.stderr)"), log, piped=True
    )
    assert child.stdout.read() == b"out\n"
    assert child.wait(20) == 0
    child.stdout.close()
    assert log.read_text() == "before\nerr\n"


def test_a_program_that_is_not_there_ends_with_a_message(tmp_path):
    child = Child(ChildCommand(("/no/such/program",)), tmp_path / "a.log")
    assert child.wait(20) == 1
    assert "/no/such/program cannot be started" in (tmp_path / "a.log").read_text()


def test_stopping_asks_first(tmp_path):
    program = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready")
time.sleep(60)
"""
    child = Child(python(program), tmp_path / "a.log")
    eventually(lambda: "ready" in (tmp_path / "a.log").read_text())
    assert child.stop(grace_s=20) == 7
    assert child.stop(grace_s=20) == 7


def test_stopping_insists_after_a_while(tmp_path):
    program = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready")
time.sleep(60)
"""
    child = Child(python(program), tmp_path / "a.log")
    eventually(lambda: "ready" in (tmp_path / "a.log").read_text())
    assert child.stop(grace_s=0.1) == -signal.SIGKILL


@pytest.mark.parametrize("ends", ["time.sleep(60)", "sys.exit(0)"])
def test_what_a_child_started_ends_with_it(tmp_path, ends):
    program = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid)
{ends}
"""
    child = Child(python(program), tmp_path / "a.log")
    grandchild = int(eventually((tmp_path / "a.log").read_text))
    child.wait(0.1 if "sleep" in ends else 20)
    child.kill()
    eventually(lambda: gone(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's")
def test_a_child_dies_with_its_parent(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "a.log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        eventually(lambda: "sleep" in " ".join(psutil.Process(pid).cmdline()[-1:]))
        os.kill(parent.pid, signal.SIGKILL)
    eventually(lambda: gone(pid))
