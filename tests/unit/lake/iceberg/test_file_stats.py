"""What is known of files that were written before a column was added, and after."""

from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import ensure_tables
from tests.support.lake_world import piece
from tests.support.tomorrow import OPTIONAL, comes

NAMES = tuple(field.name for field in OPTIONAL)


def lacks(reader):
    return {one.lacks for one in reader.files(reader.current().snapshot_id)}


def test_a_file_lacks_what_it_was_written_without(lake, monkeypatch):
    state = lake.committer().commit([piece(0, [1])]).states[0]
    assert lacks(lake.snapshots) == {()}
    comes(monkeypatch)
    early = SnapshotReader(lake.catalog)
    assert lacks(early) == {NAMES}  # the table does not have the columns yet
    ensure_tables(lake.catalog)
    assert lacks(early) == lacks(SnapshotReader(lake.catalog)) == {NAMES}
    lake.committer("w2").commit([piece(0, [2], start=1, state=state)])
    assert lacks(early) == lacks(SnapshotReader(lake.catalog)) == {NAMES, ()}
