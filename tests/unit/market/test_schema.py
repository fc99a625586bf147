import fastavro
import pyarrow as pa
import pytest

from k2.market.schema import (
    DEAD_LETTER,
    GAP,
    LABEL_COLUMNS,
    TRADE,
    arrow_schema,
    avro_schema,
)


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


def test_the_columns_of_the_ledgers_events_are_pinned():
    assert GAP.columns == (
        "exchange", "symbol", "first_id", "last_id", "detected", "cause", "state", "recorded",
        "filled_at", "reason", "feed", "tape_epoch", "tape_partition", "tape_offset",
    )  # fmt: skip
    assert DEAD_LETTER.columns == (
        "origin", "origin_epoch", "origin_partition", "origin_offset", "schema_id", "fault",
        "error", "judged", "value", "tape_epoch", "tape_partition", "tape_offset",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("event", "nullable"),
    [(GAP, {"filled_at", "reason"}), (DEAD_LETTER, {"schema_id", "value"}), (TRADE, set())],
)
def test_a_column_that_may_be_lacking_is_so_in_every_form(event, nullable):
    assert {field.name for field in arrow_schema(event) if field.nullable} == nullable
    fields = avro_schema(event)["fields"]
    assert {field["name"] for field in fields if "default" in field} == nullable
    assert {field["name"] for field in fields if isinstance(field["type"], list)} == nullable
    fastavro.parse_schema(avro_schema(event))
