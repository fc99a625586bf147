"""When a process that died is started again, and when the stack gives up: pure."""

from __future__ import annotations

from dataclasses import dataclass

from k2 import limits


@dataclass(frozen=True)
class RestartBudget:
    """When a process died, of late.

    Attributes:
        at_s: monotonic seconds, oldest first; only those within `limits.RESTARTS_WINDOW_S`.
        fruitless: the last so many, however long ago, had no progress between them.
    """

    at_s: tuple[float, ...] = ()
    fruitless: int = 0

    def add(self, now_s: float, *, progressed: bool) -> RestartBudget:
        """One more, now, at the end of a life that made progress or not."""
        recent = [at for at in self.at_s if now_s - at < limits.RESTARTS_WINDOW_S]
        return RestartBudget((*recent, now_s), 1 if progressed else self.fruitless + 1)

    @property
    def too_many(self) -> bool:
        """Whether starting it again makes no sense any more."""
        return max(len(self.at_s), self.fruitless) >= limits.RESTARTS_MAX

    @property
    def summary(self) -> str:
        """How often, in words."""
        if len(self.at_s) >= limits.RESTARTS_MAX:
            return f"{len(self.at_s)} times in {limits.RESTARTS_WINDOW_S:.0f} s"
        return f"{self.fruitless} times and got nothing done in between"

    @property
    def pause_s(self) -> float:
        """How long to wait before the next start: longer each time it dies soon again."""
        pause = limits.RESTART_PAUSE_MIN_S * 2 ** max(0, len(self.at_s) - 1)
        return float(min(pause, limits.RESTART_PAUSE_MAX_S))
