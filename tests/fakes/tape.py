"""A tape in memory: what the real one does, as far as K2 relies on it, and its faults on request.

`tests/contract` runs one suite on this and on a real Kafka.

`away` is a broker that does not answer: nothing is read, what is sent waits in the queue. Records
leave the front by `remove_before` (retention) and the back by `truncate`.
"""

import threading
from dataclasses import dataclass, field

import numpy as np

from k2.errors import Data, Invalid, NotFound, Overloaded, Reason, Unavailable
from k2.market.events import Fault
from k2.market.ledger import check_gap
from k2.tape.compacted_topic import News
from k2.tape.consumer import RawBatch
from k2.tape.dead_letter_topic import Posted
from k2.tape.topics import TopicDescription


@dataclass
class Log:
    """One partition."""

    start: int = 0
    values: list = field(default_factory=list)
    keys: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    stamps: list = field(default_factory=list)

    @property
    def end(self):
        return self.start + len(self.values)


@dataclass
class Group:
    """Who shares the partitions: instance id → reader, and the offsets they reported."""

    members: dict = field(default_factory=dict)
    reported: dict = field(default_factory=dict)


class FakeTape:
    """A cluster with one trades topic, boards and dead letters.

    Args:
        topic, partitions: of the trades topic.
        clock: stamps records as the broker does; None: batches carry no append times.
    """

    def __init__(self, topic="trades", partitions=8, clock=None):
        self.topic = topic
        self.clock = clock
        self.cluster_id = "fake"
        self.topic_id = "1"
        self.logs = [Log() for _ in range(partitions)]
        self.boards = {}
        self.listeners = {}
        self.letters = []
        self.gaps = []
        self.groups = {}
        self.changed = threading.Condition()
        self._away = False

    @property
    def away(self):
        return self._away

    @away.setter
    def away(self, away):
        with self.changed:
            self._away = away
            self.changed.notify_all()

    def append(self, partition, *values, key=b"", headers=None):
        """Put records on a partition past any producer; the offset after them."""
        with self.changed:
            self.logs[partition].values.extend(values)
            self.logs[partition].keys.extend([key] * len(values))
            self.logs[partition].headers.extend([headers] * len(values))
            stamp = self.clock.now_us() if self.clock else None
            self.logs[partition].stamps.extend([stamp] * len(values))
            self.changed.notify_all()
            return self.logs[partition].end

    def batch(self, partition, offset, max_records):
        """The records of a partition from an offset on, as a reader gives them; None at the end."""
        log = self.logs[partition]
        first = offset - log.start
        values = log.values[first : first + max_records]
        if not values:
            return None
        end = first + len(values)
        offsets = np.arange(offset, offset + len(values), dtype=np.int64)
        stamps = np.array(log.stamps[first:end], dtype=np.int64) if self.clock else None
        after = offset + len(values)
        headers = log.headers[first:end]
        traced = [
            (offset + index, each["traceparent"].decode())
            for index, each in enumerate(headers)
            if each and "traceparent" in each
        ]
        return RawBatch(partition, offsets, values, after, headers, stamps, tuple(traced))

    def remove_before(self, partition, offset):
        log = self.logs[partition]
        gone = max(0, min(offset, log.end) - log.start)
        del log.values[:gone], log.keys[:gone], log.headers[:gone], log.stamps[:gone]
        log.start += gone

    def truncate(self, partition, end):
        log = self.logs[partition]
        keep = max(0, end - log.start)
        del log.values[keep:], log.keys[keep:], log.headers[keep:], log.stamps[keep:]

    def recreate(self, partitions=None):
        """Make the topic again: empty, with another id."""
        self.topic_id = str(int(self.topic_id) + 1)
        self.logs = [Log() for _ in range(partitions or len(self.logs))]

    def producer(self, queue_max=100_000):
        return FakeProducer(self, queue_max)

    def reader(self, start):
        return FakeReader(self, start)

    def joined(self, group, instance_id, on_assign, on_revoke):
        reader = FakeReader(self, {})
        reader.join(self.groups.setdefault(group, Group()), instance_id, on_assign, on_revoke)
        return reader

    def admin(self):
        return FakeAdmin(self)

    def board(self, topic):
        return FakeBoard(self, topic)

    def office(self):
        return FakeOffice(self)

    def gap_log(self):
        return FakeGapLog(self)

    def ask(self):
        if self._away:
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "the fake is away", retry_after_s=0.01)


