"""How a stack describes itself, and how it is the only one of a data directory."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from k2.clock import ManualClock, SystemClock
from k2.errors import Invalid, Reason
from servers.local.stack_file import (
    RUN_ID,
    Journal,
    ProcessRecord,
    StackRecord,
    end_leftovers,
    failing,
    holding,
    is_held,
)


def record(tmp_path, **changes):
    fields = {"run_id": "7" * 32, "supervisor_pid": 1, "data_dir": str(tmp_path)}
    fields |= {"source": "simulated", "venue": "synthetic", "exchange": "BINANCE"}
    return StackRecord(**fields | {"symbols": ["BTCUSDT"], "started_at_us": 5} | changes)


def test_a_record_is_written_when_it_changes(tmp_path):
    clock = ManualClock()
    journal = Journal(tmp_path, record(tmp_path), clock)
    journal.write()
    first = json.loads((tmp_path / "stack.json").read_text())
    assert first["state"] == "STARTING"
    assert first["updated_at_us"] == clock.now_us()
    clock.advance(1)
    journal.write()
    assert json.loads((tmp_path / "stack.json").read_text()) == first
    journal.record.processes.append(ProcessRecord("feed", "feed.log", pid=4))
    journal.write()
    second = json.loads((tmp_path / "stack.json").read_text())
    assert second["processes"][0]["pid"] == 4
    assert second["updated_at_us"] == clock.now_us()


def test_the_addresses_of_metrics_are_targets_for_prometheus(tmp_path):
    journal = Journal(tmp_path, record(tmp_path), ManualClock())
    feed, broker = ProcessRecord("feed", "feed.log"), ProcessRecord("broker", "broker.log")
    journal.record.processes = [feed, broker]
    journal.write()
    assert json.loads((tmp_path / "targets.json").read_text()) == []
    feed.addresses = {"metrics": "127.0.0.1:9101"}
    broker.addresses = {"broker": "127.0.0.1:9092"}
    journal.write()
    there = [{"targets": ["127.0.0.1:9101"], "labels": {"process": "feed"}}]
    assert json.loads((tmp_path / "targets.json").read_text()) == there
    feed.state = "RESTARTING"
    journal.write()
    assert json.loads((tmp_path / "targets.json").read_text()) == there


def test_a_record_with_a_token_is_for_its_user_alone(tmp_path):
    journal = Journal(tmp_path, record(tmp_path), ManualClock())
    journal.write()
    public = (tmp_path / "stack.json").stat().st_mode & 0o077
    journal.record.addresses["jupyter"] = "http://127.0.0.1:8888/?token=t0ken"
    journal.write()
    private = (tmp_path / "stack.json").stat().st_mode & 0o077
    assert (public != 0, private) == (True, 0)


def test_a_disk_that_refuses_does_not_end_the_stack(tmp_path):
    Journal(tmp_path / "not-there", record(tmp_path), ManualClock()).write()


def test_a_directory_is_held_by_one(tmp_path):
    assert not is_held(tmp_path)
    with holding(tmp_path, SystemClock()):
        assert is_held(tmp_path)
        (tmp_path / "stack.json").write_text('{"supervisor_pid": 4711}')
        with (
            pytest.raises(Invalid, match="4711") as refused,
            holding(tmp_path, SystemClock()),
        ):
            pass
        assert refused.value.reason is Reason.ALREADY_RUNNING
    assert not is_held(tmp_path)
    with holding(tmp_path, SystemClock()):
        pass


@contextmanager
def sleeper(run_id):
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={RUN_ID: run_id, "PATH": os.defpath},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_leftovers_are_ended_and_strangers_are_not(tmp_path):
    with sleeper("7" * 32) as left, sleeper("8" * 32) as stranger:
        listed = [{"pid": stranger.pid}, {"pid": os.getpid()}]
        content = {"run_id": "7" * 32, "processes": listed}
        (tmp_path / "stack.json").write_text(json.dumps(content))
        said = []
        end_leftovers(tmp_path, said.append)
        assert left.poll() is not None
        assert stranger.poll() is None
        assert len(said) == 1


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "no json"])
def test_without_a_readable_record_nothing_is_ended(tmp_path, text):
    if text is not None:
        (tmp_path / "stack.json").write_text(text)
    end_leftovers(tmp_path, pytest.fail)


def test_what_is_failing_is_known_while_its_stack_runs(tmp_path):
    assert failing(tmp_path) == frozenset()
    parts = [ProcessRecord("lake", "lake.log", state="FAILING"), ProcessRecord("feed", "feed.log")]
    Journal(tmp_path, record(tmp_path, processes=parts), ManualClock()).write()
    assert failing(tmp_path) == frozenset()
    with holding(tmp_path, SystemClock()):
        assert failing(tmp_path) == {"lake"}
