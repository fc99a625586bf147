"""Faults on request: what a venue or the way to it can do wrong, by seeded chance or by count.

A value below 1 is the chance that a frame suffers the fault; a whole number means that the next so
many frames do. Each connection has its own line, so one seed gives each the same faults whenever it
is connected. Frames are judged in order; at most one fault falls on a frame.

    drop        the frame is not sent
    duplicate   it is sent twice
    reorder     it is sent after the one behind it
    delay       it and all behind it wait for `delay_ms`
    garbage     something that is no trade is sent before it
    disconnect  the connection is cut before it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from k2.errors import Invalid, Reason
from servers.venue.frames import framed

KINDS = ("drop", "duplicate", "reorder", "delay", "garbage", "disconnect")
_GARBAGE = (
    b"",
    b"{",
    b"not json at all",
    b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT"}}',
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":"x","p":1e9,"q":[]}}',
    b'{"stream":"btcusdt@trade","data":null}',
    b'{"e":"trade","E":-1,"s":"","t":-5,"p":"NaN","q":"1e400","T":0,"m":"maybe","M":true}',
    b'{"stream":"nosuch@depth","data":{"e":"depthUpdate","s":"NOSUCH","b":[],"a":[]}}',
    b"[" * 2000,
)


@dataclass(frozen=True)
class Faults:
    """The faults asked for; none by default.

    Attributes:
        drop, duplicate, reorder, delay, garbage, disconnect: a chance below 1, or a count.
        delay_ms: how long a delay lasts.
        seed: of the chances.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    garbage: float = 0.0
    disconnect: float = 0.0
    delay_ms: int = 500
    seed: int = 1

    @property
    def any(self) -> bool:
        """Whether anything goes wrong at all."""
        return any(getattr(self, kind) for kind in KINDS)


def parse_faults(current: Faults, query: Mapping[str, str]) -> Faults:
    """Change `current` by the names and values of a request; `clear` alone resets all.

    Raises:
        Invalid: BAD_REQUEST for an unknown name or a value that it cannot have.
    """
    if "clear" in query:
        current = Faults(seed=current.seed, delay_ms=current.delay_ms)
    changes = {name: _value(name, text) for name, text in query.items() if name != "clear"}
    return replace(current, **changes)  # type: ignore[arg-type]  # whole for the whole ones


def _value(name: str, text: str) -> float | int:
    known = {known.name for known in fields(Faults)}
    try:
        value: float | int = float(text) if name in KINDS else int(text)
    except ValueError as error:
        raise Invalid(Reason.BAD_REQUEST, f"{name}: {text!r} is not a number") from error
    whole = value == value // 1 if value >= 1 else True
    if name not in known or not 0 <= value <= 1_000_000_000 or not whole:
        raise Invalid(
            Reason.BAD_REQUEST,
            f"{name}={text}: the faults are {', '.join(KINDS)}, each a chance below 1 or a whole"
            " number of frames; delay_ms and seed are whole numbers",
        )
    return value


@dataclass
class FaultLine:
    """The faults of one connection's frames.

    Attributes:
        faults: what was asked for.
        connection: number of the connection; with the seed, it makes the chances.
        counts: how often each fault happened.
    """

    faults: Faults
    connection: int
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def __post_init__(self) -> None:
        self.change(self.faults)
        self._held: list[bytes] = []
        self._held_until_us = 0
        self._behind: list[bytes] = []

    def change(self, faults: Faults) -> None:
        """Apply other faults from the next frame on; held frames stay held until their time."""
        self.faults = faults
        self._chance = np.random.default_rng((faults.seed, self.connection))
        self._left = {
            kind: int(getattr(faults, kind)) for kind in KINDS if getattr(faults, kind) >= 1
        }

    @property
    def busy(self) -> bool:
        """Whether frames must pass through here: faults are asked for, or frames are held."""
        return bool(self.faults.any or self._held or self._behind)

    def passed(self, frames: Sequence[bytes], now_us: int) -> tuple[list[bytes], bool]:
        """Return the frames to send now, and whether to cut the connection after them."""
        sent: list[bytes] = []
        if self._held and now_us >= self._held_until_us:
            sent, self._held = self._held, []
        for frame in frames:
            fault = self._fault()
            if fault is not None:
                self.counts[fault] += 1
            if fault == "disconnect":
                return sent, True
            line = self._held if self._held else sent
            if fault == "delay" and line is sent:
                self._held_until_us = now_us + self.faults.delay_ms * 1000
                line = self._held
            self._put(line, frame, fault)
        if not self.faults.any and self._behind:
            (self._held if self._held else sent).extend(self._behind)
            self._behind = []
        return sent, False

    def _put(self, line: list[bytes], frame: bytes, fault: str | None) -> None:
        if fault == "reorder":
            self._behind.append(frame)
            return
        if fault == "garbage":
            line.append(framed(_GARBAGE[int(self._chance.integers(len(_GARBAGE)))]))
        if fault != "drop":
            line.append(frame)
        if fault == "duplicate":
            line.append(frame)
        line.extend(self._behind)
        self._behind = []

    def _fault(self) -> str | None:
        for kind in KINDS:
            wanted = getattr(self.faults, kind)
            if wanted >= 1:
                if self._left.get(kind, 0) > 0:
                    self._left[kind] -= 1
                    return kind
            elif wanted > 0 and self._chance.random() < wanted:
                return kind
        return None
