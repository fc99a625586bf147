"""Gap events: which trade ids are missing, why, and what became of them.

An event says of an interval of ids "from now on they have this state" and paints over whatever was
said of them before, so an event that is repeated, or told twice, changes nothing. The present state
of the ledger is what the events leave when they are painted in the order of the tape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from k2 import limits
from k2.market.events import EVENT_TIME_MIN_US, TIME_MAX_US, Fault
from k2.market.instrument import Instrument


class Cause(StrEnum):
    """Why ids are missing."""

    SEQUENCE = "SEQUENCE"  # the venue's own stream skipped them
    DISCONNECT = "DISCONNECT"  # printed while the connection was lost
    OUTAGE = "OUTAGE"  # printed while no feed was running
    SHED = "SHED"  # deferred under load
    REFUSED = "REFUSED"  # the feed could not take them
    EPOCH = "EPOCH"  # lost with an epoch of the tape
    REQUESTED = "REQUESTED"  # not known to be missing: a person asked to fetch them


class GapState(StrEnum):
    """What became of missing ids."""

    OPEN = "OPEN"
    FILLED = "FILLED"
    UNFILLABLE = "UNFILLABLE"
    VOID = "VOID"  # printed by the venue, and no trade: there is nothing to fetch


@dataclass(frozen=True)
class GapEvent:
    """These ids have this state now.

    Attributes:
        instrument: whose trades.
        first_id, last_id: missing trade ids, both inclusive.
        detected_us: when they were found missing, microseconds.
        cause: why they are missing.
        state: what became of them.
        recorded_us: when this event was made, microseconds.
        feed: the run of the feed, or what else made this event.
        filled_at_us: when the trades came, microseconds; None unless FILLED.
        reason: why they will not come, for a person; None unless UNFILLABLE.
    """

    instrument: Instrument
    first_id: int
    last_id: int
    detected_us: int
    cause: Cause
    state: GapState
    recorded_us: int
    feed: str
    filled_at_us: int | None = None
    reason: str | None = None

    def values(self) -> dict[str, Any]:
        """The columns of `schema.GAP` that a message carries; times in microseconds."""
        return {
            "exchange": self.instrument.exchange,
            "symbol": self.instrument.symbol,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "detected": self.detected_us,
            "cause": self.cause.value,
            "state": self.state.value,
            "recorded": self.recorded_us,
            "filled_at": self.filled_at_us,
            "reason": self.reason,
            "feed": self.feed,
        }


def gap_of(values: Mapping[str, Any]) -> GapEvent | Fault:
    """The event that `GapEvent.values` describes, or what is wrong with it."""
    try:
        event = GapEvent(
            instrument=Instrument(values["exchange"], values["symbol"]),
            first_id=values["first_id"],
            last_id=values["last_id"],
            detected_us=values["detected"],
            cause=Cause(values["cause"]),
            state=GapState(values["state"]),
            recorded_us=values["recorded"],
            feed=values["feed"],
            filled_at_us=values["filled_at"],
            reason=values["reason"],
        )
    except (KeyError, ValueError):
        return Fault.BAD_VALUE
    fault = check_gap(event)
    return event if fault is Fault.NONE else fault


def check_gap(event: GapEvent) -> Fault:
    """What is wrong with an event; NONE when nothing is."""
    exchange, symbol = event.instrument
    named = exchange and symbol and len(f"{exchange}{symbol}".encode()) <= limits.LABEL_BYTES_MAX
    filled = (event.filled_at_us is not None) == (event.state is GapState.FILLED)
    reasoned = (event.reason is not None) == (event.state is GapState.UNFILLABLE)
    if not (named and filled and reasoned):
        return Fault.BAD_VALUE
    times = [event.detected_us, event.recorded_us]
    if event.filled_at_us is not None:
        times.append(event.filled_at_us)
    ordered = 0 <= event.first_id <= event.last_id < 2**63
    told = all(EVENT_TIME_MIN_US <= each <= TIME_MAX_US for each in times)
    return Fault.NONE if ordered and told else Fault.OUT_OF_RANGE
