from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.lake.ingest.pausing import PartitionPauses, PauseReason, ShadowPauses
from k2.market.instrument import Tier
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


def test_in_shadow_mode_what_a_level_would_pause_is_said_once_a_change(caplog):
    shadow = ShadowPauses(lambda: tuple(Tier))
    behind = {Tier.LOW: 7, Tier.HIGH: 5}
    with caplog.at_level("INFO"):
        shadow.say(Levels(own=Level.GRACEFUL), range(4), behind)
        assert caplog.messages == [], "it is obeyed"
        for level in (Level.NORMAL, Level.GRACEFUL, Level.GRACEFUL, Level.AGGRESSIVE, Level.NORMAL):
            shadow.say(Levels(own=level, shadow=True), (0, 1, 3), behind)
    assert [message.partition("pause the tiers ")[2] for message in caplog.messages] == [
        "low: partitions 3, 7 records deferred now",
        "high, normal, low: partitions 1, 3, 12 records deferred now",
        "none: partitions none, 0 records deferred now",
    ]
