"""The references of columns and calls are those of the code."""

import pyarrow as pa
import pytest

from k2.market.schema import TRADE
from scripts import api_reference, data_dictionary


def test_the_data_dictionary_is_as_the_code_declares():
    text = data_dictionary.FILE.read_text()
    assert text == data_dictionary.written(text, data_dictionary.tables()), (
        "run python -m scripts.data_dictionary and review the difference"
    )


def test_every_table_is_in_the_data_dictionary():
    text = data_dictionary.FILE.read_text()
    for name in data_dictionary.tables():
        assert text.count(f"<!-- columns {name} -->") == 1, name


def test_every_column_of_an_answer_has_a_meaning():
    shapes = data_dictionary.kinds_of_answers()
    assert {"trades", "bars", "latest"} <= {shape.name for shape in shapes}
    for shape in shapes:
        for name in set(shape.schema.names) - set(TRADE.columns):
            assert data_dictionary.meaning(name), name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.decimal128(18, 8), "decimal(18,8)"),
        (pa.timestamp("us", tz="UTC"), "timestamp(us, UTC)"),
        (pa.map_(pa.string(), pa.string()), "map(string, string)"),
    ],
)
def test_types_are_named_as_in_sql(kind, name):
    assert data_dictionary.type_name(kind) == name


def test_the_api_reference_is_as_the_protos_say():
    assert api_reference.FILE.read_text() == api_reference.main_text(), (
        "run python -m scripts.api_reference and review the difference"
    )


def test_every_call_and_message_is_in_the_api_reference():
    text = api_reference.FILE.read_text()
    for file in api_reference.descriptors():
        for service in file.service:
            for method in service.method:
                assert f"#### {service.name}.{method.name}\n" in text
        for message in file.message_type:
            assert f"### {message.name}\n" in text


def test_http_is_written_from_its_document():
    parameter = {
        "name": "order",
        "in": "query",
        "description": "Of rows | of both.",
        "schema": {"anyOf": [{"enum": ["asc", "desc"]}, {"type": "null"}]},
    }
    operation = {"summary": "Trades", "parameters": [parameter]}
    text = api_reference.reference([], {"paths": {"/v1/trades": {"get": operation}}})
    assert "### GET /v1/trades\n\nTrades\n" in text
    assert "| order | query | `asc`, `desc` | Of rows \\| of both. |" in text
