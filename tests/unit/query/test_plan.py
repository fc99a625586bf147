from dataclasses import replace
from itertools import pairwise

from k2.market.files import FileIndex
from k2.market.instrument import Instrument
from k2.market.offsets import ChunkRange, FileStat, OffsetVector, PartitionCut, TimeRange
from k2.query.plan import (
    LakeFacts,
    MissingReason,
    MissingSide,
    RowsOverTime,
    TailFacts,
    plan_lake,
    plan_union,
)
from k2.query.request import Order, TradesRequest

BTC = Instrument("X", "BTCUSDT")
ALL = TradesRequest()
FILES = FileIndex(
    [
        FileStat("old", 10, 100, "X", "ADAUSDT", "BTCUSDT", 0, 99),
        FileStat("new", 10, 100, "X", "BTCUSDT", "ETHUSDT", 100, 199),
    ]
)
LAKE = LakeFacts(OffsetVector(0, (200,)), FILES)


def chunk(chunk_id, offsets, times, rows=None, partition=0):
    rows = offsets[1] - offsets[0] + 1 if rows is None else rows
    return ChunkRange(chunk_id, BTC, partition, *offsets, *times, rows)


TAIL = TailFacts(
    position=OffsetVector(0, (300,)),
    low=OffsetVector(0, (150,)),
    time_max_below={BTC: 149},
    chunks=(chunk(1, (150, 219), (150, 219)), chunk(2, (220, 299), (220, 299))),
)
END = OffsetVector(0, (300,))


def plan(request=ALL, lake=LAKE, tail=TAIL, end=END):
    return plan_union(request, range(len(end.offsets)), lake, tail, end)


def paths(made):
    return [one.path for one in made.files.stats]


def ids(made):
    return [one.chunk_id for one in made.chunks]


def test_an_older_snapshot_than_the_one_asked_for_lacks_rows_and_says_so():
    made = plan_lake(ALL, LAKE, OffsetVector(0, (200,)))
    assert made.missing == ()
    above = plan_lake(ALL, LAKE, OffsetVector(0, (LAKE.positions[0] + 1,)))
    assert above.missing == (MissingSide(MissingReason.LAKE, (0,)),)


def test_the_lake_answers_below_the_snapshot_and_the_tail_from_there_on():
    made = plan()
    assert made.cuts == {0: PartitionCut(0, 200, 300)}
    assert paths(made) == ["old", "new"]
    assert ids(made) == [1, 2]
    assert (made.lake_ends, made.missing, made.skips_lake) == ({}, (), False)


def test_only_what_can_hold_the_times_and_names_is_read():
    made = plan(TradesRequest(range=TimeRange(50, 100), symbols=("ADAUSDT",)))
    assert paths(made) == ["old"]
    assert ids(made) == []


def test_a_range_above_all_rows_below_the_low_skips_the_lake():
    made = plan(TradesRequest(range=TimeRange(150, None)))
    assert made.skips_lake
    assert made.cuts == {0: PartitionCut(0, 150, 300)}
    assert (paths(made), ids(made)) == ([], [1, 2])
    assert not plan(TradesRequest(range=TimeRange(149, None))).skips_lake


def test_an_older_end_cuts_the_lake_by_position():
    made = plan(end=OffsetVector(0, (180,)))
    assert made.cuts == {0: PartitionCut(0, 180, 180)}
    assert made.lake_ends == {0: 180}
    assert ids(made) == []
    assert made.missing == ()


def test_the_newest_rows_narrow_the_times():
    newest = TradesRequest(limit=80, order=Order.DESC)
    made = plan(newest)
    assert made.times == TimeRange(220, None)
    assert made.skips_lake
    assert ids(made) == [2]
    assert plan(replace(newest, limit=81)).times == TimeRange(150, None)
    assert plan(replace(newest, limit=151)).times == TimeRange()
    assert plan(replace(newest, order=Order.ASC)).times == TimeRange()


def test_the_newest_rows_of_a_range_are_inside_it():
    newest = TradesRequest(limit=10, order=Order.DESC, range=TimeRange(160, 250))
    assert plan(newest).times == TimeRange(160, 250)  # no chunk lies whole in the range
    assert plan(replace(newest, range=TimeRange(150, 250))).times == TimeRange(150, 250)
    assert plan(replace(newest, range=TimeRange(100, 220))).times == TimeRange(150, 220)


def test_the_newest_rows_may_come_from_above_the_snapshot_only():
    tail = replace(TAIL, time_max_below={BTC: 10**6})  # one late row makes the rule useless
    made = plan(TradesRequest(limit=80, order=Order.DESC), tail=tail)
    assert not made.skips_lake
    assert made.times == TimeRange(220, None)
    assert paths(made) == []


