import subprocess
import sys

import pytest

from k2cli import main


def test_without_a_command_it_helps(k2):
    done = k2()
    assert done.code == 0
    for name in ("up", "down", "status", "doctor", "trades", "snapshots", "degrade", "feeds"):
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "up",
        "down",
        "status",
        "doctor",
        "trades",
        "snapshots",
        "degradation",
        "degrade",
        "feeds",
        "record",
        "verify",
        "compact",
        "expire",
    ],
)
def test_every_command_takes_a_data_directory_and_explains_itself(k2, name):
    done = k2(name, "--help")
    assert done.code == 0
    assert "--data-dir" in done.stdout


def test_a_wrong_command_or_option_is_one_line(k2):
    for arguments in (["nosuch"], ["trades", "--nosuch"], ["up", "--ports", "some"]):
        done = k2(*arguments)
        assert (done.code, done.stdout) == (2, "")
        assert done.stderr.startswith("k2: BAD_REQUEST: ")
        assert done.stderr.count("\n") == 1


def test_a_reader_that_has_enough_is_no_failure(asked):
    asked.batch_rows = 1
    command = [sys.executable, "-m", "k2cli", "trades", "BTCUSDT", "--format", "csv"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait() == 0
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_a_defect_is_one_line_too(k2, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(main.k2, "main", broken)
    done = k2("feeds")
    assert (done.code, done.stderr) == (1, "k2: INTERNAL: ZeroDivisionError: a b\n")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (PermissionError(13, "Permission denied", "/x"), 1, "NOT_WRITABLE: /x: "),
        (OSError(28, "No space left on device"), 1, "DISK_FULL: No space"),
        (FileNotFoundError(2, "No such file", "/x/y"), 2, "BAD_REQUEST: /x/y: "),
        (KeyboardInterrupt(), 130, "k2: interrupted\n"),
    ],
)
def test_failures_of_the_machine_have_reasons(k2, monkeypatch, error, code, reason):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(main.k2, "main", broken)
    done = k2("feeds")
    assert done.code == code
    assert reason in done.stderr
