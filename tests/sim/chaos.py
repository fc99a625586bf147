"""Whatever is done to a world from outside, now and then, in tasks of their own."""

from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import SetSnapshotRefUpdate

from k2 import limits
from k2.errors import K2Error, Reason
from k2.feed.gaps.backfill_request import FillRequest
from k2.lake.iceberg.tables import TRADES
from k2.market.instrument import Instrument
from k2.tape import topics
from tests.sim.backfill import EXCHANGE
from tests.sim.maintainer import maintain_once
from tests.sim.process import Process
from tests.sim.tape import Board

AWAY_S = (0.5, 15.0)
AWAY_WITH_IT = 0.7
TAGS_MAX = 2
REPEATED_MAX = 4
RESTORED = 0.5  # of the records of a topic that was made again
ASKED_MAX = 40  # ids


class Chaos:
    """See the module.

    Attributes:
        struck: the partition that a disaster struck; None without one.
    """

    def __init__(self, world):
        self.world = world
        self.struck = None
        self._tasks = []

    def begin(self):
        """Start everything that the swarm has."""
        deeds = {
            "rebalance": self._rebalance,
            "tape.away": lambda: self._away(self.world.tape, "away"),
            "catalog.away": lambda: self._away(self.world, "catalog_away"),
            "registry.outage": lambda: self._away(self.world, "registry_away"),
            "disk.full": lambda: self._away(self.world.store, "full"),
            "clock.jump": self._jump,
            "retention": self._retain,
            "power.loss": self._lose_power,
            "maintenance": self._ask_for_maintenance,
            "tag": self._tag,
            "backfill": self._backfill,
            "letters": self._repeat_letters,
            "schema.newer": self._write_by_a_new_schema,
            "venue.reset": self.world.venue.begin_ids_again,
            "writer.slow": lambda: self._away(self.world, "writers_slow"),
            "pressure": lambda: self.world.degradation.press_once(self._a_while()),
            "override": lambda: self.world.degradation.override_once(self._a_while()),
        }
        for name, every_s in self.world.swarm.every_s.items():
            self._spawn(name, deeds[name], every_s)
        if self.world.swarm.disaster:
            at_s = self.world.chance.uniform(0.5, 0.9) * self.world.swarm.seconds
            scheduler = self.world.scheduler
            self._tasks.append(scheduler.spawn("disaster", self._strike, at_s))

    def end(self):
        """Stop, and put right what can be put right."""
        for task in self._tasks:
            self.world.scheduler.kill(task)
        world = self.world
        world.tape.away = world.catalog_away = world.registry_away = world.store.full = False
        world.writers_slow = False
        world.degradation.end()

    def _spawn(self, name, deed, every_s):
        world = self.world

        def body():
            while True:
                world.scheduler.pause(world.chance.exponential(every_s))
                world.note("chaos", name)
                deed()

        self._tasks.append(world.scheduler.spawn(name, body))

    def _a_while(self):
        return self.world.chance.uniform(*AWAY_S)

    def _away(self, what, name):
        setattr(what, name, True)
        self.world.scheduler.pause(self._a_while())
        setattr(what, name, False)

    def _rebalance(self):
        world, names = self.world, [process.name for process in self.world.writers]
        owners = [str(name) for name in world.chance.choice(names, len(world.tape.logs))]
        deaf = str(world.chance.choice(names)) if world.happens("tape.deaf") else None
        world.tape.share(owners, deaf)

    def _jump(self):
        processes = self.world.processes
        process = processes[int(self.world.chance.integers(len(processes)))]
        process.skew(self.world.chance.uniform(-process.skew_max_s, process.skew_max_s))

    def _write_by_a_new_schema(self):
        """Feeds of a newer version take over; who has not read by its schema yet may not ask."""
        self.world.register_newer()
        if self.world.chance.random() < AWAY_WITH_IT:
            self._away(self.world, "registry_away")

    def _ask_for_maintenance(self):
        """By a process that ends; one at a time."""
        world = self.world
        if not world.asked.alive:
            world.asked.start(lambda: maintain_once(world.asked, world.parts))

    def _tag(self):
        """Name a snapshot that is kept, so that it is kept for ever."""
        world, oracle = self.world, self.world.oracle
        table = world.metastore.load_table(TRADES)
        kept = [one for one in oracle.snapshots if oracle.keeps(one.snapshot_id)]
        if kept and len(oracle.tagged) < TAGS_MAX:
            chosen = kept[int(world.chance.integers(len(kept)))].snapshot_id
            name = SetSnapshotRefUpdate(
                ref_name=f"tag{len(oracle.tagged)}",
                type=SnapshotRefType.TAG,
                snapshot_id=chosen,
                max_ref_age_ms=None,
                max_snapshot_age_ms=None,
                min_snapshots_to_keep=None,
            )
            reply = world.metastore.commit_table(table, (), (name,))
            oracle.tagged.add(chosen)
            oracle.landed(reply.metadata, reply.metadata_location)

    def _repeat_letters(self):
        """A writer that stood still for long publishes letters that others published meanwhile."""
        world, letters = self.world, self.world.tape.letters
        if letters and not world.tape.away:
            at = sorted(world.chance.integers(0, len(letters), REPEATED_MAX).tolist())
            world.post([letters[one] for one in at])

    def _retain(self):
        """Retention removes what is committed, or some of it."""
        for partition, position in enumerate(self.world.oracle.positions):
            self.world.tape.remove_before(
                partition, int(self.world.chance.integers(0, position + 1))
            )

    def _lose_power(self):
        for process in [*self.world.processes, self.world.asked]:
            if process.alive:
                self.world.scheduler.kill(process.task)
        self.world.store.lose_power()

    def _backfill(self):
        """Somebody asks for a range of ids again, whether it is missing or not."""
        world, process = self.world, Process(self.world, "person")
        symbol = str(world.chance.choice(world.venue.symbols))
        printed = sorted(world.venue.printed[symbol])
        if not printed:
            return
        first, count = int(world.chance.choice(printed)), int(world.chance.integers(1, ASKED_MAX))
        last, now_us = min(first + count - 1, printed[-1]), process.now_us()
        request = FillRequest(Instrument(EXCHANGE, symbol), first, last, now_us)
        process.mortal = False
        process.task = world.scheduler.current
        try:
            board = Board(process, world.tape, topics.BACKFILLS)
            board.put(request.key, request.document(), limits.BOARD_WAIT_S)
        except K2Error:
            world.note("chaos", "the request fails")

    def _strike(self):
        """The tape loses records for good: truncated, made again, or overtaken by retention."""
        world, tape, disaster = self.world, self.world.tape, self.world.swarm.disaster
        positions = world.oracle.positions
        truncatable = [p for p, log in enumerate(tape.logs) if positions[p] > log.start]
        waiting = [p for p, log in enumerate(tape.logs) if positions[p] < log.end]
        possible = {"truncated": truncatable, "recreated": truncatable, "overtaken": waiting}
        if not possible[disaster]:
            return
        self.struck = int(world.chance.choice(possible[disaster]))
        self._silence()
        world.note("chaos", f"disaster: {disaster} on {self.struck}")
        world.strike()
        if disaster == "recreated":
            before = tape.logs
            tape.recreate()
            self._restore(before, positions)
            world.refusals |= {Reason.TOPIC_RECREATED, Reason.TAPE_TRUNCATED}
        elif disaster == "truncated":
            log = tape.logs[self.struck]
            end = int(world.chance.integers(log.start, positions[self.struck]))
            tape.truncate(self.struck, end)
            world.refusals |= {Reason.TAPE_TRUNCATED}
        else:
            tape.remove_before(self.struck, tape.logs[self.struck].end)
            world.refusals |= {Reason.RETENTION_OVERTOOK}

    def _restore(self, logs, positions):
        """Some records of before are there again; fewer than what was read of each partition."""
        for partition, log in enumerate(logs):
            back = [one for one in log.values if self.world.chance.random() < RESTORED]
            self.world.tape.restore(partition, back[: max(0, positions[partition] - 1)])

    def _silence(self):
        """Nothing is printed on the tape any more: offsets that are used again show nothing."""
        self.world.venue.open = False
        for task in self._tasks:
            if task is not self.world.scheduler.current:
                self.world.scheduler.kill(task)
        for process in self.world.feeds:
            if process.alive:
                self.world.scheduler.kill(process.task)
