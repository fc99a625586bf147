"""The real broker and the real registry outlive kills and changes of their ports."""

import pytest

from k2.clock import SystemClock
from k2.settings import TapeSettings
from k2.tape import topics
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.schema_registry import SchemaStore
from servers.local import broker, registry, stack_ports
from servers.local.child_process import Child
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]
START_S = 120
SCHEMA = {"type": "record", "name": "T", "fields": [{"name": "a", "type": "long"}]}


class NoSchemas:
    def register(self, subject, schema):
        return 1


def started(command, log, answers):
    child = Child(command, log)
    eventually(lambda: child.exit_code() is not None or answers(), START_S)
    assert child.exit_code() is None, log.read_text()
    return child


def test_what_the_tape_acknowledged_outlives_a_kill_and_other_ports(tmp_path, artifacts):
    def start(run_id):
        chosen = stack_ports.free(run_id)
        listens = broker.BrokerPorts(chosen["broker"], chosen["broker_controller"])
        command = broker.prepare(tmp_path / "kafka", listens, artifacts.jars("kafka"), run_id)
        child = started(command, tmp_path / "broker.log", lambda: broker.answers(listens))
        return child, broker.bootstrap(listens)

    child, bootstrap = start("1" * 32)
    try:
        topics.deploy(TapeSettings(bootstrap=bootstrap, topic="t"), NoSchemas())
        board = CompactedTopic(bootstrap, topics.PARTITIONS)
        board.put("key", {"partition": 3}, wait_s=30)
        board.close()
    finally:
        child.kill()
    child, bootstrap = start("2" * 32)
    try:
        board = CompactedTopic(bootstrap, topics.PARTITIONS)
        assert board.read_all() == {"key": {"partition": 3}}
        board.close()
    finally:
        child.stop(grace_s=20)


def test_the_registry_outlives_a_kill(tmp_path, artifacts):
    def start(run_id):
        chosen = stack_ports.free(run_id)
        listens = registry.RegistryPorts(chosen["registry"], chosen["registry_management"])
        program = artifacts.unpacked("registry")
        command = registry.prepare(tmp_path / "registry", listens, program)
        child = started(command, tmp_path / "registry.log", lambda: registry.answers(listens))
        return child, registry.url(listens)

    child, url = start("3" * 32)
    try:
        schema_id = SchemaStore(url, tmp_path / "first", SystemClock()).register("t-value", SCHEMA)
    finally:
        child.kill()
    child, url = start("4" * 32)
    try:
        assert SchemaStore(url, tmp_path / "second", SystemClock()).schema(schema_id) == SCHEMA
    finally:
        child.stop(grace_s=20)
