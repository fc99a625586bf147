"""Takes the platform through its degradation levels and back, by pressure that an operator sets.

The pressure is injected, and every line says so. `scripts/demo_degradation.py` shows the same by
real load on a small stack of its own, and accounts for every trade.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import k2client
from k2client.convert import LEVELS
from k2client.errors import K2Error

INJECTED = {"SOFT": 0.6, "GRACEFUL": 0.75, "AGGRESSIVE": 0.9, "CIRCUIT_BREAK": 1.0}
EFFECTS = {
    "NORMAL": "everything is done",
    "SOFT": "enrichment and maintenance wait, commits are larger",
    "GRACEFUL": "low-priority symbols wait",
    "AGGRESSIVE": "critical symbols only; the others wait on the tape",
    "CIRCUIT_BREAK": "no new trades are taken; missed ids are fetched later",
}
_SIGNAL, _PROCESS = "writer_lag_s", "lake"
_HOLD_S = 60.0
_RISE_S = 20.0
_POLL_S = 0.2
_ORDER = ("NORMAL", *INJECTED)


@dataclass
class Walk:
    """What was seen on the way.

    Attributes:
        reached: levels that were reached on the way up.
        steps_down: each fall as (from, to).
        took_s: of the way up, and of the way down.
        level: where it ended.
        dwell_s: so long pressure must be down before the level falls by one.
    """

    reached: list[str] = field(default_factory=list)
    steps_down: list[tuple[str, str]] = field(default_factory=list)
    up_s: float = 0.0
    down_s: float = 0.0
    level: str = ""
    dwell_s: float = 0.0

    @property
    def by_single_steps(self) -> bool:
        """Whether each fall went down by one level."""
        return all(_ORDER.index(high) - _ORDER.index(low) == 1 for high, low in self.steps_down)


def walk(k2: k2client.Client, say: Callable[[str], None], patience_s: float | None = None) -> Walk:
    """Raise the level to CIRCUIT_BREAK and let it fall to NORMAL.

    Args:
        k2: of the platform.
        say: takes one line at each change.
        patience_s: so long the fall may take; unset: four dwells and a margin.

    Raises:
        K2Error: the control plane does not answer.
    """
    done = Walk(dwell_s=float(str(k2.settings().get("degrade.dwell_s", 15))))
    began = time.monotonic()
    try:
        for level, pressure in INJECTED.items():
            k2.inject_pressure(_SIGNAL, pressure, _HOLD_S, _PROCESS)
            if not _reaches(k2, level):
                say(f"{level} was not reached in {_RISE_S:.0f} s")
                break
            done.reached.append(level)
            say(f"{level:<14} {_SIGNAL} injected at {pressure:.2f}: {EFFECTS[level]}")
    finally:
        k2.inject_pressure(_SIGNAL, 0.0, 1.0, _PROCESS)
    done.up_s = time.monotonic() - began
    _fall(k2, done, say, patience_s if patience_s is not None else 6 * done.dwell_s + 30)
    return done


def _reaches(k2: k2client.Client, level: str) -> bool:
    end = time.monotonic() + _RISE_S
    while _ORDER.index(k2.degradation().level) < _ORDER.index(level):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True


def _fall(k2: k2client.Client, done: Walk, say: Callable[[str], None], patience_s: float) -> None:
    began = time.monotonic()
    before = k2.degradation().level
    while before != "NORMAL" and time.monotonic() - began < patience_s:
        time.sleep(_POLL_S)
        try:
            level = k2.degradation().level
        except K2Error:
            continue  # a call may be shed on the way; the level is asked for again
        if level != before:
            if _ORDER.index(level) < _ORDER.index(before):
                done.steps_down.append((before, level))
            say(f"{level:<14} after {time.monotonic() - began:.1f} s: {EFFECTS[level]}")
            before = level
    done.level, done.down_s = before, time.monotonic() - began


assert set(_ORDER) == set(LEVELS), "the levels are those of the platform"
