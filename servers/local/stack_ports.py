"""Chooses the ports of a stack by name: those of the settings, or free ones.

All are on loopback; while networks are trusted, processes may listen elsewhere.

What watches a stack listens beside it: each process serves its metrics from 9101 on. Such a port
need not be the one that was expected: where it is taken, a free one is chosen (`give_way`). So are
the ports that people open in a browser.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter

import psutil

from k2.errors import Invalid, Reason, Unavailable
from k2.settings import Settings
from servers.process_table import PROCESSES, Port

# Below the range that systems give to outgoing connections: a port stays ours over a restart.
_FREE_FIRST = 20000
_FREE_LAST = 31999
_FOUNDATION = ("broker", "broker_controller", "registry", "registry_management")
_METRICS_FIRST = 9101


def fixed(settings: Settings) -> dict[str, int]:
    """Read the ports of the settings: control 50051, Flight 8815, Kafka 9092, registry 8081.

    Raises:
        Invalid: NOT_LOCAL when a setting names another host than this one.
    """
    tape, anywhere = settings.tape, bool(settings.access.trusted_networks)
    broker = _port("tape.bootstrap", tape.bootstrap)
    registry = _port("tape.registry_url", tape.registry_url.split("//")[-1].split("/")[0])
    foundation = (broker, broker + 1, registry, registry + 1)
    return {
        port.name: _port(port.setting, attrgetter(port.setting)(settings), anywhere) or port.unset
        for port in _process_ports()
    } | dict(zip(_FOUNDATION, foundation, strict=True))


def metrics_port(process: str) -> str:
    """Name the port where a process serves its metrics."""
    return f"{process} metrics"


def metrics(settings: Settings, names: Iterable[str]) -> dict[str, int]:
    """Choose the ports of the metrics of processes, from that of the setting or 9101 on.

    Args:
        settings: of the stack.
        names: of its processes, in the order of their start.
    """
    anywhere = bool(settings.access.trusted_networks)
    first = _port("telemetry.listen", settings.telemetry.listen, anywhere) or _METRICS_FIRST
    return {metrics_port(name): first + place for place, name in enumerate(names)}


def give_way(
    wanted: Mapping[str, int],
    run_id: str,
    say: Callable[[str], None],
    without: Collection[int] = (),
) -> dict[str, int]:
    """Keep those of some ports that nothing listens on, and take free ones for the others.

    Args:
        wanted: by name.
        run_id: decides where the search begins.
        say: is given one line about each that was taken.
        without: ports that other parts of the stack take.
    """
    taken = [name for name, port in wanted.items() if not is_free(port)]
    instead = free_for(taken, run_id, without)
    for name, port in instead.items():
        was = wanted[name]
        say(f"port {was} ({name}) is in use{_owner(was)}: it listens on port {port} instead")
    return {**wanted, **instead}


def free(run_id: str) -> dict[str, int]:
    """Find ports that nothing listens on now; `run_id` decides where the search begins."""
    return free_for([*(port.name for port in _process_ports()), *_FOUNDATION], run_id)


def free_for(names: Sequence[str], run_id: str, without: Collection[int] = ()) -> dict[str, int]:
    """Find a port for each name, as `free` does, none of those in `without`."""
    span = _FREE_LAST - _FREE_FIRST + 1
    start = int(run_id, 16) % span
    candidates = (_FREE_FIRST + (start + step) % span for step in range(span))
    found = (port for port in candidates if port not in without and is_free(port))
    chosen = dict(zip(names, found, strict=False))
    if len(chosen) < len(names):
        raise Unavailable(Reason.PORT_IN_USE, "there are not enough free ports on this machine")
    return chosen


def yielding() -> list[str]:
    """List the ports of processes that give way where something else listens."""
    return [port.name for port in _process_ports() if port.gives_way]


def _process_ports() -> Iterator[Port]:
    return (port for spec in PROCESSES.values() for port in spec.ports)


def check(ports: Iterable[tuple[str, int]]) -> None:
    """Refuse ports that something listens on.

    Raises:
        Unavailable: PORT_IN_USE, naming every such port, what it is for and who has it.
    """
    taken = [(name, port) for name, port in ports if not is_free(port)]
    if taken:
        said = "; ".join(f"port {port} ({name}) is in use{_owner(port)}" for name, port in taken)
        raise Unavailable(
            Reason.PORT_IN_USE,
            f"{said}: stop what uses it, or start with --ports free",
            metadata={name: str(port) for name, port in taken},
        )


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _port(setting: str, address: str, anywhere: bool = False) -> int:
    host, _, port = address.rpartition(":")
    known = anywhere or host in ("127.0.0.1", "localhost")
    if not known or not port.isdecimal() or int(port) > 65535:
        raise Invalid(
            Reason.NOT_LOCAL,
            f"{setting} = {address}: the stack of one machine listens on 127.0.0.1:PORT only",
        )
    return int(port)


def _owner(port: int) -> str:
    """Name the process that listens there, as far as this user may know."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and tuple(connection.laddr)[1:] == (port,) and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f" by {name} (pid {connection.pid})"
    return ""
