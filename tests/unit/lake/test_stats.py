"""What is known of files that were written before a column was added, and after."""

from dataclasses import replace

from k2.lake.evolution import evolve
from k2.lake.snapshot import SnapshotReader
from k2.lake.tables import iceberg_schema
from k2.market.schema import TRADE, Field, Kind
from tests.lake_world import piece

NOTE = Field("note", Kind.STRING, "What the venue says of it.", nullable=True)
TAGS = Field("tags", Kind.LABELS, "More of that.", nullable=True)
NEWER = replace(TRADE, fields=(*TRADE.fields, NOTE, TAGS))


def lacks(reader):
    files = reader.files(reader.current().snapshot_id)
    return [one.lacks for one in sorted(files, key=lambda one: one.path)]


def test_a_file_lacks_what_its_table_does_not_have_yet(lake):
    lake.committer().commit([piece(0, [1])])
    assert lacks(SnapshotReader(lake.catalog)) == [()]
    reader = SnapshotReader(lake.catalog, NEWER)
    assert lacks(reader) == [("note", "tags")]
    evolve(lake.table, iceberg_schema(NEWER))
    assert lacks(reader) == [("note", "tags")]  # what was read before
    assert lacks(SnapshotReader(lake.catalog, NEWER)) == [("note", "tags")]
