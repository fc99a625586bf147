"""Makes every listener and channel of K2's servers: all on this machine, in plain text."""

from __future__ import annotations

import ipaddress
from typing import Final

import grpc

from k2.errors import Invalid, Reason, Unavailable

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


def split_address(listen: str) -> tuple[str, int]:
    """Split a `host:port` that is on this machine.

    Raises:
        Invalid: BAD_SETTING when it is not.
    """
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
        number = int(port)
    except ValueError:
        raise Invalid(Reason.BAD_SETTING, f"{listen!r} is not host:port") from None
    if not address.is_loopback or not 0 <= number <= 65_535:
        raise Invalid(
            Reason.BAD_SETTING, f"{listen!r}: access without keys is for loopback addresses only"
        )
    return host, number
