"""Quantities of files that store them in 64 bits and of files that do not are one column."""

from dataclasses import replace
from decimal import Decimal
from itertools import permutations

import numpy as np
import pyarrow.parquet as pq
import pytest

from k2.lake.commit.committer import TradeStore
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.file_stats import read_live_files
from k2.lake.maintenance.compaction import rewrite
from k2.market.schema import TRADE, arrow_schema
from k2.query import admission
from tests.support.lake_answers import answer_of
from tests.support.lake_world import piece
from tests.support.trades import NOW_US

MOST = 10**18 - 1
OF = {"narrow": [1, MOST, 2], "wide": [1, 3 * 10**18, 4], "old": [3, MOST, 5]}
PHYSICAL = {"narrow": "INT64", "wide": "FIXED_LEN_BYTE_ARRAY", "old": "FIXED_LEN_BYTE_ARRAY"}


def commit(lake, number, kind, values=None):
    """Commit a file of three rows, later than those of the files before."""
    writer = lake.committer(f"w{number}")
    positions, states, _ = writer.base()
    ids = [positions[0] + each for each in range(3)]
    times = [NOW_US + each for each in ids]
    batch = piece(0, ids, start=ids[0], state=states.get(0), times=times)
    words = np.array([[value, value >> 63] for value in values or OF[kind]], np.int64)
    accepted = tuple(replace(one, quantity=words) for one in batch.accepted)
    with pytest.MonkeyPatch.context() as patch:
        if kind == "old":  # as an earlier K2 wrote every file
            patch.setattr("k2.lake.commit.trade_files._narrowed", lambda rows: (rows, False))
        writer.commit([replace(batch, accepted=accepted)])


def files_of(lake):
    """Live files of the newest snapshot, oldest rows first."""
    table = lake.table
    manifests = table.metadata.current_snapshot().manifests(table.io)
    files = [file for one in manifests for file in read_live_files(table, one, "event_time")]
    return sorted(files, key=lambda file: file.time_max_us)


def physical(path):
    metadata = pq.read_metadata(local_path(path))
    names = [metadata.schema.column(at).path for at in range(metadata.num_columns)]
    return metadata.schema.column(names.index("quantity")).physical_type


def quantities(kinds):
    return [Decimal(value).scaleb(-8) for kind in kinds for value in OF[kind]]


@pytest.mark.parametrize("kinds", [*permutations(OF), ("narrow", "narrow"), ("old", "narrow")])
def test_files_in_any_order_are_one_column(lake, monkeypatch, kinds):
    for number, kind in enumerate(kinds):
        commit(lake, number, kind)
    assert [physical(file.location) for file in files_of(lake)] == [PHYSICAL[k] for k in kinds]
    for held in (10**9, 0):  # put in order here, or by DuckDB
        monkeypatch.setattr(admission, "PART_BYTES_MAX", held)
        rows = answer_of(lake)
        assert rows.schema == arrow_schema(TRADE)
        assert rows["quantity"].to_pylist() == quantities(kinds)
        assert (
            answer_of(lake, columns=("quantity",), limit=4)["quantity"].to_pylist()
            == (quantities(kinds)[:4])
        )
    assert sorted(lake.table.scan().to_arrow()["quantity"].to_pylist()) == sorted(quantities(kinds))


def test_a_file_is_known_to_be_narrow_by_its_bounds(lake):
    for number, kind in enumerate(OF):
        commit(lake, number, kind)
    stats = lake.snapshots.files(lake.snapshots.current().snapshot_id)
    ordered = sorted(stats, key=lambda stat: stat.time_min_us)
    assert [stat.narrow for stat in ordered] == [kind == "narrow" for kind in OF]


@pytest.mark.parametrize(
    ("value", "kind"), [(MOST, "narrow"), (10**18, "wide"), (-MOST, "narrow"), (-(10**18), "wide")]
)
def test_a_value_of_nineteen_digits_makes_its_file_wide(lake, value, kind):
    commit(lake, 1, kind, [1, value, 2])
    assert physical(files_of(lake)[0].location) == PHYSICAL[kind]
    (stat,) = lake.snapshots.files(lake.snapshots.current().snapshot_id)
    assert stat.narrow is (kind == "narrow")


@pytest.mark.parametrize("kinds", [("old", "narrow"), ("narrow", "wide"), ("wide", "old")])
def test_a_merged_file_is_as_narrow_as_all_of_its_values(lake, kinds):
    for number, kind in enumerate(kinds):
        commit(lake, number, kind)
    new, count = rewrite(lake.table, files_of(lake), "merged", TradeStore())
    assert count == 2
    assert physical(new.file_path) == PHYSICAL["wide" if "wide" in kinds else "narrow"]
    merged = pq.ParquetFile(local_path(new.file_path)).read()
    assert merged["quantity"].to_pylist() == quantities(kinds)
