import errno
import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from k2 import limits
from k2.clock import SystemClock
from k2.errors import Invalid, Overloaded, Reason, Unavailable
from k2.lake.iceberg.catalog import (
    DurableFileIO,
    local_path,
    metadata_location,
    open_catalog,
    reaching_lake,
    write_file,
)
from k2.lake.iceberg.reachability import Reach
from k2.lake.iceberg.tables import TRADES
from k2.lake.maintenance.backup_source import files_of, heads_of, local_lake, pin_catalog
from k2.settings import Settings
from tests.support.lake_world import FaultyCatalog, LakeWorld, piece


class SqliteFull(sqlite3.OperationalError):
    """What SQLite says when there is no room for the next page."""

    sqlite_errorcode = sqlite3.SQLITE_FULL


class SqliteIndexFull(sqlite3.OperationalError):
    """What SQLite says when there is no room for the index of its log."""

    sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE


@pytest.fixture
def synced(monkeypatch):
    """Paths in the order they are synced; syncing still happens."""
    paths = []
    real = os.fsync

    def watched(descriptor):
        real(descriptor)
        paths.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", watched)
    return paths


def test_sqlite_answers_only_what_is_on_disk(lake):
    path = lake.settings.data_dir / "lake" / "catalog.db"
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    with lake.catalog.engine.connect() as used:
        assert used.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert used.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_a_new_file_and_its_directories_are_synced_when_it_is_closed(tmp_path, synced):
    path = tmp_path / "a" / "b" / "file"
    write_file(DurableFileIO().new_output(f"file://{path}"), b"content")
    assert path.read_bytes() == b"content"
    assert synced[0] == str(path)
    assert synced[1] == str(path.parent)
    assert {str(path.parents[1]), str(path.parents[2])} <= set(synced)


def test_a_file_that_exists_is_not_overwritten(tmp_path):
    output = DurableFileIO().new_output(str(tmp_path / "file"))
    write_file(output, b"1")
    with pytest.raises(FileExistsError):
        write_file(output, b"2")
    with output.create(overwrite=True) as stream:
        stream.write(b"3")
        stream.flush()
        assert stream.tell() == 1
    stream.close()
    assert stream.closed
    assert (tmp_path / "file").read_bytes() == b"3"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_could_not_be_written_whole_is_removed_if_it_is_new(
    tmp_path, monkeypatch, overwrite
):
    (tmp_path / "old").write_bytes(b"old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    stream = DurableFileIO().new_output(str(tmp_path / "new")).create(overwrite)
    stream.write(b"content")
    with pytest.raises(OSError, match="No space left"):
        stream.close()
    stream.close()
    with pytest.raises(OSError, match="No space left"):
        DurableFileIO().new_output(str(tmp_path / "old")).create(overwrite=True).close()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_connection_that_is_read_only_is_not_used_again(lake):
    with lake.catalog.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = on")  # as one that met a read-only folder
    with pytest.raises(Unavailable, match="readonly"):
        lake.committer().commit([piece(0, [1])])
    assert lake.committer("w2").commit([piece(0, [1])]).landed == {0}


def test_all_that_a_commit_names_is_on_disk_before_the_catalog_names_it(lake, synced):
    seen_at_commit = []
    catalog = FaultyCatalog(lake.catalog, before=lambda: seen_at_commit.extend(synced))
    before = metadata_location(lake.catalog, TRADES)
    lake.committer(catalog=catalog).commit([piece(0, [1, 2])])
    head = lake.table.current_snapshot()
    files = [local_path(task.file.file_path) for task in lake.table.scan().plan_files()]
    named = [
        *files,
        local_path(lake.snapshots.current().state_path),
        local_path(head.manifest_list),
        *(local_path(one.manifest_path) for one in head.manifests(lake.table.io)),
    ]
    assert set(named) <= set(seen_at_commit)
    assert {os.path.dirname(path) for path in named} <= set(seen_at_commit)
    after = metadata_location(lake.catalog, TRADES)
    assert after != before
    assert local_path(after) in synced


def test_metadata_is_synced_before_the_catalog_names_it(lake, monkeypatch):
    real, named_already = os.fsync, []

    def watched(descriptor):
        real(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith(".metadata.json"):
            named_already.append(local_path(metadata_location(lake.catalog, TRADES)) == path)

    monkeypatch.setattr(os, "fsync", watched)
    lake.committer().commit([piece(0, [1])])
    assert named_already == [False]


ODD_NAMES = [
    "p#1", "q?x", "r%20s", "sp ace", "币安", "it's", 'a"b', "[1]", "a*b", "a;b", "a,b", "${HOME}",
    "a\\b", "a:b", "a&b=c", "tab\tline\n",
]  # fmt: skip


@pytest.mark.parametrize("name", [*ODD_NAMES, "".join(ODD_NAMES)])
def test_a_lake_is_whole_in_a_folder_of_any_name(tmp_path, name):
    lake = LakeWorld(tmp_path / name)
    try:
        lake.commit_each(range(3))
        assert [row[3] for row in lake.rows()] == [0, 1, 2]
        assert lake.on_disk() >= Reach().of(lake.table)
        lake.maintainer().compact()
        lake.maintainer().expire(lake.clock.now_us() + 10**12)
        lake.clock.advance(2 * limits.SWEEP_GRACE_S)
        lake.maintainer().sweep()
        lake.clock.advance(2 * limits.SWEEP_GRACE_S)
        assert lake.maintainer().sweep().removed > 0
        pin_catalog(local_lake(lake.settings), tmp_path / name / "pinned.db")
        (head,) = heads_of(tmp_path / name / "pinned.db")
        assert all(Path(local_path(file.location)).exists() for file in files_of(head))
        assert [row[3] for row in lake.rows()] == [0, 1, 2]
    finally:
        lake.close()
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_catalog_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(Invalid) as caught:
        open_catalog(Settings(data_dir=tmp_path, lake={"catalog_uri": "mysql://x"}), SystemClock())
    assert caught.value.reason is Reason.BAD_SETTING


def test_a_catalog_that_cannot_be_opened_is_unavailable(tmp_path):
    (tmp_path / "lake").write_text("a file where a folder should be")
    with pytest.raises(Unavailable) as caught:
        open_catalog(Settings(data_dir=tmp_path), SystemClock())
    assert caught.value.reason is Reason.LAKE_UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), Overloaded, Reason.DISK_FULL),
        (OSError(errno.EIO, "broken"), Unavailable, Reason.LAKE_UNAVAILABLE),
        (OperationalError("x", {}, Exception("locked")), Unavailable, Reason.LAKE_UNAVAILABLE),
        (OperationalError("x", {}, SqliteFull()), Overloaded, Reason.DISK_FULL),
        (SqliteIndexFull(), Overloaded, Reason.DISK_FULL),
        (Overloaded(Reason.QUEUE_FULL, "kept"), Overloaded, Reason.QUEUE_FULL),
    ],
)
def test_failures_get_their_reason(error, kind, reason):
    with pytest.raises(kind) as caught, reaching_lake():
        raise error
    assert caught.value.reason is reason


def test_the_location_of_a_table_that_does_not_exist_is_none(lake):
    assert metadata_location(lake.catalog, ("market", "nothing")) is None