def test_rows_evicted_above_the_snapshot_need_a_newer_one():
    old = LakeFacts(OffsetVector(0, (100,)), FILES)
    made = plan(lake=old)
    assert made.missing == (MissingSide(MissingReason.EVICTED, (0,)),)
    assert not plan(lake=old, end=OffsetVector(0, (100,))).missing


def test_a_tail_that_is_behind_or_released_is_missing_only_where_it_is_needed():
    late = replace(TAIL, position=OffsetVector(0, (250,)))
    assert plan(tail=late).missing == (MissingSide(MissingReason.BEHIND, (0,)),)
    assert plan(tail=late).cuts == {0: PartitionCut(0, 200, 250)}
    recent = TradesRequest(range=TimeRange(150, None))
    assert plan(recent, tail=late).missing == (MissingSide(MissingReason.BEHIND, (0,)),)
    released = TailFacts(END, END, released=frozenset({0}))
    assert plan(tail=released).missing == (MissingSide(MissingReason.RELEASED, (0,)),)
    assert plan(tail=released).cuts == {0: PartitionCut(0, 200, 200)}
    covered = OffsetVector(0, (200,))
    assert plan(tail=late, end=covered).missing == ()
    assert plan(tail=released, end=covered).missing == ()


def test_without_a_lake_it_is_missing_unless_nothing_of_it_is_needed():
    assert plan(lake=None).missing == (MissingSide(MissingReason.LAKE),)
    assert ids(plan(lake=None)) == [1, 2]
    assert plan(TradesRequest(range=TimeRange(150, None)), lake=None).missing == ()
    never = replace(TAIL, time_max_below={}, low=OffsetVector(0, (0,)))
    assert plan(lake=None, tail=never).missing == ()
    assert not plan(tail=never).skips_lake  # with a lake, a range without a start reads it


def test_a_snapshot_alone_and_a_newer_one_cut_at_it():
    made = plan_lake(ALL, LAKE, OffsetVector(0, (200,)))
    assert (paths(made), made.lake_ends) == (["old", "new"], {})
    assert plan_lake(ALL, LAKE, OffsetVector(0, (120,))).lake_ends == {0: 120}


def test_a_snapshot_of_an_older_epoch_is_cut_out_of_a_newer_one_by_epoch():
    newer = LakeFacts(OffsetVector(2, (0, 0)), LAKE.files)
    made = plan_lake(ALL, newer, OffsetVector(1, (120,)))
    assert (made.lake_ends, made.epoch, made.newer_epochs) == ({0: 120}, 1, True)
    same = plan_lake(ALL, LAKE, LAKE.positions)
    assert (same.epoch, same.newer_epochs) == (0, False)
    assert paths(plan_lake(TradesRequest(range=TimeRange(100)), LAKE, END)) == ["new"]


def parts(made, rows, *, descending=False):
    over_time = RowsOverTime(made)
    while (part := over_time.take(rows, descending=descending)) is not None:
        yield part


def test_parts_follow_each_other_and_share_no_moment():
    made = plan()
    times = [part.times for part in parts(made, 50)]
    assert len(times) > 4
    assert times[0].start_us is None
    assert times[-1].end_us is None
    assert all(a.end_us == b.start_us for a, b in pairwise(times))
    back = [part.times for part in parts(made, 50, descending=True)]
    assert back[0].end_us is None
    assert back[-1].start_us is None
    assert all(a.start_us == b.end_us for a, b in pairwise(back))


def test_a_part_reads_only_what_lies_in_its_times():
    first, *_, last = parts(plan(), 50)
    assert (paths(first), ids(first)) == (["old"], [])
    assert (paths(last), ids(last)) == ([], [2])


def test_what_is_small_is_one_part():
    made = plan()
    assert [part.times for part in parts(made, 10_000)] == [made.times]
    empty = plan(TradesRequest(range=TimeRange(5000, 6000)))
    assert [part.times for part in parts(empty, 1)] == [TimeRange(5000, 6000)]


def test_rows_are_estimated_by_their_share_of_the_times():
    assert plan().rows_estimated == 350
    assert plan(TradesRequest(range=TimeRange(50, 100))).rows_estimated == 50
    assert plan(TradesRequest(range=TimeRange(5000, None))).rows_estimated == 0


def test_many_rows_of_one_moment_are_one_part():
    dense = FileIndex([FileStat("dense", 1, 10**6, "X", "A", "Z", 7, 7)])
    made = plan_lake(ALL, LakeFacts(END, dense), END)
    assert len(list(parts(made, 10))) == 1