class FakeAdmin:
    """`TapeAdmin`."""

    def __init__(self, tape):
        self._tape = tape

    def facts(self, topic):
        self._tape.ask()
        if topic != self._tape.topic:
            raise NotFound(Reason.UNKNOWN_TOPIC, f"topic {topic} does not exist")
        logs = self._tape.logs
        return TopicDescription(
            self._tape.cluster_id,
            topic,
            self._tape.topic_id,
            len(logs),
            tuple(log.start for log in logs),
            tuple(log.end for log in logs),
        )

    def log_ends(self, topic, partitions):
        self._tape.ask()
        return tuple(log.end for log in self._tape.logs[:partitions])

    def close(self):
        pass


class FakeProducer:
    """`TapeProducer`: acknowledgements arrive in `poll` and `flush`.

    `lands` bounds the records that are still acknowledged; None: all.
    """

    failure = None
    lands = None

    def __init__(self, tape, queue_max):
        self._tape = tape
        self._queue_max = queue_max
        self._queue = []

    def send(self, key, value, partition, headers=None, on_ack=None):
        if len(value) > 1024 * 1024:
            raise Invalid(Reason.LIMIT_OUT_OF_BOUNDS, "too large")
        if len(self._queue) >= self._queue_max:
            raise Overloaded(Reason.QUEUE_FULL, "full", retry_after_s=0.01)
        self._queue.append((key, value, partition, on_ack, headers))

    def poll(self, timeout_s=0.0):
        if self._tape.away:
            return 0
        most = len(self._queue) if self.lands is None else self.lands
        queue, self._queue = self._queue[:most], self._queue[most:]
        if self.lands is not None:
            self.lands -= len(queue)
        for key, value, partition, on_ack, headers in queue:
            offset = self._tape.append(partition, value, key=key, headers=headers) - 1
            if on_ack is not None:
                on_ack(offset, None)
        return len(queue)

    def depth(self):
        return len(self._queue)

    def flush(self, timeout_s):
        self.poll()
        return len(self._queue)

    def close(self):
        self.poll()
        queue, self._queue = self._queue, []
        for *_, on_ack, _headers in queue:
            if on_ack is not None:
                on_ack(None, Unavailable(Reason.TAPE_UNAVAILABLE, "purged"))


class FakeReader:
    """`TapeReader`, assigned or joined."""

    def __init__(self, tape, start):
        self._tape = tape
        self._positions = dict(start)
        self._paused = set()
        self._group = None
        self._rebalance = False

    def join(self, group, instance_id, on_assign, on_revoke):
        self._group, self._instance = group, instance_id
        self._on_assign, self._on_revoke = on_assign, on_revoke
        self._owned = None
        same = instance_id in group.members
        group.members[instance_id] = self
        for member in group.members.values():
            member._rebalance = member._rebalance or not same or member is self

    @property
    def positions(self):
        return dict(self._positions)

    @property
    def connected(self):
        return not self._tape.away

    def read(self, max_records=10_000, timeout_s=0.1):
        self._share()
        with self._tape.changed:
            self._tape.changed.wait_for(self._ready, timeout_s)
            return self._take(max_records) if self._ready() else []

    def pause(self, partitions):
        self._paused.update(partitions)

    def resume(self, partitions):
        self._paused.difference_update(partitions)

    def seek(self, positions):
        self._positions.update(positions)

    def report(self, positions):
        if self._group is not None:
            self._group.reported.update(positions)

    def close(self):
        pass

    def _share(self):
        if self._group is None or self._tape.away:
            return
        if self._group.members[self._instance] is not self:
            raise Data(Reason.WRITER_FENCED, "another member has this identity")
        if not self._rebalance:
            return
        self._rebalance = False
        if self._owned is not None:
            self._on_revoke(self._owned)
        names = sorted(self._group.members)
        mine, count = names.index(self._instance), len(self._tape.logs)
        share, more = divmod(count, len(names))
        first = mine * share + min(mine, more)
        self._owned = list(range(first, first + share + (mine < more)))
        self._positions = dict(self._on_assign(self._owned))
        self._paused.clear()

    def _ready(self):
        return not self._tape.away and any(
            self._tape.logs[partition].end != offset
            for partition, offset in self._positions.items()
            if partition not in self._paused
        )

    def _take(self, max_records):
        batches = []
        for partition, offset in sorted(self._positions.items()):
            log = self._tape.logs[partition]
            if partition in self._paused:
                continue
            if offset < log.start:
                raise Data(Reason.RETENTION_OVERTOOK, f"{partition} begins at {log.start}")
            if offset > log.end:
                raise Data(Reason.TAPE_TRUNCATED, f"{partition} ends at {log.end}")
            batch = self._tape.batch(partition, offset, max_records)
            if batch is not None:
                max_records -= len(batch)
                batches.append(batch)
                self._positions[partition] = batch.next_offset
        return batches


