import io
import json
import threading

import pytest

from k2.errors import Invalid, Reason, Unavailable
from servers.processes.lake_maintenance import beside, run
from servers.runtime import Runtime
from tests.support.lake_world import LakeWorld
from tests.support.ops_world import OpsWorld, letter


@pytest.fixture
def lake(tmp_path):
    world = LakeWorld(tmp_path)
    world.commit_each(range(8))
    yield world
    world.close()


def asked(lake, *argv):
    """Exit code and result of the process."""
    out = io.StringIO()
    code = run(lake.settings, Runtime(lake.clock, f"r{len(argv)}", out=out), list(argv))
    return code, json.loads(out.getvalue().splitlines()[-1])


def test_compact_merges_and_says_what_it_did(lake):
    code, found = asked(lake, "compact")
    assert (code, found["event"]) == (0, "result")
    assert (found["merges"], found["files_merged"], found["files_total"]) == (1, 8, 1)
    assert found["bytes_total"] == lake.snapshots.current().bytes_total
    assert found["message"] == "8 files became 1; there are 1 now"


def test_expire_drops_what_is_older_and_says_what_waits(lake):
    code, found = asked(lake, "expire", str(lake.clock.now_us() + 10**9))
    assert code == 0
    assert found["snapshots_dropped"] == 7
    assert found["snapshots_kept"] == len(lake.snapshots.list())
    assert found["files_removed"] == 0
    assert found["files_waiting"] > 0
    lake.clock.advance(lake.settings.lake.sweep_grace_s)
    _, later = asked(lake, "expire")
    assert later["snapshots_dropped"] == 0
    assert later["files_removed"] == found["files_waiting"]
    assert later["bytes_removed"] == found["bytes_waiting"]


def test_each_table_is_maintained_and_told_of(tmp_path):
    world = OpsWorld(tmp_path)
    world.commit_each(range(8))
    writer = world.letter_writer()
    for number in range(8):
        world.post(letter(number))
        world.commit(writer)
    _, found = asked(world, "compact")
    assert {name: told["files_total"] for name, told in found["tables"].items()} == {
        "market.trades": 1, "ops.gaps": 0, "ops.dead_letters": 1, "ops.transitions": 0,
    }  # fmt: skip
    assert (found["merges"], found["files_merged"], found["files_total"]) == (2, 16, 2)
    assert found["message"] == "16 files became 2; there are 2 now"
    _, found = asked(world, "expire", str(world.clock.now_us() + 10**9))
    assert found["tables"]["ops.dead_letters"]["snapshots_dropped"] == 9
    assert found["tables"]["ops.dead_letters"]["files_waiting"] > 8
    assert found["snapshots_dropped"] == 17
    assert world.origins() == [*range(8)]
    world.close()


@pytest.mark.parametrize("argv", [[], ["nosuch"], ["expire", "soon"], ["compact", "1"]])
def test_another_request_is_refused(lake, argv):
    with pytest.raises(Invalid):
        asked(lake, *argv)


def test_where_there_is_no_lake_none_is_made(lake, tmp_path):
    nowhere = tmp_path / "nowhere"
    lake.settings = lake.settings.model_copy(update={"data_dir": nowhere})
    with pytest.raises(Unavailable) as caught:
        asked(lake, "compact")
    assert caught.value.reason is Reason.LAKE_UNAVAILABLE
    assert not nowhere.exists()


class Working:
    """Maintains until it is told to stop."""

    def __init__(self):
        self.began, self.ended = threading.Event(), threading.Event()

    def run(self, stopping):
        self.began.set()
        stopping.wait()
        self.ended.set()


def test_maintenance_runs_beside_the_writer_and_ends_with_it():
    working = Working()
    other = Working()
    with beside({"one": working.run, "other": other.run}):
        for one in (working, other):
            assert one.began.wait(5)
            assert not one.ended.is_set()
    assert working.ended.is_set()
    assert other.ended.is_set()


def test_maintenance_ends_when_the_writer_fails():
    working = Working()
    with pytest.raises(ZeroDivisionError), beside({"one": working.run}):
        raise ZeroDivisionError
    assert working.ended.is_set()
