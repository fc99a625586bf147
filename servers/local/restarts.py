"""When a process that died is started again, and when the stack gives up: pure."""

from __future__ import annotations

from dataclasses import dataclass

from k2 import limits


@dataclass(frozen=True)
class Deaths:
    """When a process died, of late.

    Attributes:
        at_s: monotonic seconds, oldest first; only those within `limits.RESTARTS_WINDOW_S`.
    """

    at_s: tuple[float, ...] = ()

    def add(self, now_s: float) -> Deaths:
        """One more, now."""
        recent = [at for at in self.at_s if now_s - at < limits.RESTARTS_WINDOW_S]
        return Deaths((*recent, now_s))

    @property
    def too_many(self) -> bool:
        """Whether starting it again makes no sense any more."""
        return len(self.at_s) >= limits.RESTARTS_MAX

    @property
    def pause_s(self) -> float:
        """How long to wait before the next start: longer each time it dies soon again."""
        pause = limits.RESTART_PAUSE_MIN_S * 2 ** max(0, len(self.at_s) - 1)
        return float(min(pause, limits.RESTART_PAUSE_MAX_S))
