"""A backup of a real registry that is written meanwhile is the registry of one moment."""

import threading

import pytest

from k2.clock import SystemClock
from k2.settings import Settings
from k2.tape.schema_registry import SchemaStore
from servers.local import registry as apicurio
from servers.local.backup import back_up
from servers.local.child_process import Child
from servers.local.stamp import Stamp, write_stamp
from tests.conftest import START_S, free_ports
from tests.support.data_dir import put_back, quiet
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def start(artifacts):
    """Start a registry on a folder; it ends with the test."""
    children = []

    def start(folder):
        ports = apicurio.RegistryPorts(*free_ports(2))
        command = apicurio.prepare(folder, ports, artifacts.unpacked("registry"))
        children.append(Child(command, folder / "registry.log"))
        eventually(lambda: apicurio.answers(ports), START_S)
        return apicurio.url(ports)

    yield start
    for child in children:
        child.stop(grace_s=5)


def schema(number):
    return {"type": "record", "name": f"R{number}", "fields": [{"name": "a", "type": "long"}]}


def test_ids_of_a_restored_registry_mean_the_same(start, tmp_path):
    data_dir, new = tmp_path / "k2", tmp_path / "new"
    store = SchemaStore(start(data_dir / "registry"), data_dir / "schemas", SystemClock())
    write_stamp(data_dir / "stamp.json", Stamp("simulated", "synthetic", "BINANCE"))
    ids, stop = {}, threading.Event()

    def register():
        while not stop.wait(0.02):
            ids[len(ids)] = store.register(f"s{len(ids)}-value", schema(len(ids)))

    writer = threading.Thread(target=register)
    writer.start()
    try:
        eventually(lambda: len(ids) > 5, START_S)
        before = dict(ids)
        back_up(Settings(data_dir=data_dir), tmp_path / "b", SystemClock(), "1", quiet())
    finally:
        stop.set()
        writer.join()
    put_back(tmp_path / "b", new)
    again = SchemaStore(start(new / "registry"), tmp_path / "another cache", SystemClock())
    assert {n: again.schema(schema_id) for n, schema_id in before.items()} == {
        n: schema(n) for n in before
    }
    assert {n: again.register(f"s{n}-value", schema(n)) for n in before} == before
