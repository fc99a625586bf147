"""One entry point for all processes, and what its exit codes say."""

import json
import subprocess
import sys

import pytest

from k2.errors import Data, Internal, Invalid, K2Error, NotFound, Overloaded, Reason, Unavailable
from servers.__main__ import exit_code
from servers.process_table import MODULES


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Invalid(Reason.BAD_SETTING, ""), 2),
        (Unavailable(Reason.PORT_IN_USE, ""), 3),
        (Overloaded(Reason.DISK_FULL, ""), 4),
        (Invalid(Reason.NOT_WRITABLE, ""), 5),
        (Data(Reason.STAMP_MISMATCH, ""), 6),
        (Data(Reason.TAPE_TRUNCATED, ""), 6),
        (Invalid(Reason.ALREADY_RUNNING, ""), 7),
        (Unavailable(Reason.PROCESS_DIED, ""), 8),
        (NotFound(Reason.UNKNOWN_SNAPSHOT, ""), 1),
        (Internal(Reason.INTERNAL, ""), 1),
        (K2Error(Reason.DISK_FULL, ""), 4),
    ],
)
def test_exit_codes_say_what_happened(error, code):
    assert exit_code(error) == code


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["../up"]])
def test_an_unknown_name_is_refused_by_name(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "servers", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    said = json.loads(done.stdout)
    assert said["event"] == "failed"
    assert said["reason"] == "BAD_REQUEST"
    assert all(name in said["message"] for name in MODULES)


def test_a_wrong_setting_is_refused_by_name(tmp_path):
    (tmp_path / "k2.toml").write_text("[venue]\nrate = -1\n")
    done = subprocess.run(
        [sys.executable, "-m", "servers", "up"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "rate" in json.loads(done.stdout)["message"]
    assert list(tmp_path.iterdir()) == [tmp_path / "k2.toml"]


def test_a_full_collection_does_not_look_at_what_was_imported(tmp_path):
    script = (
        "import gc; from servers.__main__ import main;"
        "code = main(['maintain', 'nosuch']); print(code, gc.get_freeze_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    code, frozen = done.stdout.splitlines()[-1].split()
    assert code == "2"
    assert int(frozen) > 100_000
