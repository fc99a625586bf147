import threading
from dataclasses import replace

import pytest
from pyiceberg.types import LongType, StringType

from k2 import limits
from k2.clock import SystemClock
from k2.errors import Data, Reason, Unavailable
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.tables import (
    TRADES,
    TRADES_LAYOUT,
    assert_ours,
    ensure_tables,
    evolve,
    iceberg_schema,
    lacking,
)
from k2.market.schema import GAP, TRADE, Field, Kind
from k2.settings import Settings
from tests.support.lake_world import FaultyCatalog, piece


def test_the_table_has_the_trades_columns_in_order_with_their_meaning(lake):
    schema = lake.table.schema()
    assert tuple(field.name for field in schema.fields) == TRADE.columns
    assert all(field.required for field in schema.fields)
    assert [field.doc for field in schema.fields] == [field.doc for field in TRADE.fields]
    assert str(schema.find_field("quantity").field_type) == "decimal(38, 8)"
    assert [field.field_id for field in schema.fields] == list(range(1, 17))


def test_it_is_partitioned_by_day_and_exchange_and_sorted(lake):
    assert [str(field.transform) for field in lake.table.spec().fields] == ["day", "identity"]
    names = [
        lake.table.schema().find_field(f.source_id).name for f in lake.table.sort_order().fields
    ]
    assert names == ["symbol", "event_time", "trade_id"]


def test_making_it_again_changes_nothing(lake):
    location = lake.table.metadata_location
    assert ensure_tables(lake.catalog).metadata_location == location


def test_processes_that_make_it_at_once_end_with_the_same_table(tmp_path):
    settings = Settings(data_dir=tmp_path)
    found, failed = [], []

    def make():
        try:
            catalog = open_catalog(settings, SystemClock())
            found.append(str(ensure_tables(catalog).metadata.table_uuid))
            catalog.close()
        except Exception as error:  # noqa: BLE001 shown by the test
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_table_with_retries_is_refused(lake):
    with lake.table.transaction() as transaction:
        transaction.set_properties({"commit.retry.num-retries": "4"})
    with pytest.raises(Data) as caught:
        assert_ours(lake.table, TRADES_LAYOUT)
    assert caught.value.reason is Reason.LAKE_CORRUPT
    with pytest.raises(Data):
        lake.committer().base()


def test_a_table_with_a_later_k2s_optional_column_is_taken_as_it_is(lake):
    with lake.table.update_schema() as update:
        update.add_column("later", StringType())
    assert "later" in ensure_tables(lake.catalog).schema().column_names
    assert_ours(lake.table, TRADES_LAYOUT)


def test_a_table_that_lacks_a_column_is_refused(lake):
    with lake.table.update_schema(allow_incompatible_changes=True) as update:
        update.rename_column("vendor_data", "extra")
    with pytest.raises(Data) as caught:
        ensure_tables(lake.catalog)
    assert "vendor_data" in caught.value.message
    assert TRADES == ("market", "trades")
    assert iceberg_schema(TRADE).find_field("vendor_data").required


def test_a_column_that_may_be_lacking_is_optional():
    lacking = {field.name for field in iceberg_schema(GAP).fields if not field.required}
    assert lacking == {"filled_at", "reason"}


# --- columns of a later K2 ---

NOTE = Field("note", Kind.STRING, "What the venue says of it.", nullable=True)
TAGS = Field("tags", Kind.MAP, "More of that.", nullable=True)
NEWER = replace(TRADE, fields=(*TRADE.fields[:3], NOTE, *TRADE.fields[3:], TAGS))
WANT = iceberg_schema(NEWER)


def ids(schema):
    """Every field id, those inside a map too."""
    return {schema.find_column_name(each): each for each in schema.field_ids}


def test_optional_columns_are_added_and_the_ids_of_all_others_stay(lake):
    lake.committer().commit([piece(0, [1, 2])])
    before = lake.table
    after = evolve(lake.table, WANT)
    assert after.metadata.table_uuid == before.metadata.table_uuid
    assert ids(before.schema()).items() <= ids(after.schema()).items()
    new = ids(after.schema()).keys() - ids(before.schema()).keys()
    assert new == {"note", "tags", "tags.key", "tags.value"}
    assert min(ids(after.schema())[name] for name in new) > max(ids(before.schema()).values())
    note = after.schema().find_field("note")
    assert (note.required, note.doc) == (False, NOTE.doc)
    assert after.spec() == before.spec()
    assert after.sort_order() == before.sort_order()


def test_rows_of_before_are_null_there_and_old_snapshots_still_read(lake):
    old = lake.committer().commit([piece(0, [1, 2])]).snapshot
    before = lake.table.scan().to_arrow()
    evolve(lake.table, WANT)
    assert ensure_tables(lake.catalog).scan().to_arrow().column("note").null_count == 2
    again = lake.table.scan(snapshot_id=old.snapshot_id).to_arrow()
    assert again.schema.names == before.schema.names
    assert again.equals(before)


