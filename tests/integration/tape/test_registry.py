"""The real registry answers as the store expects."""

import copy

import pytest

from k2.clock import ManualClock, SystemClock
from k2.errors import Data, Reason
from k2.market import schema
from k2.tape.schema_registry import SchemaStore

pytestmark = pytest.mark.integration

TRADE = schema.avro_schema(schema.TRADE)


def with_field(**field):
    made = copy.deepcopy(TRADE)
    made["fields"].append(field)
    return made


def changed(column, **changes):
    """The trade's schema with a field changed; with `type=None` without it."""
    made = copy.deepcopy(TRADE)
    for field in made["fields"]:
        field.update(changes if field["name"] == column else {})
    made["fields"] = [field for field in made["fields"] if field["type"] is not None]
    return made


def test_schemas_evolve_backward_and_stay_readable(registry, tmp_path):
    store = SchemaStore(registry, tmp_path / "a", ManualClock())
    first = store.register("evolves-value", TRADE)
    assert store.register("evolves-value", TRADE) == first

    optional = with_field(name="note", type=["null", "string"], default=None)
    second = store.register("evolves-value", optional)
    assert second != first

    with pytest.raises(Data) as caught:
        store.register("evolves-value", with_field(name="must", type="string"))
    assert caught.value.reason == Reason.SCHEMA_CONFLICT

    other = SchemaStore(registry, tmp_path / "b", SystemClock())
    assert [field["name"] for field in other.schema(second)["fields"]][-1] == "note"
    assert other.schema(first)["fields"][0]["name"] == "exchange"
    with pytest.raises(KeyError):
        other.schema(999_999)


@pytest.mark.parametrize(
    "incompatible",
    [
        changed("price", type=None),
        changed("price", name="prize"),
        changed("price", type="double"),
        changed("trade_id", type="string"),
        changed("trade_id", type="int"),
        changed("symbol", type=["null", "string"]),
        changed("side", type={"type": "enum", "name": "Side", "symbols": ["BUY", "SELL", "NONE"]}),
        with_field(name="must", type="string"),
    ],
    ids=[
        "removed", "renamed", "another type", "text", "narrower", "nullable", "another symbol",
        "without default",
    ],
)  # fmt: skip
def test_what_a_running_reader_could_not_read_is_refused(registry, tmp_path, incompatible):
    store = SchemaStore(registry, tmp_path, ManualClock())
    store.register("refuses-value", TRADE)
    with pytest.raises(Data) as caught:
        store.register("refuses-value", incompatible)
    assert caught.value.reason is Reason.SCHEMA_CONFLICT
    assert caught.value.metadata == {"subject": "refuses-value"}
    assert "ncompatible" in caught.value.message
