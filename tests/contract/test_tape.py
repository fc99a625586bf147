"""What K2 relies on of a tape, held against the fake and against a real Kafka."""

import threading
from itertools import count

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from k2.errors import Data, Invalid, NotFound, Overloaded, Reason
from k2.market.events import Fault
from k2.market.gaps import Cause, GapEvent, GapState
from k2.market.instrument import Instrument
from k2.market.schema import GAP, avro_schema
from k2.settings import TapeSettings
from k2.tape import topics
from k2.tape.board import Board
from k2.tape.consumer import TapeReader
from k2.tape.dead_letters import DeadLetter, DeadLetterOffice
from k2.tape.gap_log import GapLog
from k2.tape.producer import TapeProducer
from tests.eventually import eventually
from tests.fakes.tape import FakeTape

_numbers = count()


class NoRegistry:
    """Deployment of topics alone; every id means a gap event."""

    def register(self, subject, schema):
        return 1

    def schema(self, schema_id):
        return avro_schema(GAP)


class RealTape:
    """The real parts behind the fake's names; each test has a topic of its own."""

    def __init__(self, bootstrap, **given):
        name = f"contract.{next(_numbers)}"
        self.settings = TapeSettings(bootstrap=bootstrap, topic=name, **given)
        self.topic = name
        self._opened = []
        topics.deploy(self.settings, NoRegistry())

    def producer(self, queue_max=100_000):
        return self.keep(TapeProducer(self.settings, queue_max))

    def reader(self, start):
        return self.keep(TapeReader.assigned(self.settings, start))

    def joined(self, group, instance_id, on_assign, on_revoke):
        group = f"{self.topic}.{group}"
        return self.keep(TapeReader.joined(self.settings, group, instance_id, on_assign, on_revoke))

    def admin(self):
        return self.keep(topics.TapeAdmin(self.settings.bootstrap))

    def board(self, topic):
        return self.keep(Board(self.settings.bootstrap, topic))

    def office(self):
        return self.keep(DeadLetterOffice(self.settings.bootstrap))

    def gap_log(self):
        return self.keep(GapLog(self.settings.bootstrap, NoRegistry()))

    def remove_before(self, partition, offset):
        admin = AdminClient({"bootstrap.servers": self.settings.bootstrap})
        for future in admin.delete_records(
            [TopicPartition(self.topic, partition, offset)]
        ).values():
            future.result(10)

    def close(self):
        for part in reversed(self._opened):
            part.close()

    def keep(self, part):
        self._opened.append(part)
        return part


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def tape(request):
    if request.param == "fake":
        yield FakeTape()
        return
    real = RealTape(request.getfixturevalue("broker"))
    yield real
    real.close()


@pytest.fixture
def key():
    """A board key that no other test uses: boards are shared by the whole broker."""
    return f"contract-{next(_numbers)}"


def send(tape, partition, *values):
    """Send and wait for the acknowledgements; the offsets."""
    producer = tape.producer()
    offsets = []
    for value in values:
        producer.send(b"X:Y", value, partition, None, lambda offset, error: offsets.append(offset))
    assert producer.flush(10) == 0
    producer.close()
    return offsets


def read(reader, total, timeout_s=10):
    """Values by partition, once `total` records came."""
    seen = {}

    def enough():
        for batch in reader.read(1000, 0.05):
            assert batch.offset.tolist() == sorted(batch.offset.tolist())
            assert batch.next_offset == batch.offset[-1] + 1
            seen.setdefault(batch.partition, []).extend(batch.values)
        return sum(map(len, seen.values())) >= total

    eventually(enough, timeout_s)
    return seen


def failure_of(reader):
    """The error that reading ends in."""

    def failed():
        try:
            reader.read(10, 0.05)
        except Data as error:
            return error
        return None

    return eventually(failed)


# --- producing and reading ----------------------------------------------------------------------


def test_what_is_sent_is_read_in_order_from_where_it_was_acknowledged(tape):
    assert send(tape, 3, b"a", b"b") == [0, 1]
    assert send(tape, 3, b"c") == [2]
    assert send(tape, 5, b"d") == [0]

    assert read(tape.reader({3: 0, 5: 0}), 4) == {3: [b"a", b"b", b"c"], 5: [b"d"]}
    assert read(tape.reader({3: 2}), 1) == {3: [b"c"]}


