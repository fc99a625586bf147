"""Processes keep schemas in one folder, and wait for a new one only while they run."""

from k2.clock import ManualClock
from k2.market import schema
from k2.settings import Settings
from servers.processes.schemas import open_schemas
from servers.runtime import Runtime
from tests.fakes.registry import Registry

TRADE = schema.avro_schema(schema.TRADE)


def test_a_process_that_is_to_end_does_not_wait_for_a_new_schema(tmp_path):
    server = Registry()
    try:
        tape = {"registry_url": server.url}
        runtime = Runtime(ManualClock(), "run")
        schemas = open_schemas(Settings(data_dir=tmp_path, tape=tape), runtime)
        runtime.stopping.set()
        schemas.register("s", TRADE)
        assert schemas.register("s", TRADE | {"name": "Other"}) == 2
        assert sorted(path.name for path in (tmp_path / "schemas").iterdir()) == [
            "1.json",
            "2.json",
        ]
    finally:
        server.stop()
