"""What a schema id means is written down once and defended."""

import json

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Data, Invalid, Reason, Unavailable
from k2.market import schema
from k2.tape.schema_registry import SchemaStore, fingerprint
from tests.fakes.registry import Registry
from tests.support.proxies import set_proxies

TRADE = schema.avro_schema(schema.TRADE)
OTHER = TRADE | {"name": "Other"}


@pytest.fixture
def server():
    made = Registry()
    yield made
    made.stop()


@pytest.fixture
def store(server, tmp_path):
    return SchemaStore(server.url, tmp_path / "schemas", ManualClock())


def test_registering_sets_compatibility_and_is_repeatable(server, store):
    assert store.register("market.trades-value", TRADE) == 1
    assert store.register("market.trades-value", TRADE) == 1
    assert server.asked[:3] == [
        "GET /subjects/market.trades-value/versions",
        "PUT /config/market.trades-value",
        "POST /subjects/market.trades-value/versions",
    ]


def test_an_id_is_asked_for_once_and_for_all(server, store, tmp_path):
    server.schemas[7] = json.dumps(TRADE)
    assert store.schema(7) == TRADE
    assert store.schema(7) == TRADE
    assert server.asked == ["GET /schemas/ids/7"]
    server.stop()
    assert SchemaStore(server.url, tmp_path / "schemas", ManualClock()).schema(7) == TRADE


def test_an_id_that_nobody_knows(store):
    with pytest.raises(KeyError):
        store.schema(99)


def test_a_registry_that_is_away(server, store):
    server.stop()
    with pytest.raises(Unavailable) as caught:
        store.schema(7)
    assert caught.value.reason == Reason.REGISTRY_UNAVAILABLE
    with pytest.raises(Unavailable):
        store.register("s", TRADE)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_registry_that_is_in_trouble(server, store, status):
    server.status = status
    with pytest.raises(Unavailable):
        store.schema(7)


def test_a_schema_that_is_not_compatible(server, store):
    server.status = 409
    with pytest.raises(Data) as caught:
        store.register("s", TRADE)
    assert caught.value.reason == Reason.SCHEMA_CONFLICT


def test_an_id_that_means_another_schema_is_refused(server, store, tmp_path):
    store.register("s", TRADE)
    server.schemas = {1: json.dumps(OTHER)}
    for asked in (store, SchemaStore(server.url, tmp_path / "schemas", ManualClock())):
        with pytest.raises(Data) as caught:
            asked.register("s", OTHER)
        assert caught.value.reason == Reason.SCHEMA_CONFLICT
        assert "restore that one from a backup" in caught.value.message
    assert store.schema(1) == TRADE


def test_a_rebuilt_registry_that_gives_ids_nobody_had_is_gone_on_with(server, store):
    store.register("s", TRADE)
    server.schemas = {1: json.dumps(TRADE | {"name": "Filler"}), 2: json.dumps(OTHER)}
    assert store.register("s", TRADE) == 3
    assert store.schema(3) == store.schema(1) == TRADE  # what was written before reads as it did


def test_an_answer_that_contradicts_itself_is_refused(server, store):
    server.schemas[1] = json.dumps(TRADE)
    assert store.register("s", TRADE) == 1
    server.schemas[1] = json.dumps(OTHER)
    server.schemas[2] = json.dumps(TRADE)
    assert store.register("s", TRADE) == 2
    with pytest.raises(Data):
        store.register("s", OTHER)


def test_a_damaged_cache_is_noticed(server, store, tmp_path):
    store.register("s", TRADE)
    file = tmp_path / "schemas" / "1.json"
    for content in (file.read_text().replace("BUY", "BYE"), "{", '{"id": 1}', "[]"):
        file.write_text(content)
        with pytest.raises(Data) as caught:
            SchemaStore(server.url, tmp_path / "schemas", ManualClock()).schema(1)
        assert caught.value.reason == Reason.CHECKSUM_MISMATCH


def test_the_cache_holds_whole_files_only(store, tmp_path):
    store.register("s", TRADE)
    assert [path.name for path in (tmp_path / "schemas").iterdir()] == ["1.json"]


def test_documentation_does_not_change_what_a_schema_means():
    undocumented = {key: value for key, value in TRADE.items() if key != "doc"}
    assert fingerprint(undocumented) == fingerprint(TRADE)
    assert fingerprint(OTHER) != fingerprint(TRADE)