def test_a_writer_that_does_not_know_them_goes_on(lake):
    writer = lake.committer()
    state = writer.commit([piece(0, [1, 2])]).states[0]
    evolve(lake.table, WANT)
    writer.commit([piece(0, [3], start=2, state=state)])  # on the table that it had read
    state = lake.snapshots.states(lake.snapshots.current())[0]
    lake.committer("w2").commit([piece(0, [4], start=3, state=state)])  # on the new one
    assert [row[-1] for row in lake.rows()] == [1, 2, 3, 4]


def test_doing_it_again_changes_nothing(lake):
    location = evolve(lake.table, WANT).metadata_location
    assert evolve(lake.table, WANT).metadata_location == location


def test_processes_that_do_it_at_once_add_each_column_once(lake):
    failed = []

    def run():
        try:
            evolve(lake.catalog.load_table(TRADES), WANT)
        except Exception as error:  # noqa: BLE001 shown by the test
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    names = lake.table.schema().column_names
    assert sorted(names) == sorted(WANT.column_names)


class Overtaken(FaultyCatalog):
    """Its tables commit to it too."""

    def load_table(self, identifier):
        table = super().load_table(identifier)
        table.catalog = self
        return table

    def __getattr__(self, name):
        return getattr(self.inner, name)


def table_on(lake, *faults):
    return Overtaken(lake.catalog, *faults).load_table(TRADES)


def test_a_commit_that_came_first_is_followed_by_another_try(lake):
    after = evolve(table_on(lake, "refused", "refused"), WANT)
    assert "note" in after.schema().column_names
    assert after.catalog.commits == 3


def test_a_reply_that_was_lost_is_named_and_the_next_start_finds_it_done(lake):
    with pytest.raises(Unavailable):
        evolve(table_on(lake, "reply lost"), WANT)
    assert "note" in lake.table.schema().column_names
    evolve(lake.table, WANT)


def test_evolution_that_is_always_overtaken_is_unavailable(lake, monkeypatch):
    monkeypatch.setattr(limits, "COMMIT_ATTEMPTS_MAX", 2)
    with pytest.raises(Unavailable) as caught:
        evolve(table_on(lake, "refused", "refused"), WANT)
    assert caught.value.reason is Reason.LAKE_UNAVAILABLE
    assert "note" not in lake.table.schema().column_names


def refused(have, want):
    with pytest.raises(Data) as caught:
        lacking(have, want, "market.trades")
    assert caught.value.reason is Reason.LAKE_CORRUPT
    assert "market.trades" in caught.value.message
    assert "start the K2 that wrote it" in caught.value.message
    return caught.value.message


def with_field(event, name, **changes):
    fields = [replace(f, **changes) if f.name == name else f for f in event.fields]
    return iceberg_schema(replace(event, fields=tuple(fields)))


OURS = iceberg_schema(TRADE)


def test_a_column_that_rows_must_have_cannot_be_added():
    must = iceberg_schema(replace(TRADE, fields=(*TRADE.fields, replace(NOTE, nullable=False))))
    assert "note is missing, and rows cannot be without it" in refused(OURS, must)


def test_another_type_is_refused_with_both_named():
    said = refused(with_field(TRADE, "price", kind=Kind.LONG), OURS)
    assert "price is required long and must be required decimal(18, 8)" in said
    assert "note is optional long" in refused(with_field(NEWER, "note", kind=Kind.LONG), WANT)


def test_a_column_that_may_be_null_where_rows_must_have_it_is_refused_and_the_reverse():
    assert "side is optional string" in refused(with_field(TRADE, "side", nullable=True), OURS)
    assert "note is required string" in refused(with_field(NEWER, "note", nullable=False), WANT)


def test_a_column_that_only_a_later_k2_can_fill_is_refused():
    assert "note is required string and not known" in refused(
        with_field(NEWER, "note", nullable=False), OURS
    )
    assert lacking(WANT, OURS, "t") == ()


def test_every_difference_is_named_at_once(lake):
    with lake.table.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("vendor_data")
        update.rename_column("base", "basis")
        update.make_column_optional("side")
    said = refused(lake.table.schema(), OURS)
    for name in ("vendor_data is missing", "base is missing", "basis is required", "side is opt"):
        assert name in said
    for check in (
        lambda: ensure_tables(lake.catalog),
        lambda: assert_ours(lake.table, TRADES_LAYOUT),
    ):
        with pytest.raises(Data):
            check()


def test_order_and_ids_do_not_matter():
    shuffled = replace(TRADE, fields=TRADE.fields[::-1])
    assert lacking(iceberg_schema(shuffled), OURS, "t") == ()
    assert [field.name for field in lacking(OURS, WANT, "t")] == ["note", "tags"]
    assert isinstance(lacking(OURS, WANT, "t")[0].field_type, StringType)
    assert not isinstance(lacking(OURS, WANT, "t")[0].field_type, LongType)
