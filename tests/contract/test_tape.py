"""What K2 relies on of a tape, held against the fake and against a real Kafka."""

import threading

import pytest

from k2.clock import SystemClock
from k2.errors import Data, Invalid, NotFound, Overloaded, Reason
from tests.contract.real_tape import failure_of, read, send
from tests.support.eventually import eventually

# --- producing and reading ----------------------------------------------------------------------


def test_what_is_sent_is_read_in_order_from_where_it_was_acknowledged(tape):
    assert send(tape, 3, b"a", b"b") == [0, 1]
    assert send(tape, 3, b"c") == [2]
    assert send(tape, 5, b"d") == [0]

    assert read(tape.reader({3: 0, 5: 0}), 4) == {3: [b"a", b"b", b"c"], 5: [b"d"]}
    assert read(tape.reader({3: 2}), 1) == {3: [b"c"]}


def test_records_carry_the_time_at_which_they_were_appended(tape):
    clock = SystemClock()
    before_us = clock.now_us() // 1000 * 1000  # the tape keeps milliseconds
    send(tape, 3, b"a", b"b")
    send(tape, 3, b"c")
    after_us = clock.now_us()
    reader, stamps = tape.reader({3: 0}), []

    def enough():
        for batch in reader.read(1000, 0.05):
            assert len(batch.append_time) == len(batch)
            stamps.extend(batch.append_time.tolist())
        return len(stamps) == 3

    eventually(enough)
    assert stamps == sorted(stamps)
    assert before_us <= stamps[0]
    assert stamps[-1] <= after_us


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
