"""The platform's level in a world: what presses, an operator's word, and how the level may move.

The level follows the lag of the writers, by K2's own scale, and whatever a person injects. A writer
asks for it in its own loop; from then on it reads nothing of a tier that the level sheds.
"""

from k2.degrade.level import Level, LevelState, Tuning
from k2.degrade.platform import Levels
from k2.degrade.signals import Scale, pressure
from tests.sim.violation import require

TICK_S = 0.25
TUNING = Tuning(confirm_s=0.5, dwell_s=2.0)
LAG = Scale(4.0, 16.0)  # the histories are short


class Degradation:
    """See the module.

    Attributes:
        injected: a pressure; 0 without one.
        override: an operator's level; None without one.
        pumps: of the writers that live, by name.
        reached: every level that was obeyed.
    """

    def __init__(self, world):
        self.world = world
        self.injected = 0.0
        self.override = None
        self.pumps = {}
        self.reached = set()
        self._state = LevelState()
        self._changed_s = 0.0

    def run(self):
        """Move the level until the run ends."""
        scheduler = self.world.scheduler
        while True:
            scheduler.pause(TICK_S)
            lag_s = max((p.stats.lag_s(scheduler.now_s) for p in self.pumps.values()), default=0.0)
            pressed = max(self.injected, pressure(lag_s, LAG))
            before = self._state.level
            self._state = self.world.parts.step(self._state, pressed, scheduler.now_s, TUNING)
            if self._state.level is not before:
                self._moves(before, self._state.level, pressed)

    def _moves(self, before, after, pressed):
        """It rises only under pressure, and falls one step at a time, each after a dwell."""
        now_s = self.world.scheduler.now_s
        self.world.note("level", f"{before.name} to {after.name}")
        if after > before:
            entry = TUNING.entries[after - 1]
            require(pressed >= entry, "a level rose without pressure", after.name, pressed)
        else:
            calm_s = now_s - self._changed_s
            require(after == before - 1, "a level fell by more than a step", before, after)
            require(calm_s >= TUNING.dwell_s, "a level fell before its dwell", before, calm_s)
        self._changed_s = now_s

    def levels_of(self, process):
        """What a process obeys; it is remembered that it knows."""

        def levels():
            told = Levels(platform=self._state.level, override=self.override)
            process.obeys = told.policy
            self.reached.add(told.effective)
            return told

        return levels

    def override_once(self, seconds):
        """An operator sets a level for so long."""
        self.override = Level(int(self.world.chance.integers(len(Level))))
        self.world.note("operator", f"sets {self.override.name}")
        self.world.scheduler.pause(seconds)
        self.override = None

    def press_once(self, seconds):
        """A person injects a pressure for so long."""
        self.injected = float(self.world.chance.uniform(0.3, 1.0))
        self.world.scheduler.pause(seconds)
        self.injected = 0.0

    def end(self):
        """Nothing presses any more."""
        self.injected, self.override = 0.0, None

    @property
    def rests(self):
        """Whether all is as it is without pressure."""
        return self._state.level is Level.NORMAL and self.override is None
