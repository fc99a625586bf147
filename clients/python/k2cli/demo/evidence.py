"""Holds what was measured for a claim, with its verdict and the command that shows it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

KEPT = "kept"
MISSED = "missed"
SHOWN = "shown"
ABSENT = "not part of this stack"
NOT_CLAIMED = "not claimed"


@dataclass(frozen=True)
class Claim:
    """A claim and what was measured for it at that moment.

    Attributes:
        what: the claim, with its target where it has one.
        figure: what was measured, with units and n.
        verdict: kept, missed, shown (a figure without a target), "not part of this stack" or
            "not claimed".
        command: what shows the figure again.
    """

    what: str
    figure: str
    verdict: str
    command: str


@dataclass
class Evidence:
    """What a section has measured.

    Attributes:
        claims: in the order of their measurement.
        lines: live output to show beside them.
        failures: what could not be measured, each as one line.
    """

    claims: list[Claim] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def judge(self, what: str, figure: str, ok: bool, command: str) -> None:
        """Add a claim that has a target: kept or missed."""
        self.claims.append(Claim(what, figure, KEPT if ok else MISSED, command))

    def show(self, what: str, figure: str, command: str) -> None:
        """Add a figure without a target."""
        self.claims.append(Claim(what, figure, SHOWN, command))

    def absent(self, what: str, why: str, command: str) -> None:
        """Add a claim about a part that this stack does not have."""
        self.claims.append(Claim(what, why, ABSENT, command))

    def refuse(self, what: str, why: str, command: str) -> None:
        """Add what is not claimed, and why."""
        self.claims.append(Claim(what, why, NOT_CLAIMED, command))


@dataclass(frozen=True)
class Latency:
    """Latencies of n calls, in milliseconds."""

    p50_ms: float
    p99_ms: float
    n: int

    def __str__(self) -> str:
        return f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, n = {self.n:,}"


def latency(took_ms: Sequence[float]) -> Latency:
    """Summarize latencies by the nearest-rank method: the p99 of fewer than 100 is the largest.

    Raises:
        ValueError: there are none.
    """
    if not took_ms:
        raise ValueError("no call was measured")
    ordered = sorted(took_ms)
    return Latency(_ranked(ordered, 0.5), _ranked(ordered, 0.99), len(ordered))


def _ranked(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def frame_of(trade: dict[str, object], time_us: int) -> str:
    """Write a trade as the venue's combined stream sends it: the base of the compression ratio.

    Args:
        trade: symbol, trade_id, price, quantity, side.
        time_us: of the trade.
    """
    symbol = str(trade["symbol"])
    maker = "true" if trade["side"] == "SELL" else "false"
    return (
        f'{{"stream":"{symbol.lower()}@trade","data":{{"e":"trade","E":{time_us},"s":"{symbol}",'
        f'"t":{trade["trade_id"]},"p":"{trade["price"]}","q":"{trade["quantity"]}",'
        f'"T":{time_us},"m":{maker},"M":true}}}}'
    )
