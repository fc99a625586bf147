import io
import json

import pytest

from k2.errors import Invalid, Reason
from k2.lake.commit.event_files import OpsStore
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, GAPS_LAYOUT, TRADES
from k2.lake.ingest.epoch_transition import newest
from servers.commands import new_epoch
from servers.local.stack_file import holding
from servers.runtime import Runtime
from tests.support.lake_world import LakeWorld, piece
from tests.support.ops_world import OpsWorld, letter


@pytest.fixture
def lake(tmp_path):
    world = LakeWorld(tmp_path)
    yield world
    world.close()


def ran(lake, *arguments, run_id="r"):
    """Exit code 0, and what was said."""
    out = io.StringIO()
    runtime = Runtime(lake.clock, run_id, out=out)
    assert new_epoch.run(lake.settings, runtime, list(arguments)) == 0
    return json.loads(out.getvalue())


def refused(lake, reason="TOPIC_RECREATED"):
    """The last stack of the data directory refused its tape."""
    folder = lake.settings.data_dir / "run"
    folder.mkdir(exist_ok=True)
    failure = {"reason": reason, "message": "lake refused the tape: made again"}
    (folder / "stack.json").write_text(json.dumps({"failure": failure}))


def test_an_empty_lake_has_nothing_to_end(lake):
    said = ran(lake, "--yes")
    assert (said["ended"], said["epoch"]) == (False, None)
    assert "takes any tape" in said["message"]


def test_without_yes_it_only_shows(lake):
    lake.committer().commit([piece(0, [1, 2])])
    refused(lake)
    said = ran(lake)
    assert (said["ended"], said["reason"], said["rows"]) == (False, "TOPIC_RECREATED", 2)
    assert said["positions"] == "0:2,0,0,0"
    assert "made again" in said["message"]
    assert "nothing was changed" in said["message"]
    assert lake.snapshots.current().epochs.ended == ""


def test_with_yes_the_epoch_ends_once(lake):
    lake.committer().commit([piece(0, [1, 2])])
    refused(lake)
    said = ran(lake, "--yes")
    assert (said["ended"], said["awaiting"]) == (True, True)
    assert lake.snapshots.current().epochs.ended == "TOPIC_RECREATED"
    again = ran(lake, "--yes", run_id="s")
    assert (again["ended"], again["awaiting"], again["reason"]) == (False, True, "TOPIC_RECREATED")
    assert "has ended already" in again["message"]
    assert len(lake.table.snapshots()) == 2


@pytest.mark.parametrize("reason", [None, "PROCESS_DIED"])
def test_where_nothing_is_known_to_be_wrong_it_must_be_forced(lake, reason):
    lake.committer().commit([piece(0, [1])])
    if reason:
        refused(lake, reason)
    assert ran(lake)["reason"] is None
    with pytest.raises(Invalid) as caught:
        ran(lake, "--yes")
    assert caught.value.reason is Reason.BAD_REQUEST
    assert "--force" in caught.value.message
    assert lake.snapshots.current().epochs.ended == ""
    assert ran(lake, "--force")["ended"]
    assert lake.snapshots.current().epochs.ended == "FORCED"


def test_not_while_a_stack_runs(lake):
    lake.committer().commit([piece(0, [1])])
    folder = lake.settings.data_dir / "run"
    folder.mkdir()
    with holding(folder, lake.clock), pytest.raises(Invalid) as caught:
        ran(lake, "--force")
    assert caught.value.reason is Reason.ALREADY_RUNNING


def test_a_wrong_argument_is_refused(lake):
    with pytest.raises(Invalid):
        ran(lake, "--no")
    assert lake.catalog.table_exists(TRADES)


def test_with_another_cluster_the_epochs_of_the_ops_tables_end_too(tmp_path):
    world = OpsWorld(tmp_path)
    world.post(letter(5))
    world.commit(world.letter_writer())
    world.committer().commit([piece(0, [1])])
    refused(world, "TOPIC_RECREATED")
    assert not ran(world)["ended"]
    refused(world, "CLUSTER_CHANGED")
    assert ran(world, "--yes")["ended"]
    letters, gaps = (OpsStore(one) for one in (DEAD_LETTERS_LAYOUT, GAPS_LAYOUT))
    assert newest(world.catalog, letters).epochs.ended == "CLUSTER_CHANGED"
    assert newest(world.catalog, gaps) is None
    world.close()


def test_topics_of_ops_tables_stay_when_only_the_trades_were_made_again(tmp_path):
    world = OpsWorld(tmp_path)
    world.post(letter(5))
    world.commit(world.letter_writer())
    world.committer().commit([piece(0, [1])])
    refused(world, "TOPIC_RECREATED")
    assert ran(world, "--yes")["ended"]
    assert newest(world.catalog, OpsStore(DEAD_LETTERS_LAYOUT)).epochs.ended == ""
    world.close()
