import signal
import subprocess
import sys

from k2cli.__main__ import _INTERRUPTED
from k2cli.child import INTERRUPTED

IMPORTING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
sys.path.insert(0, {folder!r})
from k2cli.__main__ import main
main()
"""
SLOW = """
print("importing", flush=True)
try:
    while True:
        pass
except BaseException as error:
    raise ImportError("a library's own words") from error
"""


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "k2cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("k2 0.")


def test_an_interrupt_during_the_imports_is_one_line(tmp_path):
    (tmp_path / "click.py").write_text(SLOW)
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTING.format(folder=str(tmp_path))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "importing\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == INTERRUPTED == _INTERRUPTED
            assert process.stderr.read() == "k2: interrupted\n"
        finally:
            process.kill()
