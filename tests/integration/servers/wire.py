"""A tape, and K2's servers as real processes on it."""

import contextlib
import json
import subprocess
import sys

import grpc

from k2.clock import SystemClock
from k2.settings import environment as settings_environment
from k2.settings import load
from k2.tape import topics
from k2.tape.schema_registry import SchemaStore


def deployed(broker, registry, data_dir, topic):
    """Settings of a stack whose topics exist, and the schema id."""
    settings = load(
        data_dir=data_dir,
        tape={
            "bootstrap": broker,
            "registry_url": registry,
            "topic": topic,
            "partitions_per_tier": 1,
        },
        feed={"source": "simulated"},
    )
    schemas = SchemaStore(registry, data_dir / "schemas", SystemClock())
    return settings, topics.deploy(settings.tape, schemas)


def environment(settings, **more):
    """What a child of that stack is started with."""
    return (
        settings_environment()
        | {
            "K2_DATA_DIR": str(settings.data_dir),
            "K2_TAPE__BOOTSTRAP": settings.tape.bootstrap,
            "K2_TAPE__REGISTRY_URL": settings.tape.registry_url,
            "K2_TAPE__TOPIC": settings.tape.topic,
            "K2_TAPE__PARTITIONS_PER_TIER": str(settings.tape.partitions_per_tier),
            "K2_FEED__SOURCE": settings.feed.source,
            "K2_CONTROL__LISTEN": "127.0.0.1:0",
            "K2_QUERY__LISTEN_GRPC": "127.0.0.1:0",
            "K2_QUERY__LISTEN_FLIGHT": "127.0.0.1:0",
        }
        | more
    )


@contextlib.contextmanager
def running(name, settings, **more):
    """A process of K2 while it serves: its addresses. It must end by itself when asked to."""
    log = settings.data_dir / f"{name}.log"
    with log.open("ab") as messages:
        child = subprocess.Popen(
            [sys.executable, "-m", "servers", name],
            env=environment(settings, **more),
            stdout=subprocess.PIPE,
            stderr=messages,
        )
    try:
        line = child.stdout.readline()
        said = json.loads(line or b"{}")
        assert said.get("event") == "serving", (said, log.read_text()[-2000:])
        yield said["addresses"]
        assert child.poll() is None, log.read_text()[-2000:]
        child.terminate()
        assert child.wait(30) == 0, log.read_text()[-2000:]
        assert "Traceback" not in log.read_text(), log.read_text()[-4000:]
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@contextlib.contextmanager
def channel_to(address):
    """A channel that closes."""
    channel = grpc.insecure_channel(address)
    try:
        yield channel
    finally:
        channel.close()
