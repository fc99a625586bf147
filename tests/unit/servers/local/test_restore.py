"""A restored data directory is the one that was backed up, or nothing was restored."""

import shutil
from collections import namedtuple

import pytest

from k2.clock import SystemClock
from k2.errors import Data, Invalid, Overloaded, Reason
from k2.lake.maintenance.backup_source import local_lake
from k2.settings import Settings
from servers.local import layout
from servers.local.backup import Stopped
from servers.local.backup_store import read_backup
from servers.local.restore import restore
from servers.local.stack_file import holding
from servers.local.stamp import Stamp, write_stamp
from tests.support.data_dir import STAMP, DataDir, mode, put_back, quiet, stamp_of
from tests.support.lake_world import LakeWorld, piece


@pytest.fixture
def made(tmp_path):
    one = DataDir(tmp_path / "k2")
    one.commit(3)
    yield one
    one.close()


@pytest.fixture
def backup(made, tmp_path):
    made.back_up(tmp_path / "backup")
    return tmp_path / "backup"


def left_in(folder):
    """What is there beside what every start of anything makes."""
    return {path.name for path in folder.iterdir()} - {"run", "logs", "tmp"}


def test_a_new_directory_holds_the_same(made, backup, tmp_path):
    new = tmp_path / "new"
    restored = put_back(backup, new)
    assert restored.files == len(read_backup(backup).files)
    assert left_in(new) == {"lake", "registry", "schemas", "stamp.json", "ticket.key"}
    assert stamp_of(new) == STAMP
    assert mode(new / "ticket.key") == 0o600
    for name in ("registry/database.mv.db", "schemas/1.json", "ticket.key"):
        assert (new / name).read_bytes() == (made.folder / name).read_bytes()
    other = LakeWorld(new)
    assert other.rows() == made.lake.rows()
    assert other.snapshots.current().snapshot_id == made.lake.snapshots.current().snapshot_id
    other.close()


def test_a_lost_lake_comes_back_beside_its_tape(made, backup):
    made.commit()  # after the backup: to be read from the tape again
    made.lake.close()
    shutil.rmtree(made.folder / "lake")
    (made.folder / "schemas" / "1.json").write_bytes(b"newer")
    put_back(backup, made.folder, keep_tape=True)
    assert (made.folder / "kafka" / "logs" / "0.log").read_bytes() == b"the tape"
    assert (made.folder / "schemas" / "1.json").read_bytes() == b"newer"
    lake = LakeWorld(made.folder)
    base, states, _ = lake.committer("w9").base()
    assert base.offsets == (15, 0, 0, 0)
    writer = lake.committer("w10")
    writer.commit([piece(0, range(15, 20), start=15, state=states[0])])
    assert [row[3] for row in lake.rows()] == list(range(20))
    lake.close()


def test_a_directory_with_data_is_refused(made, backup):
    for keep_tape in (False, True):
        with pytest.raises(Invalid) as refused:
            put_back(backup, made.folder, keep_tape=keep_tape)
        assert refused.value.reason is Reason.NOT_EMPTY


def test_keeping_a_tape_that_is_not_there_is_refused(backup, tmp_path):
    with pytest.raises(Invalid, match="no tape"):
        put_back(backup, tmp_path / "new", keep_tape=True)


def test_a_backup_of_other_data_is_refused(made, backup):
    shutil.rmtree(made.folder / "lake")
    write_stamp(made.folder / "stamp.json", Stamp("live", "live", "BINANCE"))
    with pytest.raises(Data) as refused:
        put_back(backup, made.folder, keep_tape=True)
    assert refused.value.reason is Reason.STAMP_MISMATCH


