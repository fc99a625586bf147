from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from k2.errors import Data
from k2.lake.commit.trade_files import Part, write_files
from k2.lake.iceberg.catalog import write_file
from k2.lake.verify.row_checksums import (
    BUCKET_BITS,
    PartitionRows,
    RowChecksums,
    fingerprints,
    read_rows,
)
from tests.support.trades import columns, label

MAP = pa.map_(pa.string(), pa.string())


def batch(ids=(1, 2, 3, 4), **given):
    made = columns(list(ids), symbols=["A", "B"] * (len(ids) // 2), **given)
    maps = [[("a", "1"), ("b", "2")], []] * (len(ids) // 2)
    return replace(made, vendor_data=pa.array(maps, MAP))


def tally(*rows, keep=(), ends=(1 << 20, 1 << 20)):
    made = RowChecksums(ends, frozenset(keep))
    for partition, one in rows:
        made.add(PartitionRows(partition, one))
    return made


def test_order_and_batches_do_not_matter():
    whole = batch()
    parts = [(0, whole.take(np.array([2, 0]))), (0, whole.take(np.array([3, 1])))]
    assert tally((0, whole)).differing(tally(*parts)) == []
    assert tally((0, whole)).symbols == tally(*parts).symbols
    assert tally((0, whole)).rows(0) == 4


@pytest.mark.parametrize(
    "name", ["offset", "trade_id", "event_time", "receive_time", "price", "side"]
)
def test_every_number_of_a_row_matters(name):
    other = batch()
    getattr(other, name)[1] += 1
    assert (fingerprints(batch()) != fingerprints(other)).tolist() == [False, True, False, False]


@pytest.mark.parametrize("word", [0, 1])
def test_both_words_of_a_quantity_matter(word):
    other = batch()
    other.quantity[2, word] += 1
    assert (fingerprints(batch()) != fingerprints(other)).tolist() == [False, False, True, False]


@pytest.mark.parametrize("position", range(6))
def test_every_part_of_a_label_matters(position):
    one = label()
    other = one._replace(**{one._fields[position]: "x"})
    made = columns([1])
    assert fingerprints(made) != fingerprints(replace(made, labels=(other,)))


def test_entries_of_vendor_data_matter_but_not_their_order():
    made = columns([1, 2])

    def prints(*maps):
        return fingerprints(replace(made, vendor_data=pa.array(list(maps), MAP))).tolist()

    assert prints([("a", "1"), ("b", "2")], []) == prints([("b", "2"), ("a", "1")], [])
    assert prints([("a", "1")], [])[0] != prints([("a", "2")], [])[0]
    assert prints([("a", "1")], [])[0] != prints([("1", "a")], [])[0]
    assert prints([], []) == fingerprints(made).tolist()
    sliced = pa.array([[("z", "z")], [("a", "1")], []], MAP).slice(1)
    assert fingerprints(replace(made, vendor_data=sliced)).tolist() == prints([("a", "1")], [])


def test_what_differs_is_named_by_partition_and_bucket():
    far = batch(first_offset=5 << BUCKET_BITS)
    one, other = tally((0, batch()), (1, far)), tally((0, batch()), (1, far.take(np.array([0]))))
    assert one.differing(other) == [(1, 5)]
    kept = tally((1, far), keep=[(1, 5)])
    offsets, prints = kept.rows_at((1, 5))
    assert offsets.tolist() == far.offset.tolist()
    assert prints.tolist() == fingerprints(far).tolist()
    assert kept.rows_at((1, 4))[0].tolist() == []


def test_a_file_gives_the_rows_that_were_written(lake):
    one, two = batch(), batch(ids=(9, 8), first_offset=7)
    (file,) = write_files([Part(0, one), Part(1, two)], 0, lake.table, "x")
    read = tally(*((r.partition, r.columns) for r in read_rows(lake.table.io, file.file_path)))
    assert tally((0, one), (1, two)).differing(read) == []
    assert read.symbols == tally((0, one), (1, two)).symbols


def test_the_rows_of_a_file_come_by_epoch(lake):
    (file,) = write_files([Part(3, batch())], 1, lake.table, "x")
    (rows,) = read_rows(lake.table.io, file.file_path)
    assert (rows.epoch, rows.partition, len(rows.columns)) == (1, 3, len(batch()))


def test_a_file_that_is_not_parquet_is_refused(lake, tmp_path):
    write_file(lake.table.io.new_output(str(tmp_path / "x")), b"garbage")
    with pytest.raises(Data):
        list(read_rows(lake.table.io, str(tmp_path / "x")))
