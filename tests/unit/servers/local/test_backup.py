"""A backup of a data directory, made while its writer and its maintenance go on."""

import os
import shutil
from collections import namedtuple

import pytest

from k2.errors import Data, Invalid, NotFound, Overloaded, Reason, Unavailable
from k2.lake.iceberg.catalog import local_path
from servers.local.backup import Stopped
from servers.local.backup_store import read_backup
from tests.support.data_dir import DataDir, mode, quiet


@pytest.fixture
def made(tmp_path):
    one = DataDir(tmp_path / "k2")
    one.commit(3)
    yield one
    one.close()


@pytest.fixture
def to(tmp_path):
    return tmp_path / "backup"


def inside(backup):
    return sorted(entry.to for entry in backup.files)


def test_all_but_the_tape_is_taken(made, to):
    found = made.back_up(to)
    names = inside(found.backup)
    for name in ("stamp.json", "schemas/1.json", "registry/database.mv.db", "ticket.key"):
        assert name in names
    assert sum(name.endswith(".parquet") for name in names) == 3
    assert not [name for name in names if name.startswith(("kafka", "run"))]
    assert read_backup(to) == found.backup
    assert found.pins == 1
    (table,) = found.backup.tables
    current = made.lake.snapshots.current()
    assert table["snapshot_id"] == str(current.snapshot_id)
    assert (table["rows"], table["positions"]) == (15, current.positions.encode())
    assert (table["topic_id"], table["cluster_id"]) == ("topic-1", "cluster-1")
    key = next(to / entry.path for entry in found.backup.files if entry.to == "ticket.key")
    assert mode(key) == 0o600


def test_a_second_one_copies_only_new_data_files(made, to):
    first = made.back_up(to, "b1")
    made.commit()
    second = made.back_up(to, "b2")
    assert 0 < second.copied_bytes < first.copied_bytes
    assert second.backup.tables[0]["rows"] == 20
    assert not list(to.glob("state-b1*"))


def test_a_file_that_maintenance_removed_makes_it_pin_again(made, to):
    goners = [local_path(made.lake.table.metadata_location)]

    def maintain(what):
        if what == "metadata" and goners:
            made.commit()
            os.unlink(goners.pop())

    found = made.back_up(to, meter=quiet(maintain))
    assert found.pins == 2
    assert found.backup.tables[0]["rows"] == 20


def test_a_lake_without_one_of_its_files_is_refused(made, to):
    victim = next(made.folder.rglob("*.parquet"))
    victim.unlink()
    with pytest.raises(Data, match=victim.name) as refused:
        made.back_up(to)
    assert refused.value.reason is Reason.LAKE_CORRUPT
    assert not (to / "backup.json").exists()


def test_a_data_file_of_another_size_is_refused(made, to):
    victim = next(made.folder.rglob("*.parquet"))
    with victim.open("ab") as file:
        file.write(b"more")
    with pytest.raises(Data, match=victim.name):
        made.back_up(to)


def test_it_gives_up_when_everything_is_removed_all_the_time(made, to):
    def maintain(what):
        if what == "metadata":
            location = local_path(made.lake.table.metadata_location)
            made.commit(rows=1)
            os.unlink(location)

    with pytest.raises(Unavailable) as refused:
        made.back_up(to, meter=quiet(maintain))
    assert refused.value.reason is Reason.LAKE_UNAVAILABLE


def test_a_registry_that_is_written_meanwhile_is_copied_again(made, to):
    path = made.folder / "registry" / "database.mv.db"
    writes = iter(range(3))

    class Rude(type(quiet())):
        def tick(self, size):
            super().tick(size)
            if self._what == "registry" and size and next(writes, None) is not None:
                path.write_bytes(bytes(each ^ 1 for each in path.read_bytes()))

    found = made.back_up(to, meter=Rude(lambda *_: None, lambda: False))
    copy = next(to / one.path for one in found.backup.files if one.to.startswith("registry"))
    assert copy.read_bytes() == path.read_bytes() == b"I3" * 5000


def test_a_registry_that_never_rests_is_given_up(made, to):
    path = made.folder / "registry" / "database.mv.db"

    class Rude(type(quiet())):
        def tick(self, size):
            super().tick(size)
            if self._what == "registry" and size:
                path.write_bytes(path.read_bytes()[::-1])

    with pytest.raises(Unavailable) as refused:
        made.back_up(to, meter=Rude(lambda *_: None, lambda: False))
    assert refused.value.reason is Reason.REGISTRY_UNAVAILABLE
    assert not (to / "backup.json").exists()


@pytest.mark.parametrize("after", [0, 3, 8, 12])
def test_stopped_it_leaves_the_backup_of_before(made, to, after):
    before = made.back_up(to, "b1").backup
    made.commit()
    with pytest.raises(Stopped):
        made.back_up(to, "b2", quiet(stop_after=after))
    assert read_backup(to) == before
    assert all((to / entry.path).stat().st_size == entry.size for entry in before.files)
    assert not list(to.glob("state-b2*"))


def test_a_target_without_room_is_refused_before_anything_is_copied(made, to, monkeypatch):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1))
    with pytest.raises(Overloaded, match="are to be copied") as refused:
        made.back_up(to)
    assert refused.value.reason is Reason.DISK_FULL
    assert not list(to.rglob("*.parquet"))


@pytest.mark.parametrize("name", ["", "backup", "lake/warehouse/backup", ".."])
def test_a_target_in_the_data_directory_or_around_it_is_refused(made, name):
    with pytest.raises(Invalid, match="in one another"):
        made.back_up((made.folder / name).resolve())


def test_nothing_to_back_up(made, to):
    (made.folder / "stamp.json").unlink()
    with pytest.raises(NotFound, match="no data of K2"):
        made.back_up(to)
    assert not to.exists()


def test_the_backup_of_another_lake_is_not_replaced(made, to, tmp_path):
    before = made.back_up(to).backup
    other = DataDir(tmp_path / "other")
    other.commit()
    with pytest.raises(Invalid, match="another lake") as refused:
        other.back_up(to, "b2")
    other.close()
    assert refused.value.reason is Reason.NOT_EMPTY
    assert read_backup(to) == before


def test_a_lake_without_rows_or_without_a_catalog(tmp_path):
    made = DataDir(tmp_path / "k2")
    assert made.back_up(tmp_path / "b1").backup.tables[0]["snapshot_id"] is None
    made.close()
    shutil.rmtree(made.folder / "lake")
    assert made.back_up(tmp_path / "b2").backup.tables == ()