def test_a_damaged_file_is_named_and_nothing_restored(backup, tmp_path):
    victim = next(backup.rglob("*.parquet"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(Data, match=victim.name) as refused:
        put_back(backup, tmp_path / "new")
    assert refused.value.reason is Reason.CHECKSUM_MISMATCH
    assert left_in(tmp_path / "new") == set()


def test_a_missing_file_is_named_and_nothing_restored(backup, tmp_path):
    next(backup.rglob("*.parquet")).unlink()
    with pytest.raises(Data, match="is missing") as refused:
        put_back(backup, tmp_path / "new")
    assert refused.value.reason is Reason.BACKUP_INVALID
    assert left_in(tmp_path / "new") == set()


def test_stopped_it_leaves_nothing(backup, tmp_path):
    with pytest.raises(Stopped):
        put_back(backup, tmp_path / "new", meter=quiet(stop_after=6))
    assert left_in(tmp_path / "new") == set()


@pytest.mark.parametrize("moved", range(5))
def test_cut_off_while_it_is_put_in_place_it_can_be_started_again(made, backup, tmp_path, moved):
    whole, new = tmp_path / "whole", tmp_path / "new"
    put_back(backup, whole)
    stage = new / layout.RESTORING
    shutil.copytree(whole, stage)
    for name in ("run", "logs", "tmp"):
        shutil.rmtree(stage / name)
    for name in sorted(path.name for path in stage.iterdir() if path.name != "lake")[:moved]:
        (stage / name).rename(new / name)
    with pytest.raises(Data) as refused:
        layout.check(new)
    assert refused.value.reason is Reason.RESTORE_UNFINISHED
    put_back(backup, new)
    assert left_in(new) == left_in(whole)
    other = LakeWorld(new)
    assert other.rows() == made.lake.rows()
    other.close()


def test_a_running_stack_is_not_restored_under(backup, tmp_path):
    (tmp_path / "new" / "run").mkdir(parents=True)
    with holding(tmp_path / "new" / "run", SystemClock()), pytest.raises(Invalid) as refused:
        put_back(backup, tmp_path / "new")
    assert refused.value.reason is Reason.ALREADY_RUNNING


def test_a_disk_without_room_is_refused_before_anything_is_copied(backup, tmp_path, monkeypatch):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1))
    with pytest.raises(Overloaded, match="are to be restored") as refused:
        put_back(backup, tmp_path / "new")
    assert refused.value.reason is Reason.DISK_FULL


def test_a_backup_of_a_newer_directory_is_refused(made, tmp_path):
    backup = tmp_path / "backup"
    made.back_up(backup)
    path = backup / "backup.json"
    path.write_text(path.read_text().replace('"data_version": 1', '"data_version": 99'))
    with pytest.raises(Data) as refused:
        put_back(backup, tmp_path / "new")
    assert refused.value.reason is Reason.DATA_DIR_NEWER
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil"])
def test_a_backup_cannot_write_elsewhere(backup, tmp_path, name):
    path = backup / "backup.json"
    path.write_text(path.read_text().replace('"to": "stamp.json"', f'"to": "{name}"'))
    with pytest.raises(Data, match="outside") as refused:
        put_back(backup, tmp_path / "new")
    assert refused.value.reason is Reason.BACKUP_INVALID


def test_a_lake_is_restored_where_the_settings_have_it_by_default(backup, tmp_path):
    asked = Settings(data_dir=tmp_path / "new", lake={"warehouse": f"file://{tmp_path}/w"})
    assert local_lake(asked).warehouse == tmp_path / "w"
    with pytest.raises(Invalid) as refused:
        restore(asked, backup, SystemClock(), quiet(), keep_tape=False)
    assert refused.value.reason is Reason.BAD_SETTING


def test_an_unnumbered_directory_comes_back_unnumbered(tmp_path):
    made = DataDir(tmp_path / "k2")
    write_stamp(made.folder / "stamp.json", Stamp("live", "live", "BINANCE", 0))
    made.back_up(tmp_path / "backup")
    made.close()
    put_back(tmp_path / "backup", tmp_path / "new")
    layout.upgrade(tmp_path / "new", lambda _: None)
    assert stamp_of(tmp_path / "new").version == 1
