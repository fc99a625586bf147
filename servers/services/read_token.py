"""Encodes read tokens as text that can be copied, mailed and kept, to request the same rows later.

The text is `k2t1.` and, in base64url without padding, a serialized `k2.v1.ReadToken` followed by
the CRC-32 of those bytes. A token is not signed, because it grants nothing; the checksum is there
because one wrong character would otherwise name other rows without an error.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from google.protobuf.message import DecodeError

from k2 import limits
from k2.errors import Invalid, Reason
from k2.market.offsets import OffsetVector, ReadToken
from k2.v1 import market_pb2

PREFIX: Final = "k2t1."
_CHECKSUM_BYTES: Final = 4


def to_text(token: ReadToken) -> str:
    """Write the token as text; the same text for the same token."""
    message = market_pb2.ReadToken(
        topic_id=token.topic_id,
        snapshot_id=token.snapshot_id,
        end_positions=market_pb2.OffsetVector(epoch=token.end.epoch, offsets=token.end.offsets),
    )
    content = message.SerializeToString(deterministic=True)
    return PREFIX + base64.urlsafe_b64encode(content + _checksum(content)).decode().rstrip("=")


def from_text(text: str) -> ReadToken:
    """Read a token that `to_text` wrote.

    Args:
        text: any text; surrounding space is ignored.

    Raises:
        Invalid: BAD_TOKEN when it is something else, or incomplete.
    """
    text = text.strip()
    if not text.startswith(PREFIX):
        raise _bad(f"starts with {PREFIX}")
    if len(text) > limits.READ_TOKEN_CHARS_MAX:
        raise _bad(f"has at most {limits.READ_TOKEN_CHARS_MAX} characters")
    body = text.removeprefix(PREFIX)
    try:
        sealed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        content, checksum = sealed[:-_CHECKSUM_BYTES], sealed[-_CHECKSUM_BYTES:]
        if checksum != _checksum(content):
            raise _bad("carries a checksum, and this one's is wrong: copy the whole of it")
        message = market_pb2.ReadToken.FromString(content)
    except (ValueError, DecodeError):  # binascii's errors are ValueErrors
        raise _bad("is base64url: copy the whole of it") from None
    end = message.end_positions
    return ReadToken(
        message.topic_id, OffsetVector(end.epoch, tuple(end.offsets)), message.snapshot_id
    )


def _checksum(content: bytes) -> bytes:
    return binascii.crc32(content).to_bytes(_CHECKSUM_BYTES, "big")


def _bad(what: str) -> Invalid:
    return Invalid(Reason.BAD_TOKEN, f"a read token {what}", metadata={"field": "as_of_token"})
