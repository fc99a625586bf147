"""Plans a demonstration: its sections, how long each takes, and where the clock should stand.

Pure: the presenter's view asks what is due at a second; it never waits here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

TARGET_S = 720.0
TOLERANCE_S = 60.0
QUICK_S = 300.0
QUICK_TOLERANCE_S = 30.0


@dataclass(frozen=True)
class DemoPart:
    """One part of a demonstration.

    Attributes:
        number: 1 to 7 of a section; 0 of the opening, 8 of the closing.
        name: in lower case, without blanks.
        title: as the audience sees it.
        full_s, quick_s: its share of the 12 minutes, and of the 5.
    """

    number: int
    name: str
    title: str
    full_s: float
    quick_s: float

    def seconds(self, *, quick: bool) -> float:
        """Return its share of the time."""
        return self.quick_s if quick else self.full_s


OPENING = DemoPart(0, "opening", "Opening", 25, 10)
SECTIONS = (
    DemoPart(1, "positioning", "Where K2 stands", 45, 25),
    DemoPart(2, "streaming", "Live streaming", 115, 45),
    DemoPart(3, "storage", "Storage and time travel", 115, 45),
    DemoPart(4, "monitoring", "Monitoring", 110, 35),
    DemoPart(5, "resilience", "Resilience", 120, 65),
    DemoPart(6, "hybrid", "Hybrid queries", 115, 45),
    DemoPart(7, "cost", "Cost", 50, 20),
)
CLOSING = DemoPart(8, "closing", "Closing", 25, 10)


@dataclass(frozen=True)
class Slot:
    """A part at its place: it should begin and end at these seconds of the demonstration."""

    part: DemoPart
    begins_s: float
    ends_s: float


def slots(*, quick: bool, section: int | None = None) -> tuple[Slot, ...]:
    """Place the parts one after another.

    Args:
        quick: the five-minute form.
        section: only this one, without opening and closing.

    Raises:
        ValueError: there is no such section.
    """
    parts: tuple[DemoPart, ...] = (OPENING, *SECTIONS, CLOSING)
    if section is not None:
        parts = tuple(part for part in SECTIONS if part.number == section)
        if not parts:
            raise ValueError(f"there is no section {section}: they are 1 to {len(SECTIONS)}")
    ends = list(accumulate(part.seconds(quick=quick) for part in parts))
    begins = [0.0, *ends[:-1]]
    return tuple(map(Slot, parts, begins, ends))


def clock_line(slot: Slot, elapsed_s: float, total_s: float) -> str:
    """Say where the clock stands against the plan."""
    late_s = elapsed_s - slot.begins_s
    if abs(late_s) < 1:
        pace = "on time"
    else:
        pace = f"{abs(late_s):.0f} s {'behind' if late_s > 0 else 'ahead'}"
    return f"{minutes(elapsed_s)} of {minutes(total_s)}, {pace}"


def minutes(seconds: float) -> str:
    """Format seconds as minutes and seconds."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def due(*, quick: bool) -> tuple[float, float]:
    """Return how many seconds a demonstration should take, and by how many it may differ."""
    return (QUICK_S, QUICK_TOLERANCE_S) if quick else (TARGET_S, TOLERANCE_S)
