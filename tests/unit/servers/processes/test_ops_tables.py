"""The ops tables' writers as the lake's process runs them, with the tape away."""

from k2 import limits
from k2.clock import SystemClock
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.tables import ensure_lake
from k2.lake.ingest.event_writer import OpsWriter
from k2.settings import Settings, TapeSettings
from k2.tape.tape_clients import TapeClients
from k2.telemetry import Counters
from servers.processes.ops_tables import OpsTables
from servers.runtime import Runtime
from tests.support.eventually import eventually
from tests.support.ops_world import OpsWorld, gap, letter
from tests.support.scraped import scraped_of


def test_a_tape_that_is_away_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "TAPE_REQUEST_S", 1.0)
    settings = Settings(data_dir=tmp_path, tape=TapeSettings(bootstrap="127.0.0.1:1"))
    runtime = Runtime(SystemClock(), "run")
    catalog = open_catalog(settings, SystemClock())
    ensure_lake(catalog)
    with TapeClients.open(settings, SystemClock()) as clients:
        ops = OpsTables(settings, runtime, catalog, clients)
        counters, measures = Counters(), Counters()
        ops.count(counters, measures)
        assert counters.values()["ops.gaps.failures"] == 0
        ops.start()
        eventually(lambda: counters.values()["ops.gaps.failures"] == 1, 40)
        assert scraped_of(measures)["k2_ops_failures_total", "ops.gaps"] == 1
        assert counters.values().keys() == {
            f"ops.{table}.{name}"
            for table in ("gaps", "dead_letters", "transitions")
            for name in ("rows", "failures")
        }
        assert ops.stop()
    catalog.close()


def test_each_ops_table_has_a_maintainer_that_waits_for_its_writer(tmp_path, monkeypatch):
    world = OpsWorld(tmp_path)
    writers = world.gap_writer(), world.letter_writer()
    for number in range(8):
        world.tell(gap(number, number))
        world.post(letter(number))
        for writer in writers:
            world.commit(writer)
    waited, excluded = [], OpsWriter.excluded
    monkeypatch.setattr(
        OpsWriter, "excluded", lambda one: waited.append(one.layout.name) or excluded(one)
    )
    clients = TapeClients(world.settings, world.clock)
    tables = OpsTables(world.settings, Runtime(world.clock, "r"), world.catalog, clients)
    hot = [True]
    keepers = tables.maintainers(world.settings, paused=lambda: hot[0])
    assert [one.table for one in keepers] == ["ops.gaps", "ops.dead_letters", "ops.transitions"]
    assert [one.compact() for one in keepers] == [0, 0, 0]
    hot.clear()
    hot.append(False)
    assert [one.compact() for one in keepers] == [1, 1, 0]
    assert waited[:2] == ["ops.gaps", "ops.dead_letters"]
    world.close()