def test_reading_nothing_returns_nothing(tape):
    assert tape.reader({0: 0}).read(10, 0.05) == []


def test_positions_follow_what_was_read(tape):
    send(tape, 1, b"a", b"b")
    reader = tape.reader({0: 0, 1: 0})
    read(reader, 2)
    assert reader.positions == {0: 0, 1: 2}


def test_a_reader_returns_at_once_what_is_there(tape):
    reader = tape.reader({0: 0})
    send(tape, 0, b"a")
    came = threading.Event()

    def wait():
        if reader.read(1000, 30):
            came.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert came.wait(10), "it waited for more"
    thread.join()


def test_ends_cover_what_was_acknowledged(tape):
    send(tape, 2, b"a", b"b")
    admin = tape.admin()
    assert admin.log_ends(tape.topic, 8) == (0, 0, 2, 0, 0, 0, 0, 0)
    send(tape, 7, b"c")
    assert admin.log_ends(tape.topic, 8) == (0, 0, 2, 0, 0, 0, 0, 1)


def test_facts_say_where_the_log_begins_and_ends(tape):
    send(tape, 2, b"a", b"b", b"c")
    tape.remove_before(2, 1)
    facts = tape.admin().facts(tape.topic)
    assert facts.partitions == 8
    assert facts.log_start == (0, 0, 1, 0, 0, 0, 0, 0)
    assert facts.log_end == (0, 0, 3, 0, 0, 0, 0, 0)
    assert facts.topic_id
    assert facts.cluster_id


def test_facts_of_a_topic_that_is_not_there(tape):
    with pytest.raises(NotFound):
        tape.admin().facts("no.such.topic")


def test_a_full_queue_is_an_error_that_passes(tape):
    producer = tape.producer(queue_max=10)
    acknowledged = []
    for _ in range(10):
        producer.send(b"k", b"v", 0, None, lambda offset, error: acknowledged.append(offset))
    with pytest.raises(Overloaded) as caught:
        producer.send(b"k", b"v", 0)
    assert caught.value.reason == Reason.QUEUE_FULL
    assert producer.depth() == 10
    eventually(lambda: producer.poll(0.1) is not None and len(acknowledged) == 10)
    producer.send(b"k", b"v", 0, None, lambda offset, error: acknowledged.append(offset))
    assert producer.flush(10) == 0
    assert acknowledged == list(range(11))


def test_a_record_that_is_too_large_is_refused(tape):
    with pytest.raises(Invalid):
        tape.producer().send(b"k", bytes(1024 * 1024 + 1), 0)


# --- positions ----------------------------------------------------------------------------------


def test_a_paused_partition_stands_still_and_goes_on_where_it_stopped(tape):
    send(tape, 0, b"a", b"b")
    reader = tape.reader({0: 0, 1: 0})
    assert read(reader, 2) == {0: [b"a", b"b"]}
    reader.pause([0])
    send(tape, 0, b"c")
    send(tape, 1, b"x")
    assert read(reader, 1) == {1: [b"x"]}
    assert reader.read(10, 0.2) == []
    reader.resume([0])
    assert read(reader, 1) == {0: [b"c"]}


def test_pausing_keeps_what_was_fetched_for_later(tape):
    send(tape, 0, *[b"%d" % number for number in range(1000)])
    reader = tape.reader({0: 0})
    (first,) = eventually(lambda: reader.read(10, 1))
    reader.pause([0])
    assert reader.read(1000, 0.2) == []
    reader.resume([0])
    rest = read(reader, 1000 - len(first))
    assert first.values + rest[0] == [b"%d" % number for number in range(1000)]


def test_seeking_reads_again(tape):
    send(tape, 0, b"a", b"b", b"c")
    send(tape, 1, b"x")
    reader = tape.reader({0: 0, 1: 0})
    read(reader, 4)
    reader.seek({0: 1})
    assert reader.positions[0] == 1
    assert read(reader, 2) == {0: [b"b", b"c"]}


