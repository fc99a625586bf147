"""Makes every listener and channel of K2's servers, in plain text, and knows which peers it takes.

Listeners are on this machine and take this machine's peers, unless the setting
`access.trusted_networks` names networks: then any address may be listened on, and peers inside
those networks are taken too.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

import grpc

from k2.errors import Invalid, Reason, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]

_LOOPBACK: Final = "127.0.0.1"
_LOCALHOST: Final = "localhost"
_MAPPED: Final = int(ipaddress.IPv6Address("::ffff:0:0"))  # IPv4 in IPv6
_CHANNEL_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str) -> grpc.Channel:
    """Open a gRPC channel to another server of K2."""
    return grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)


def bind_grpc(server: grpc.Server, host: str, port: int) -> int:
    """Let a gRPC server listen; returns its port.

    Raises:
        Unavailable: PORT_IN_USE when something else listens there.
    """
    try:
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        raise port_in_use(host, port) from None


def flight_uri(host: str, port: int) -> str:
    """Name where a Flight server listens and is reached."""
    return f"grpc://{host}:{port}"


def port_in_use(host: str, port: int) -> Unavailable:
    """Return the error of an address that cannot be listened on."""
    return Unavailable(
        Reason.PORT_IN_USE,
        f"cannot listen on {host}:{port}: something else does; stop it or choose another port",
        metadata={"port": str(port)},
    )


def split_address(listen: str, trusted: Networks = ()) -> tuple[str, int]:
    """Split a `host:port` to listen on.

    Args:
        listen: the address; of this machine, unless networks are trusted.
        trusted: the networks of peers that are taken beside this machine's.

    Raises:
        Invalid: BAD_SETTING when it cannot be listened on.
    """
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(_LOOPBACK if host == _LOCALHOST else host.strip("[]"))
        number = int(port)
    except ValueError:
        raise Invalid(Reason.BAD_SETTING, f"{listen!r} is not host:port") from None
    if not 0 <= number <= 65_535:
        raise Invalid(Reason.BAD_SETTING, f"{listen!r} is not host:port")
    if not address.is_loopback and not trusted:
        raise Invalid(
            Reason.BAD_SETTING,
            f"{listen!r}: access without keys is for loopback addresses only; to listen elsewhere,"
            " set access.trusted_networks",
        )
    return host, number


def reached_at(host: str) -> str:
    """Name the host under which others reach a listener: this machine's name for all addresses."""
    try:
        everywhere = ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return host
    return socket.gethostname() if everywhere else host


def flight_locations(host: str, port: int) -> tuple[str, ...]:
    """List the Flight URIs under which rows are fetched, the usual one first.

    A server of all addresses may be published on the loopback address of a machine around it, where
    its own name means nothing.
    """
    hosts = dict.fromkeys((reached_at(host), host if reached_at(host) == host else _LOOPBACK))
    return tuple(flight_uri(one, port) for one in hosts)


def is_trusted(peer: str, trusted: Networks = ()) -> bool:
    """Tell whether a gRPC or Flight peer (`ipv4:127.0.0.1:4711`) is taken without a key.

    Args:
        peer: as gRPC names it.
        trusted: the networks of peers that are taken beside this machine's.
    """
    kind, _, address = peer.partition(":")
    if kind == "unix":
        return True
    return is_trusted_host(re.sub(r":\d+$", "", unquote(address)).strip("[]"), trusted)


def is_trusted_host(host: str, trusted: Networks = ()) -> bool:
    """Tell whether the peer of an IP address is taken without a key; IPv4 in IPv6 is IPv4."""
    try:
        forms = _forms(ipaddress.ip_address(host))
    except ValueError:
        return False
    if any(form.is_loopback for form in forms):
        return True
    return any(form in network for form in forms for network in trusted)


def names_this_machine(header: str, trusted: Networks = ()) -> bool:
    """Tell whether a Host header of HTTP names this machine, so that no page rebinds a name to it.

    Args:
        header: `host` or `host:port`.
        trusted: where there are some, addresses inside them and this machine's name fit too.
    """
    found = re.fullmatch(r"(\[[^]]*\]|[^:\[\]]+)(?::\d+)?", header)
    if found is None:
        return False
    host = found[1].lower()
    if host in (_LOCALHOST, _LOOPBACK, "[::1]"):
        return True
    if not trusted:
        return False
    return host == socket.gethostname().lower() or is_trusted_host(host.strip("[]"), trusted)


def _forms(address: Address) -> tuple[Address, ...]:
    """Return both forms of an IPv4 address; of any other, itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address, ipaddress.IPv6Address(_MAPPED + int(address)))
    return (address.ipv4_mapped, address) if address.ipv4_mapped else (address,)
