"""A change of the level, as it is kept: on the tape, and as a row of `ops.transitions`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from k2.degrade.level import Level
from k2.market.events import TIME_MAX_US


class TransitionCause(StrEnum):
    """Why the level changed."""

    PRESSURE = "PRESSURE"  # a pressure was held above the entry of the level
    CALM = "CALM"  # every pressure stayed below the exit of the level before
    OVERRIDE = "OVERRIDE"  # by an operator
    OVERRIDE_ENDED = "OVERRIDE_ENDED"  # cleared, or its time is over


@dataclass(frozen=True)
class Transition:
    """One change of the level.

    Attributes:
        at_us: when, wall microseconds.
        before, after: the levels.
        cause: why.
        process, signal: whose pressure was the highest; empty of an override, and of a fall when
            nothing presses.
        reading: of the signal; None where it could not be read, or of an override.
        pressure: the highest, 0..1.
        threshold: the pressure that the level begins or ends at.
        injected: whether an injected pressure raised the level, or had raised the one that ends.
        reason: of an override, in the operator's words.
    """

    at_us: int
    before: Level
    after: Level
    cause: TransitionCause
    process: str = ""
    signal: str = ""
    reading: float | None = None
    pressure: float = 0.0
    threshold: float = 0.0
    injected: bool = False
    reason: str = ""

    def values(self) -> dict[str, Any]:
        """Return the columns of `schema.TRANSITION` that a message carries; JSON values."""
        finite = self.reading is not None and math.isfinite(self.reading)
        return {
            "changed": self.at_us,
            "from_level": self.before.name,
            "to_level": self.after.name,
            "cause": self.cause.value,
            "process": self.process,
            "signal": self.signal,
            "reading": self.reading if finite else None,
            "pressure": self.pressure,
            "threshold": self.threshold,
            "injected": self.injected,
            "reason": self.reason,
        }


def transition_of(values: object) -> Transition | None:
    """Read a transition from `values`; None when they are not one."""
    if not isinstance(values, Mapping):
        return None
    try:
        reading = values["reading"]
        made = Transition(
            at_us=int(values["changed"]),
            before=Level[values["from_level"]],
            after=Level[values["to_level"]],
            cause=TransitionCause(values["cause"]),
            process=str(values["process"]),
            signal=str(values["signal"]),
            reading=None if reading is None else float(reading),
            pressure=float(values["pressure"]),
            threshold=float(values["threshold"]),
            injected=bool(values["injected"]),
            reason=str(values["reason"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return made if 0 <= made.at_us <= TIME_MAX_US else None