def test_seeking_before_anything_was_read(tape):
    send(tape, 0, b"a", b"b", b"c")
    reader = tape.reader({0: 0})
    reader.seek({0: 2})
    assert read(reader, 1) == {0: [b"c"]}


def test_seeking_what_is_paused(tape):
    send(tape, 0, b"a", b"b", b"c")
    reader = tape.reader({0: 0})
    read(reader, 3)
    reader.pause([0])
    reader.seek({0: 1})
    assert reader.read(10, 0.2) == []
    reader.resume([0])
    assert read(reader, 2) == {0: [b"b", b"c"]}


def test_a_position_that_retention_overtook_is_named(tape):
    send(tape, 4, b"a", b"b", b"c")
    tape.remove_before(4, 2)
    assert failure_of(tape.reader({4: 1})).reason == Reason.RETENTION_OVERTOOK


def test_a_position_beyond_the_end_is_named(tape):
    send(tape, 4, b"a")
    error = failure_of(tape.reader({4: 9}))
    assert error.reason == Reason.TAPE_TRUNCATED


def test_other_partitions_are_read_before_a_lost_position_fails(tape):
    send(tape, 4, b"a")
    assert read(tape.reader({4: 1}), 0) == {}
    assert read(tape.reader({4: 0, 5: 0}), 1) == {4: [b"a"]}


# --- groups -------------------------------------------------------------------------------------


def test_a_member_reads_from_where_it_says_and_not_from_what_the_group_knows(tape):
    send(tape, 0, b"a", b"b", b"c")
    first = tape.joined("g", "writer-1", lambda given: dict.fromkeys(given, 0), lambda taken: None)
    assert read(first, 3) == {0: [b"a", b"b", b"c"]}
    first.report({0: 3})
    first.close()

    assigned = []

    def start_at_one(given):
        assigned.extend(given)
        return {partition: 1 if partition == 0 else 0 for partition in given}

    second = tape.joined("g", "writer-1", start_at_one, lambda taken: None)
    assert read(second, 2) == {0: [b"b", b"c"]}
    assert assigned == list(range(8))


def test_a_second_member_with_the_same_identity_ends_the_first(tape):
    def everything(given):
        return dict.fromkeys(given, 0)

    first = tape.joined("g", "writer-1", everything, lambda taken: None)
    send(tape, 0, b"a")
    read(first, 1)
    second = tape.joined("g", "writer-1", everything, lambda taken: None)
    assert read(second, 1) == {0: [b"a"]}
    assert failure_of(first).reason == Reason.WRITER_FENCED


def test_members_share_the_partitions(tape):
    owned = {"a": set(), "b": set()}

    def member(name):
        def given(partitions):
            owned[name].update(partitions)
            return dict.fromkeys(partitions, 0)

        return tape.joined("g", name, given, owned[name].difference_update)

    first = member("a")
    eventually(lambda: first.read(10, 0.05) == [] and len(owned["a"]) == 8)
    second = member("b")

    def shared():
        first.read(10, 0.05)
        second.read(10, 0.05)
        return len(owned["a"]) == 4 and len(owned["b"]) == 4

    eventually(shared, 20)
    assert owned["a"] | owned["b"] == set(range(8))


def test_what_on_assign_raises_ends_the_read(tape):
    def refuse(given):
        raise Data(Reason.TOPIC_RECREATED, "not the topic the lake knows")

    reader = tape.joined("g", "writer-1", refuse, lambda taken: None)
    assert failure_of(reader).reason == Reason.TOPIC_RECREATED


# --- boards -------------------------------------------------------------------------------------


def test_a_board_keeps_the_newest_document_of_a_key(tape, key):
    board = tape.board(topics.HIGH_WATER)
    board.put(key, {"id": 1}, wait_s=10)
    board.put(key, {"id": 2}, wait_s=10)
    board.put(f"{key}-gone", {"id": 3}, wait_s=10)
    board.put(f"{key}-gone", None, wait_s=10)
    documents = board.read_all()
    assert documents[key] == {"id": 2}
    assert f"{key}-gone" not in documents
    assert [value for name, value in board.read_log() if name == key] == [{"id": 1}, {"id": 2}]


