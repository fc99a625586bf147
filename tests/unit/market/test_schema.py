import fastavro
import pyarrow as pa

from k2.market.schema import LABEL_COLUMNS, TRADE, arrow_schema, avro_schema


def test_the_columns_of_a_trade_are_pinned():
    assert TRADE.columns == (
        "exchange", "symbol", "base", "quote", "asset_class", "source", "trade_id", "event_time",
        "receive_time", "price", "quantity", "side", "vendor_data", "tape_epoch",
        "tape_partition", "tape_offset",
    )  # fmt: skip


def test_the_label_leads_the_record():
    assert TRADE.columns[: len(LABEL_COLUMNS)] == LABEL_COLUMNS


def test_arrow_types():
    schema = arrow_schema(TRADE)
    assert schema.field("price").type == pa.decimal128(18, 8)
    assert schema.field("quantity").type == pa.decimal128(38, 8)
    assert schema.field("event_time").type == pa.timestamp("us", tz="UTC")
    assert not any(field.nullable for field in schema)


def test_avro_is_valid_and_carries_all_but_the_position():
    parsed = fastavro.parse_schema(avro_schema(TRADE))
    names = [field["name"] for field in parsed["fields"]]
    assert names == [name for name in TRADE.columns if not name.startswith("tape_")]
    assert all(field["doc"] for field in parsed["fields"])
