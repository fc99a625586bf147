"""A lake that was moved says the same of itself, from its new place."""

import os
import shutil

import pytest

from k2.errors import Data, Reason
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.maintenance.backup_source import LocalLake, files_of, heads_of, pin_catalog
from k2.lake.maintenance.relocation import Move, relocate
from tests.support.lake_world import LakeWorld, piece


def moved(lake, tmp_path, name="elsewhere, far away/k2"):
    """The lake, moved; the old one is gone."""
    old = tmp_path / "lake"
    home = tmp_path / name
    stage = home / "restoring" / "lake"
    stage.mkdir(parents=True)
    catalog = stage / "catalog.db"
    pin_catalog(LocalLake(old / "catalog.db", old / "warehouse"), catalog)
    lake.close()
    shutil.move(old / "warehouse", stage / "warehouse")
    shutil.rmtree(old)
    new = home / "lake"
    relocate(
        catalog, Move(f"file://{old}/warehouse", f"file://{new}/warehouse", stage / "warehouse")
    )
    stage.rename(new)
    return LakeWorld(home)


def described(lake):
    """All that a snapshot says, but for where its state lies."""
    reader = SnapshotReader(lake.catalog)
    return [
        (
            {**vars(one), "state_path": None},
            reader.states(one),
            sorted(
                (f.rows, f.size_bytes, f.time_min_us, f.symbol_max)
                for f in reader.files(one.snapshot_id)
            ),
        )
        for one in reader.list()
    ]


def sequences(lake):
    return sorted(
        (entry.snapshot_id, entry.sequence_number, entry.status, entry.data_file.lower_bounds)
        for manifest in lake.table.current_snapshot().manifests(lake.table.io)
        for entry in manifest.fetch_manifest_entry(lake.table.io, discard_deleted=False)
    )


@pytest.fixture
def filled(lake):
    writer, start, state = lake.committer(), 0, None
    for _ in range(12):  # enough for manifests to be merged
        batch = piece(0, range(start, start + 5), start=start, state=state)
        writer.commit([batch])
        start, state = batch.end, batch.state
    return lake, batch


def test_everything_but_the_place_stays(filled, tmp_path):
    lake, _ = filled
    before = described(lake), sequences(lake), lake.rows()
    other = moved(lake, tmp_path)
    assert (described(other), sequences(other), other.rows()) == before
    other.close()


def test_nothing_names_the_old_place(filled, tmp_path):
    other = moved(filled[0], tmp_path)
    home = other.settings.data_dir / "lake"
    (head,) = heads_of(home / "catalog.db")
    for one in files_of(head):
        assert one.location.startswith(f"file://{home}/")
        assert one.size in (None, os.path.getsize(local_path(one.location)))
    assert f"{tmp_path}/lake/" not in head.metadata.model_dump_json()
    assert head.metadata.metadata_log == []
    other.close()


def test_a_writer_goes_on_where_the_lake_stands(filled, tmp_path):
    lake, last = filled
    other = moved(lake, tmp_path)
    after = piece(0, range(last.end, last.end + 5), start=last.end, state=last.state)
    for start, outcome_rows in ((last, 0), (after, 5)):
        assert other.committer(f"w{start.start}").commit([start]).rows == outcome_rows
    assert [row[3] for row in other.rows()] == list(range(65))
    other.close()


def test_a_location_outside_is_refused(tmp_path):
    move = Move("file:///a/w", "file:///b/w", tmp_path)
    assert move.renamed("file:///a/w/t/m.avro") == "file:///b/w/t/m.avro"
    assert move.text("file:///a/wx") == "file:///a/wx"
    for location in ("file:///a/wx/t", "file:///a/w/../t", "file:///a/w"):
        with pytest.raises(Data) as refused:
            move.staged(location)
        assert refused.value.reason is Reason.BACKUP_INVALID
