"""The stage of a demonstration on one simulated stack: load, validate, lose a feed, reset."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import k2client
from k2 import settings
from k2client import stack

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]
SCRIPT = Path(__file__).parents[3] / "scripts/demo_mode.py"
START_S = 300


class Stage:
    """Runs commands against one data directory."""

    def __init__(self, directory):
        self.directory = directory

    def k2(self, *arguments):
        return self._run(sys.executable, "-m", "k2cli", *arguments)

    def mode(self, *arguments):
        return self._run(sys.executable, str(SCRIPT), *arguments)

    def _run(self, *line):
        environment = {
            name: value
            for name, value in settings.environment().items()
            if name not in ("K2_ADDRESS", "K2_DATA_DIR")
        } | {"K2_DEGRADE__DWELL_S": "1", "K2_LAKE__COMMIT_INTERVAL_S": "1"}
        done = subprocess.run(
            [*line, "--data-dir", str(self.directory)],
            capture_output=True, text=True, env=environment, timeout=START_S, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = Stage(tmp_path_factory.mktemp("demo"))
    symbols = "BTCUSDT,ETHUSDT,BNBUSDT"
    up = ("up", "-d", "--venue", "synthetic", "--rate", "20", "--symbols", symbols)
    started = made.k2(*up, "--ports", "free")
    assert started.returncode == 0, started.stderr
    yield made
    made.k2("down")


def test_an_hour_is_loaded_and_the_checklist_is_go(stage):
    loaded = stage.mode("--load")
    assert loaded.returncode == 0, loaded.stderr
    validated = stage.mode("--validate")
    lines = validated.stdout.splitlines()
    failed = [line for line in lines if line.startswith("FAILED") and "p99" not in line]
    assert failed == [], "how fast a busy machine answers proves nothing"
    assert validated.returncode == (0 if lines[-1] == "GO" else 1)
    with k2client.connect(data_dir=str(stage.directory)) as k2:
        assert k2.trades("BTCUSDT", last="1h").provenance.completeness == "COMPLETE"


def test_a_killed_feed_makes_it_no_go(stage):
    described = stack.read_stack(stage.directory)
    (feed,) = [each for each in described.processes if each["name"] == "feed"]
    os.kill(feed["pid"], signal.SIGKILL)
    checked = stage.k2("demo", "check", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["decision"]) == (1, "NO-GO")


def test_a_reset_leaves_an_empty_stack_on_the_same_ports(stage):
    before = stack.read_stack(stage.directory)
    reset = stage.mode("--reset")
    assert reset.returncode == 0, reset.stderr
    after = stack.read_stack(stage.directory)
    assert after.addresses == before.addresses
    assert after.supervisor_pid != before.supervisor_pid
    assert after.content["symbols"] == before.content["symbols"]
    with k2client.connect(data_dir=str(stage.directory)) as k2:
        rows = k2.trades("BTCUSDT").to_arrow()
        assert 0 <= rows.num_rows < 2000, "the hour is gone"
