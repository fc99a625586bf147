from k2.lake.ingest.pausing import PartitionPauses, PauseReason
from tests.fakes.tape import FakeTape

MEMORY, LEVEL, TURN = PauseReason.MEMORY, PauseReason.LEVEL, PauseReason.TURN


def made():
    reader = FakeTape(partitions=4).reader({})
    return reader, PartitionPauses(reader)


def test_a_partition_is_read_again_when_no_reason_is_left():
    reader, pauses = made()
    pauses.pause(LEVEL, [1, 2])
    pauses.pause(MEMORY, [0, 1, 2, 3])
    pauses.resume(MEMORY, [0, 1, 2, 3])
    assert reader._paused == {1, 2}, "the memory bound does not resume what a level paused"
    pauses.pause(MEMORY, [1])
    pauses.resume(LEVEL, [1, 2])
    assert reader._paused == {1}, "nor the reverse"
    assert pauses.of(1) == {MEMORY}
    assert pauses.of(2) == frozenset()


def test_a_reason_holds_for_exactly_those_named():
    reader, pauses = made()
    pauses.hold(TURN, {0, 1}, range(4))
    pauses.pause(LEVEL, [0])
    pauses.hold(TURN, {1, 2}, range(4))
    assert reader._paused == {0, 1, 2}
    assert [pauses.of(each) for each in range(3)] == [{LEVEL}, {TURN}, {TURN}]


def test_what_is_assigned_again_has_no_reason():
    _, pauses = made()
    pauses.pause(LEVEL, [0])
    pauses.forget(0)
    assert pauses.of(0) == frozenset()
