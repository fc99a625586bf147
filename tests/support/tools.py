"""Programs from outside that some tests need: without one, the test is skipped by its name.

`make test-tools` brings them and sets K2_TEST_TOOLS, under which a missing one is a failure.
"""

import shutil
import subprocess

import pytest

from k2 import settings

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def tool(name):
    """The path of a program; the test is skipped where it is missing."""
    found = find(name)
    if found is None:
        missing(name)
    return found


def find(name):
    """The path of a program, also where the path of this user does not lead; None without it."""
    path = settings.environment().get("PATH", "")
    return shutil.which(name, path=f"{path}:{_PATH}")


def missing(name):
    """Skip the test, or fail it where all tools are to be there."""
    said = f"{name} is not installed: make test-tools"
    if "K2_TEST_TOOLS" in settings.environment():
        pytest.fail(said)
    pytest.skip(said)


def run(name, *arguments, timeout=60, **more):
    """What a program prints; the test fails with it where the program does."""
    argv = [tool(name), *map(str, arguments)]
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, timeout=timeout, **more
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
