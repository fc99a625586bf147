"""The layout of the tape. Deployment and facts are in the contract."""

from k2 import limits
from k2.settings import TapeSettings
from k2.tape import topics


def layout(**changes):
    return {each.topic: each for each in topics.layout(TapeSettings(**changes))}


def test_each_tier_has_as_many_partitions():
    assert topics.partition_count(TapeSettings(partitions_per_tier=3)) == 12
    assert layout(topic="t", partitions_per_tier=3)["t"].num_partitions == 12


def test_the_subject_is_that_of_the_topics_values():
    assert topics.subject("market.trades") == "market.trades-value"


def test_boards_are_compacted_and_letters_and_gaps_are_kept():
    made = layout()
    compacted = (topics.PARTITIONS, topics.HEARTBEATS, topics.COVERAGE)
    for name in (*compacted, topics.BACKFILLS, topics.REPLAYS, topics.DEGRADATION):
        assert made[name].num_partitions == 1
        assert made[name].config["cleanup.policy"] == "compact"
    for name in (topics.DEAD_LETTERS, topics.GAPS, topics.TRANSITIONS):
        assert made[name].num_partitions == 1
        assert "cleanup.policy" not in made[name].config
        assert made[name].config["retention.ms"] == "-1"
        assert int(made[name].config["retention.bytes"]) > 0


def test_retention_is_bounded_by_hours_and_bytes():
    config = layout(topic="t", retention_hours=2, retention_bytes_per_partition=limits.MIB)[
        "t"
    ].config
    assert config["retention.ms"] == str(2 * 3600 * 1000)
    assert config["retention.bytes"] == str(limits.MIB)
    assert int(config["segment.bytes"]) <= limits.MIB