class FakeLogReader:
    """`LogReader`; `reads` counts the times that there was something to read."""

    def __init__(self, board):
        self._board = board
        self._reached = 0
        self._from_start = True
        self.reads = 0

    def advance(self):
        log = self._board.read_log()
        if len(log) < self._reached:
            self._reached, self._from_start = 0, True
        news = News(log[self._reached :], self._from_start)
        self.reads += bool(news.records)
        self._reached, self._from_start = len(log), False
        return news


class FakeBoard:
    """`CompactedTopic`: documents live in the tape, so every board of a topic sees them."""

    def __init__(self, tape, topic):
        self.skipped = 0
        self._tape = tape
        self._log = tape.boards.setdefault(topic, [])
        self._listeners = tape.listeners.setdefault(topic, [])

    def put(self, key, value, wait_s=None):
        if wait_s is not None:
            self._tape.ask()
        with self._tape.changed:
            self._log.append((key, value))
            self._tape.changed.notify_all()
        for told in self._listeners:
            told(key)

    def listen(self, listener):
        self._listeners.append(listener)

    def read_log(self):
        self._tape.ask()
        return list(self._log)

    def log_reader(self):
        return FakeLogReader(self)

    def skip(self, key, why):
        self.skipped += 1

    def read_all(self):
        self._tape.ask()
        return self.current()

    def current_to_end(self):
        return self.read_all()

    def start(self):
        pass

    def current(self):
        documents = {}
        for key, value in self._log:
            documents.pop(key, None)
            if value is not None:
                documents[key] = value
        return documents

    @property
    def version(self):
        return len(self._log)

    def wait_change(self, version, timeout_s):
        with self._tape.changed:
            self._tape.changed.wait_for(lambda: self.version > version, timeout_s)
            return self.version

    def close(self):
        pass


class FakeOffice:
    """`DeadLetterOffice`."""

    def __init__(self, tape):
        self._tape = tape

    def publish(self, letters, wait_s=10.0):
        self._tape.ask()
        self._tape.letters.extend(letters)

    def read_all(self):
        return (posted.letter for posted in self.read_posted())

    def read_posted(self, start=0):
        self._tape.ask()
        letters = enumerate(list(self._tape.letters))
        return iter([Posted(offset, letter) for offset, letter in letters if offset >= start])

    def close(self):
        pass


class FakeGapLog:
    """`GapLog`; `refusing` is a broker that is away for it alone."""

    def __init__(self, tape):
        self._tape = tape
        self.refusing = False
        self._reached = 0

    def publish(self, events, wait_s=10.0):
        for event in events:
            if check_gap(event) is not Fault.NONE:
                raise Invalid(Reason.BAD_REQUEST, f"{event}")
        self._ask()
        self._tape.gaps.extend(events)

    def advance(self):
        self._ask()
        new, self._reached = self._tape.gaps[self._reached :], len(self._tape.gaps)
        return new

    def close(self):
        pass

    def _ask(self):
        self._tape.ask()
        if self.refusing:
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "the ledger is away", retry_after_s=0.01)
