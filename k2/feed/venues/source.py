"""A venue as a feed sees it: its addresses and the decoding of its frames. One file a venue.

A frame is untrusted input. `decode` gives the trades in it, says that it is something K2 does not
take (counted, skipped), that an id was printed without a trade, that the venue announces its own
end, or that it is malformed (kept as a dead letter); it never raises.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from k2.market.events import Fault, Trade
from k2.market.instrument import Instrument


@dataclass(frozen=True)
class Skipped:
    """A well-formed frame that is not for K2.

    Attributes:
        kind: what it is, from a small fixed set of words (it names a counter).
    """

    kind: str


@dataclass(frozen=True)
class Malformed:
    """A frame that should have been a trade and is not one.

    Attributes:
        fault: the class of what is wrong.
        error: what is wrong, in words.
        of_time: whether nothing but its time is wrong: it may be right when printed again.
    """

    fault: Fault
    error: str
    of_time: bool = False


@dataclass(frozen=True)
class Void:
    """An id that the venue printed without a trade: price and size are zero.

    Attributes:
        instrument: whose.
        trade_id: the id.
    """

    instrument: Instrument
    trade_id: int


@dataclass(frozen=True)
class ShutdownAnnounced:
    """The venue will close this connection soon."""


Decoded: TypeAlias = tuple[Trade, ...] | Skipped | Void | Malformed | ShutdownAnnounced


class Source(Protocol):
    """One venue and what is listened to there."""

    @property
    def name(self) -> str:
        """Names the feed: its dead letters, its heartbeat, its connections."""

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """The instruments subscribed to; `decode` gives trades of no others."""

    def addresses(self, only: Iterable[Instrument] | None = None) -> tuple[str, ...]:
        """WebSocket addresses that together subscribe to everything, one connection each.

        Args:
            only: subscribe to these of the instruments; at least one.
        """

    def decode(self, frame: bytes, receive_time_us: int) -> Decoded:
        """Decode a frame.

        Args:
            frame: one message as the venue sent it.
            receive_time_us: when it came, wall microseconds.
        """
