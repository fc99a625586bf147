"""A process of K2 in the simulation: its clock, and every way it touches what is outside itself.

Each access pauses, so others run between any two of them, and is where the process may die, before
or after its effect, or stand still for minutes and go on as if nothing had happened.
"""

from k2.degrade.level import Level
from k2.degrade.policy import POLICIES
from k2.errors import Reason, Unavailable
from tests.sim.schedule import Killed

# At the end of 2099: what libraries stamp by the machine's clock is older. A day ends meanwhile.
EPOCH_US = 4_102_444_800_000_000 - 20_000_000
FREEZE_S = (2.0, 90.0)
STALL_S = (0.5, 20.0)
SKEW_S = 3600.0


class Process:
    """One process, through all its lives.

    Attributes:
        life: counts its lives; with the name, an identity that no other has.
        body: what runs in this life.
        refusal: why a life of it ended by itself.
        obeys: the policy that it was last given.
        mortal: whether it may crash or freeze just now.
        skew_max_s: how far its wall clock may be set wrong.
    """

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.life = 0
        self.task = None
        self.body = None
        self.refusal = None
        self.obeys = POLICIES[Level.NORMAL]
        self.mortal = True
        self.skew_max_s = SKEW_S
        self._skew_us = 0

    @property
    def identity(self):
        """Of this life."""
        return f"{self.name}.{self.life}"

    @property
    def alive(self):
        return self.task is not None and not self.task.done and not self.task.killed

    def start(self, body, after_s=0.0):
        """Live once more."""
        self.life += 1
        self.task = self.world.scheduler.spawn(self.identity, body, after_s)

    def beside(self, body):
        """Run something else in this life, as a thread does."""
        self.world.scheduler.spawn(f"{self.identity}+", body, within=self.task)

    # --- Clock ------------------------------------------------------------------------------------

    def now_us(self):
        """Wall time, which jumps."""
        return EPOCH_US + int(self.world.scheduler.now_s * 1e6) + self._skew_us

    def monotonic_s(self):
        return self.world.scheduler.now_s

    def sleep(self, seconds):
        self.world.scheduler.pause(seconds)

    def skew(self, seconds):
        """Set the wall clock wrong by so much."""
        self._skew_us = int(seconds * 1e6)

    # --- touching the world -----------------------------------------------------------------------

    def before(self, what):
        """Before an effect on the world, or a look at it."""
        world = self.world
        if self.task.killed:
            raise Killed
        world.note(self.identity, what)
        self._perhaps_die(what)
        if self.mortal and world.happens("freeze"):
            world.note(self.identity, "freezes")
            self.sleep(world.chance.uniform(*FREEZE_S))
        self.sleep(world.chance.exponential(world.swarm.latency_s))

    def after(self, what):
        """After it."""
        self._perhaps_die(what)

    def fail(self, fault, reason, what):
        """Perhaps refuse, as a part that is away does."""
        if self.world.happens(fault):
            self.world.note(self.identity, f"{what} fails")
            raise Unavailable(reason, f"{what} fails", retry_after_s=0.1)

    def ask_tape(self, what):
        """Before a request to the broker."""
        self.before(what)
        self.fail("tape.error", Reason.TAPE_UNAVAILABLE, what)

    def _perhaps_die(self, what):
        if self.mortal and self.world.happens("crash"):
            self.world.note(self.identity, f"dies at {what}")
            self.world.scheduler.kill(self.task)
            raise Killed


class Flag:
    """`threading.Event`, as far as K2 uses one to be stopped; waiting takes virtual time."""

    def __init__(self, process):
        self._process = process
        self._set = False

    def set(self):
        self._set = True

    def is_set(self):
        return self._set

    def wait(self, timeout=None):
        assert timeout is not None, "nobody waits for ever"
        if not self._set:
            self._process.sleep(timeout)
        return self._set