def test_something_else_at_the_address(server, store):
    server.answer = lambda *_: (200, {"hello": "world"})
    with pytest.raises(Invalid):
        store.register("s", TRADE)
    with pytest.raises(Unavailable):
        store.schema(5)


def test_a_primitive_schema_is_a_schema(server, store):
    server.schemas[3] = '"string"'
    assert store.schema(3) == {"type": "string"}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def timed(server, tmp_path, clock):
    return SchemaStore(server.url, tmp_path / "timed", clock)


def asked_for(server, schema_id):
    return server.asked.count(f"GET /schemas/ids/{schema_id}")


def missed(store, schema_id):
    with pytest.raises(KeyError):
        store.schema(schema_id)
    return True


def test_a_miss_is_remembered_for_a_while(server, timed, clock):
    assert not timed.remembers(9)
    assert missed(timed, 9)
    clock.advance(limits.SCHEMA_MISS_S - 0.01)
    assert timed.remembers(9)
    assert missed(timed, 9)
    assert asked_for(server, 9) == 1
    clock.advance(0.02)
    assert not timed.remembers(9)
    server.schemas[9] = json.dumps(TRADE)
    assert timed.schema(9) == TRADE
    assert timed.remembers(9)


def test_misses_are_bounded(server, timed, monkeypatch):
    monkeypatch.setattr(limits, "SCHEMA_MISSES_MAX", 2)
    for schema_id in (1, 2, 3):
        assert missed(timed, schema_id)
    assert [timed.remembers(schema_id) for schema_id in (1, 2, 3)] == [False, True, True]


def test_an_id_that_no_registry_gives_is_not_asked_for(server, timed):
    assert timed.remembers(2**31)
    assert missed(timed, 2**31)
    assert server.asked == []


@pytest.mark.parametrize(
    "text",
    [
        'syntax = "proto3"; message Trade {}',
        json.dumps("x" * limits.SCHEMA_BYTES_MAX),
        "[" * 100_000 + "]" * 100_000,
        "[" * (limits.SCHEMA_JSON_DEPTH_MAX + 1) + "]" * (limits.SCHEMA_JSON_DEPTH_MAX + 1),
    ],
)
def test_what_is_no_schema_of_ours_is_an_unknown_id(server, timed, text):
    server.schemas[4] = text
    assert missed(timed, 4)
    assert timed.remembers(4)


def test_a_registry_that_could_not_be_asked_is_left_alone_for_a_while(server, timed, clock):
    server.status = 503
    for _ in range(3):
        with pytest.raises(Unavailable):
            timed.schema(7)
    assert asked_for(server, 7) == 1
    server.status = None
    server.schemas[7] = json.dumps(TRADE)
    clock.advance(limits.REGISTRY_AWAY_S)
    assert timed.schema(7) == TRADE


def test_a_new_version_is_waited_for_until_no_miss_is_left(server, timed, clock, tmp_path):
    began_s = clock.monotonic_s()
    assert timed.register("s", TRADE) == 1
    assert timed.register("s", TRADE) == 1
    assert clock.monotonic_s() == began_s, "a subject without versions, and one that is there"
    assert timed.register("s", OTHER) == 2
    assert clock.monotonic_s() == began_s + limits.SCHEMA_MISS_S
    another = SchemaStore(server.url, tmp_path / "another", clock)
    assert another.register("s", OTHER) == 2
    assert clock.monotonic_s() == began_s + limits.SCHEMA_MISS_S


def test_a_version_whose_answer_was_lost_is_new_at_the_next_try(server, timed, clock):
    timed.register("s", TRADE)
    began_s = clock.monotonic_s()
    answer = server.answer

    def lost(method, path, body):
        answer(method, path, body)
        return (503, {}) if method == "POST" else answer(method, path, body)

    server.answer = lost
    with pytest.raises(Unavailable):
        timed.register("s", OTHER)
    server.answer = answer
    assert timed.register("s", OTHER) == 2
    assert clock.monotonic_s() == began_s + limits.SCHEMA_MISS_S


def test_the_wait_for_a_new_version_can_be_cut_short(server, tmp_path):
    waited = []
    store = SchemaStore(server.url, tmp_path, ManualClock(), waited.append)
    store.register("s", TRADE)
    store.register("s", OTHER)
    assert waited == [limits.SCHEMA_MISS_S]


def test_no_proxy_stands_before_the_registry(server, store, monkeypatch):
    set_proxies(monkeypatch)
    assert store.register("trades-value", {"type": "string"}) == 1
