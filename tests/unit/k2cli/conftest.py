"""A stand-in for `python -m servers`, and a K2 to ask, for tests of the command."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from k2cli import main
from tests.fakes.k2_server import K2Server

STAND_IN = Path(__file__).parents[2] / "fakes" / "stand_in"


class Outcome:
    """What a command left: exit code, stdout, stderr."""

    def __init__(self, code, stdout, stderr):
        self.code, self.stdout, self.stderr = code, stdout, stderr

    @property
    def json(self):
        return json.loads(self.stdout)


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    for name in ("K2_ADDRESS", "K2_DATA_DIR", "K2_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def k2(capfd):
    """Run a command in this process as `main` would; what it writes to the descriptors counts."""

    def run(*arguments):
        capfd.readouterr()
        code = main.run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def runner():
    return CliRunner()


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Write what `python -m servers NAME` plays; the data directory comes back."""
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))

    def write(name, events, **more):
        (tmp_path / f"{name}.script.json").write_text(json.dumps({"events": events} | more))
        return tmp_path

    return write


@pytest.fixture
def server():
    with K2Server() as running:
        yield running


@pytest.fixture
def asked(server, monkeypatch):
    """The same K2, found by K2_ADDRESS."""
    monkeypatch.setenv("K2_ADDRESS", server.address)
    return server
