from k2client import records
from k2client.json_form import json_value
from servers.edge import documents


def test_the_model_of_a_record_is_what_is_written_of_it():
    gap = records.Gap("BINANCE", "BTCUSDT", 2**60, 2**60 + 1)
    written = json_value(gap)
    assert documents.of_record(records.Gap).model_validate(written, strict=True)


def test_cells_of_rows_are_texts_where_numbers_lose_digits():
    made = documents.TradeRow.model_json_schema()["properties"]
    kinds = {name: {one["type"] for one in field["anyOf"]} for name, field in made.items()}
    assert kinds["price"] == kinds["trade_id"] == kinds["event_time"] == {"string", "null"}
    assert kinds["tape_partition"] == {"integer", "null"}
    assert kinds["vendor_data"] == {"object", "null"}