def test_a_board_is_followed(tape, key):
    writer, follower = tape.board(topics.HIGH_WATER), tape.board(topics.HIGH_WATER)
    writer.put(key, {"id": 1}, wait_s=10)
    assert follower.current()[key] == {"id": 1}
    version = follower.version
    writer.put(key, {"id": 2})
    assert follower.wait_change(version, 10) > version
    assert follower.current()[key] == {"id": 2}


def test_a_follower_hears_of_what_comes_and_not_of_what_was_there(tape, key):
    writer, follower = tape.board(topics.HIGH_WATER), tape.board(topics.HIGH_WATER)
    writer.put(f"{key}-before", {"id": 1}, wait_s=10)
    heard = []
    follower.listen(heard.append)
    assert f"{key}-before" in follower.current()
    writer.put(key, {"id": 2}, wait_s=10)
    eventually(lambda: key in heard)
    assert f"{key}-before" not in heard


def test_waiting_for_a_change_ends_when_there_is_none(tape, key):
    board = tape.board(topics.PARTITIONS)
    board.current()
    assert board.wait_change(board.version, 0.05) == board.version


# --- dead letters -------------------------------------------------------------------------------


def letter(topic, offset, value):
    return DeadLetter(
        topic, 0, 3, offset, 7, Fault.TRUNCATED, "ends inside a field: ü", 1_700_000_000, value
    )


def test_letters_keep_bytes_and_position(tape):
    office = tape.office()
    letters = [letter(tape.topic, 1, b"\x00\xff"), letter(tape.topic, 2, None)]
    letters.append(DeadLetter(tape.topic, 0, 3, 3, None, Fault.BAD_MAGIC, "", 1, b""))
    office.publish(letters, 10)
    assert [each for each in office.read_all() if each.topic == tape.topic] == letters


def test_no_letters_are_published_at_once(tape):
    tape.office().publish([], 0)


# --- the ledger of gaps -------------------------------------------------------------------------


def gap(symbol, first, last, **changes):
    time_us = 1_700_000_000_000_000
    told = {"cause": Cause.DISCONNECT, "state": GapState.OPEN, "feed": "feed:1"} | changes
    return GapEvent(
        Instrument("BINANCE", symbol), first, last, time_us, recorded_us=time_us + 1, **told
    )


def test_gap_events_come_back_in_the_order_they_were_told(tape, key):
    log = tape.gap_log()
    events = [
        gap(key, 10, 19),
        gap(key, 10, 14, state=GapState.FILLED, filled_at_us=1_700_000_001_000_000),
        gap(key, 15, 19, state=GapState.UNFILLABLE, reason="the venue has them no more: ü"),
        gap(key, 10, 14, state=GapState.FILLED, filled_at_us=1_700_000_001_000_000),
    ]
    log.publish(events[:1], 10)
    log.publish(events[1:], 10)
    assert [event for event in log.advance() if event.instrument.symbol == key] == events


def test_an_event_that_contradicts_itself_is_not_published(tape, key):
    log = tape.gap_log()
    with pytest.raises(Invalid) as caught:
        log.publish([gap(key, 1, 2), gap(key, 10, 9)], 10)
    assert caught.value.reason is Reason.BAD_REQUEST
    assert not [event for event in log.advance() if event.instrument.symbol == key]


def test_who_keeps_up_with_the_ledger_gets_each_event_once_in_the_order_of_all(tape, key):
    one, other = tape.gap_log(), tape.gap_log()

    def news(log):
        return [event for event in log.advance() if event.instrument.symbol == key]

    assert news(one) == []
    one.publish([gap(key, 1, 2)], 10)
    other.publish([gap(key, 5, 6)], 10)
    assert news(one) == [gap(key, 1, 2), gap(key, 5, 6)], "all that was acknowledged before"
    assert news(one) == []
    one.publish([gap(key, 9, 9)], 10)
    assert news(other) == [gap(key, 1, 2), gap(key, 5, 6), gap(key, 9, 9)]
    assert news(tape.gap_log()) == [gap(key, 1, 2), gap(key, 5, 6), gap(key, 9, 9)]
