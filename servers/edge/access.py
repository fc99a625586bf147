"""Admits requests of this machine and of trusted networks, and checks their keys.

A browser on this machine can be made to call this server by a page of any site, under a name of
that site that resolves to loopback. The key of a development stack is public, so the host that a
request names decides: localhost, 127.0.0.1 or [::1]. A peer in a trusted network may also name an
address of such a network, or a host without a dot, as containers do.

A port that a container publishes on loopback is called from the gateway of its bridge network:
there the callers of this machine are peers of a trusted network, so both are treated alike.

What a request asks of K2 is asked in the name of its peer, so that K2 bounds each peer.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from k2client.caller_name import calling_for
from k2client.errors import Invalid
from servers.edge.problems import KEY_HEADER, problem_of
from servers.network import is_trusted_host

DEVELOPMENT_KEY: Final = "k2-dev-api-key-2026"
SAYS_DEVELOPMENT: Final = (
    "development key: public, for requests from this machine and its trusted networks only"
)
KEY_SAYS_HEADER: Final = "k2-api-key"
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_WITHOUT_KEY: Final = "/health"

Networks = Sequence[IPv4Network | IPv6Network]


class AccessGuard:
    """Wraps an application; refuses what may not call it.

    Args:
        app: the application.
        trusted: networks whose peers are taken for this machine.
    """

    def __init__(self, app: ASGIApp, trusted: Networks = ()) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_peer(scope, headers)
            key = _checked_key(scope, headers)
        except Invalid as refusal:
            await problem_of(refusal).response()(scope, receive, send)
            return
        peer = (scope.get("client") or ("", 0))[0]
        with calling_for(f"http:{peer}"):  # one public key sets no callers apart
            await self._app(scope, receive, _saying_key(send) if key else send)

    def _check_peer(self, scope: Scope, headers: Headers) -> None:
        """Check where a request comes from, and the host that it names.

        Raises:
            Invalid: NOT_LOCAL.
        """
        peer = (scope.get("client") or ("", 0))[0]
        if not is_trusted_host(peer, self._trusted):
            raise Invalid(
                "NOT_LOCAL",
                f"{peer} is neither this machine nor in access.trusted_networks;"
                " the development key works from those only",
            )
        host = headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        named_trusted = not _is_loopback(peer) and ("." not in name or self._trusts(name))
        if name not in _LOOPBACK_HOSTS and not named_trusted:
            raise Invalid("NOT_LOCAL", f"the host {host!r} is not this machine: call localhost")

    def _trusts(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.strip("[]"))
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def _checked_key(scope: Scope, headers: Headers) -> str:
    """Return the key of a request; empty without one.

    Raises:
        Invalid: UNAUTHENTICATED for a key that is not valid.
    """
    key = headers.get(KEY_HEADER, "")
    if not key or scope["path"] == _WITHOUT_KEY:
        return ""
    if not hmac.compare_digest(key.encode(), DEVELOPMENT_KEY.encode()):
        raise Invalid(
            "UNAUTHENTICATED",
            f"the key in {KEY_HEADER} is not valid here: none is needed",
        )
    return key


def _saying_key(send: Send) -> Send:
    """Have an answer say what its request's key is worth."""

    async def saying(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)[KEY_SAYS_HEADER] = SAYS_DEVELOPMENT
        await send(message)

    return saying


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
