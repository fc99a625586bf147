"""A process has one of each connection, opened when it is used and closed at the end."""

import pytest

from k2.clock import ManualClock, SystemClock
from k2.errors import Reason, Unavailable
from k2.market import schema
from k2.market.instrument import Instrument, Tier
from k2.settings import Settings, SymbolSettings
from k2.tape import topics
from k2.tape.tape_clients import TapeClients
from tests.fakes.registry import Registry

TRADE = schema.avro_schema(schema.TRADE)
AWAY = {"bootstrap": "127.0.0.1:1"}


def test_a_process_that_is_to_end_does_not_wait_for_a_new_schema(tmp_path):
    server = Registry()
    try:
        settings = Settings(data_dir=tmp_path, tape={"registry_url": server.url})
        with TapeClients.open(settings, ManualClock(), lambda seconds: True) as clients:
            clients.schemas.register("s", TRADE)
            assert clients.schemas.register("s", TRADE | {"name": "Other"}) == 2
        assert sorted(path.name for path in (tmp_path / "schemas").iterdir()) == [
            "1.json",
            "2.json",
        ]
    finally:
        server.stop()


def test_each_connection_is_opened_once_and_closed_at_the_end(tmp_path):
    settings = Settings(data_dir=tmp_path, tape=AWAY)
    with TapeClients.open(settings, SystemClock()) as clients:
        heartbeats = clients.topic(topics.HEARTBEATS)
        assert clients.topic(topics.HEARTBEATS) is heartbeats
        assert clients.topic(topics.BACKFILLS) is not heartbeats
        assert clients.admin is clients.admin
        assert clients.dead_letters is clients.dead_letters
        assert clients.gap_log is clients.gap_log
        heartbeats.put("feed", {})
    with pytest.raises(Unavailable) as refused:
        heartbeats.put("feed", {})
    assert refused.value.reason is Reason.DRAINING


def test_what_is_not_used_is_not_opened(tmp_path):
    with TapeClients.open(Settings(data_dir=tmp_path, tape=AWAY), SystemClock()) as clients:
        pass
    assert not {"admin", "producer", "dead_letters", "gap_log"} & vars(clients).keys()


def test_the_partition_map_ranks_by_the_settings(tmp_path):
    pepe = Instrument("BINANCE", "PEPEUSDT")
    symbols = SymbolSettings(priority={pepe.key: "critical"})
    settings = Settings(data_dir=tmp_path, tape=AWAY, symbols=symbols)
    with TapeClients.open(settings, SystemClock()) as clients:
        assert clients.partition_map("id")._priorities.tier(pepe) is Tier.CRITICAL
