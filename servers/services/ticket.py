"""Signs tickets: what a planned query carries to the data plane, so that only this stack makes one.

A ticket names the request, the snapshot S and the end vector E, so reading it gives the rows that
were planned; the principal that planned it, because no other may read it; and an expiry, so that
what it pins can be released. The key is the stack's: from the settings, or a file in the data
directory that only its owner can read.
"""

from __future__ import annotations

import hmac
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from k2 import limits
from k2.errors import Invalid, Reason
from k2.query.request import ANONYMOUS, Principal
from k2.settings import Settings
from k2.v1 import query_service_pb2

KEY_BYTES: Final = 32
_KEY_BYTES_MIN: Final = 16
_DIGEST: Final = "sha256"
_ENVELOPE_BYTES_MAX: Final = 64  # around a payload: its signature and lengths


@dataclass(frozen=True)
class Signer:
    """Signs and opens tickets with one key."""

    key: bytes

    def sign(self, ticket: query_service_pb2.QueryTicket) -> bytes:
        """Write a ticket as it travels.

        Raises:
            Invalid: BAD_REQUEST when the query is too long for a ticket.
        """
        payload = ticket.SerializeToString(deterministic=True)
        if len(payload) > limits.TICKET_BYTES_MAX - _ENVELOPE_BYTES_MAX:
            raise Invalid(Reason.BAD_REQUEST, f"a query of {len(payload)} bytes is too long")
        signed = query_service_pb2.SignedTicket(payload=payload, signature=self._digest(payload))
        return signed.SerializeToString(deterministic=True)

    def open(
        self, signed: bytes, now_us: int, principal: Principal = ANONYMOUS
    ) -> query_service_pb2.QueryTicket:
        """Read what `sign` made.

        Args:
            signed: any bytes.
            now_us: wall microseconds now.
            principal: presents the ticket.

        Raises:
            Invalid: BAD_TICKET when `sign` did not make it with this key, or made it for another
                principal; TICKET_EXPIRED when it has expired.
        """
        ticket = self._verified(signed)
        if ticket.principal_id != principal.id:  # unset is the empty id, of an anonymous caller
            raise _bad("was made for another caller")
        if now_us >= ticket.expire_time.ToMicroseconds():
            raise Invalid(Reason.TICKET_EXPIRED, "the ticket has expired: plan the query again")
        return ticket

    def _verified(self, signed: bytes) -> query_service_pb2.QueryTicket:
        if len(signed) > limits.TICKET_BYTES_MAX:
            raise _bad("is too long")
        envelope, ticket = query_service_pb2.SignedTicket(), query_service_pb2.QueryTicket()
        try:
            envelope.ParseFromString(signed)
        except DecodeError:
            raise _bad("cannot be read") from None
        if not hmac.compare_digest(envelope.signature, self._digest(envelope.payload)):
            raise _bad("was not signed by this stack")
        ticket.ParseFromString(envelope.payload)
        return ticket

    def _digest(self, payload: bytes) -> bytes:
        return hmac.digest(self.key, payload, _DIGEST)


def _bad(why: str) -> Invalid:
    return Invalid(Reason.BAD_TICKET, f"the ticket {why}: plan the query again")


def signing_key(settings: Settings, fresh: bytes) -> bytes:
    """Return the stack's key: of the settings, of the data directory, or `fresh`, kept there.

    Args:
        settings: `ticket_key` and `data_dir`.
        fresh: random bytes, at least 16; used by the process that makes the key first.

    Raises:
        Invalid: BAD_SETTING when the key is too short to be one.
        Invalid: NOT_WRITABLE when the data directory takes no key.
    """
    if settings.ticket_key is not None:
        return _long_enough(settings.ticket_key.get_secret_value().encode(), "K2_TICKET_KEY")
    path = settings.data_dir / "ticket.key"
    try:
        return _long_enough(_kept_key(path, fresh), str(path))
    except OSError as error:
        raise Invalid(Reason.NOT_WRITABLE, f"{path}: {error.strerror}") from error


def _kept_key(path: Path, fresh: bytes) -> bytes:
    """Read the key file; the first caller makes it whole, with mode 0600."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write(fresh)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # never replaces: of two processes the first one's key stays
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return path.read_bytes()


def _long_enough(key: bytes, where: str) -> bytes:
    if len(key) < _KEY_BYTES_MIN:
        raise Invalid(
            Reason.BAD_SETTING, f"{where} has {len(key)} bytes; a key has at least {_KEY_BYTES_MIN}"
        )
    return key
