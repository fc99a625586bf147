import threading

import pytest
from pyiceberg.types import StringType

from k2.clock import SystemClock
from k2.errors import Data, Reason
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.tables import TRADES, TRADES_LAYOUT, assert_ours, ensure_tables, iceberg_schema
from k2.market.schema import GAP, TRADE
from k2.settings import Settings


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
