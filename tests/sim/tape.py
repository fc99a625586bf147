"""The tape of the simulation: `tests/fakes/tape.py`, remembered for ever, reached by processes.

The log is `FakeTape`'s, which a contract suite holds to the real Kafka. Here each process reaches
it through its own connections: they pause, find the broker away, fetch little or nothing, lose
acknowledgements (then the producer sends again), and are told at any moment that the group has
given their partitions to another, at first without their knowing.
"""

from k2.errors import Overloaded, Reason, Unavailable
from tests.fakes.tape import FakeAdmin, FakeBoard, FakeOffice, FakeReader, FakeTape
from tests.sim.violation import require

IDLE_S = (0.05, 1.0)
SLOW_RECORDS = 2


class SimTape(FakeTape):
    """The log, and everything that was ever appended to it.

    Attributes:
        on_append: called with partition, value and append time of every record, in the order of
            its partition, but for restored ones.
        owners: which writer the group gives each partition to.
        deaf: which writer does not hear of it, until the next time.
    """

    def __init__(self, partitions, on_append, clock):
        super().__init__("trades", partitions, clock)
        self.on_append = on_append
        self.generation = 0
        self.owners = {}
        self.deaf = None

    def append(self, partition, *values, key=b""):
        for value in values:
            self.on_append(partition, value, self.clock.now_us())
        return super().append(partition, *values, key=key)

    def restore(self, partition, values):
        """Put records back that were here before."""
        super().append(partition, *values)

    def share(self, owners, deaf=None):
        """The group gives its partitions to these, one owner for each; one may not hear of it."""
        self.deaf = deaf
        self.owners = dict(enumerate(owners))
        self.generation += 1


class Reader(FakeReader):
    """`TapeReader` of a process."""

    def __init__(self, process, tape, start):
        super().__init__(tape, start)
        self._process = process

    def read(self, max_records=10_000, timeout_s=0.1):
        process, world = self._process, self._process.world
        process.before("read")
        if self._tape.away or world.happens("tape.silent"):
            process.sleep(world.chance.uniform(*IDLE_S))
            return []
        if world.happens("tape.short"):
            max_records = int(world.chance.integers(1, 20))
        batches = super().read(max_records, 0)
        if not batches:
            process.sleep(world.chance.uniform(*IDLE_S) if timeout_s else 0.0)
        return batches


class Member(Reader):
    """`TapeReader` of a writer that shares the partitions with others."""

    def __init__(self, process, tape, on_assign, on_revoke):
        super().__init__(process, tape, {})
        self._on_assign, self._on_revoke = on_assign, on_revoke
        self._generation = -1
        self._owned = []

    def _share(self):
        """Hear of a new sharing only now, long after it was made perhaps."""
        while self._generation != self._tape.generation:
            if self._owned and self._tape.deaf == self._process.name:
                return  # it goes on reading what is no longer its own
            self._generation = self._tape.generation
            if self._owned:
                self._on_revoke(self._owned)
            self._positions, self._paused = {}, set()
            name = self._process.name
            self._owned = [p for p, owner in self._tape.owners.items() if owner == name]
            self._positions = dict(self._on_assign(self._owned)) if self._owned else {}

    def read(self, max_records=10_000, timeout_s=0.1):
        """Read, now and then little; nothing of what a level has paused since it was assigned."""
        if self._process.world.writers_slow:
            max_records = min(max_records, SLOW_RECORDS)
        generation, policy = self._generation, self._process.obeys
        batches = super().read(max_records, timeout_s)
        if generation == self._generation:
            for batch in batches:
                paused = batch.partition not in policy.tiers  # each tier has one
                require(not paused, "a paused partition is read", batch.partition, policy.summary)
        return batches

    def report(self, positions):
        self._process.before("report")


class Producer:
    """`TapeProducer`: what it has taken is appended in order, at least once."""

    failure = None

    def __init__(self, process, tape, queue_max):
        self._process = process
        self._tape = tape
        self._queue_max = queue_max
        self._queue = []

    def send(self, key, value, partition, headers=None, on_ack=None):
        if len(self._queue) >= self._queue_max:
            raise Overloaded(Reason.QUEUE_FULL, "full", retry_after_s=0.01)
        self._queue.append((key, value, partition, on_ack))

    def poll(self, timeout_s=0.0):
        """Send what is there; an acknowledgement that is lost has the record sent again."""
        world, served = self._process.world, 0
        while self._queue and not self._tape.away:
            key, value, partition, on_ack = self._queue[0]
            if world.happens("poison"):
                self._tape.append(partition, world.poison(value))
            if world.happens("garbage.schema"):
                self._tape.append(partition, *world.flood(value))
            if world.happens("times.absurd"):
                self._tape.append(partition, world.absurd(value), key=key)
            if world.happens("misplaced"):
                self._tape.append((partition + 1) % len(self._tape.logs), value, key=key)
            offset = self._tape.append(partition, value, key=key) - 1
            if world.happens("tape.ack_lost"):
                world.note(self._process.identity, "an acknowledgement is lost")
                break
            del self._queue[0]
            served += 1
            if on_ack is not None:
                on_ack(offset, None)
        return served

    def depth(self):
        return len(self._queue)


class Admin(FakeAdmin):
    """`TapeAdmin` of a process."""

    def __init__(self, process, tape):
        super().__init__(tape)
        self._process = process

    def facts(self, topic):
        self._process.ask_tape("ask for the topic")
        return super().facts(topic)

    def log_ends(self, topic, partitions):
        self._process.ask_tape("ask for the ends")
        return super().log_ends(topic, partitions)


class Board(FakeBoard):
    """`CompactedTopic` of a process."""

    def __init__(self, process, tape, topic):
        super().__init__(tape, topic)
        self._process = process

    def put(self, key, value, wait_s=None):
        if wait_s is not None:
            self._process.ask_tape("put a notice")
        elif self._tape.away:
            return  # taken, and lost with the process
        super().put(key, value, wait_s)
        self._process.after("put a notice")

    def read_log(self):
        self._process.ask_tape("read a board")
        return super().read_log()

    def read_all(self):
        self._process.ask_tape("read a board")
        return super().read_all()


class Office(FakeOffice):
    """`DeadLetterOffice` of a process: letters may be acknowledged in part, and be sent again."""

    def __init__(self, process, tape):
        super().__init__(tape)
        self._process = process

    def publish(self, letters, wait_s=10.0):
        process, world = self._process, self._process.world
        process.before("publish letters")
        self._tape.ask()
        if world.happens("tape.error"):
            some = int(world.chance.integers(0, len(letters)))
            self._post(list(letters)[:some])
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "letters fail", retry_after_s=0.1)
        self._post(letters)
        process.after("publish letters")

    def _post(self, letters):
        self._process.world.post(letters)


class Registry:
    """What schema ids mean, when it can be asked."""

    def __init__(self, process, known):
        self._process = process
        self._known = known

    def schema(self, schema_id):
        self._process.before("ask the registry")
        if self._process.world.registry_away:
            raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "it is away", retry_after_s=0.1)
        self._process.fail("registry.away", Reason.REGISTRY_UNAVAILABLE, "ask the registry")
        return self._known[schema_id]

    def remembers(self, schema_id):
        return False
