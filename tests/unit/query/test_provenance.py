import numpy as np
import pytest

from k2.errors import Data, Overloaded, Reason, Unavailable
from k2.market.fold import FoldState, Seen
from k2.market.instrument import Instrument
from k2.market.offsets import TimeRange
from k2.query.plan import MissingReason, MissingSide
from k2.query.provenance import (
    GAPS_LISTED_MAX,
    Completeness,
    Expected,
    Gap,
    Holes,
    MissingPart,
    below_retention,
    completeness,
    failure_of,
    holes_of,
    part_of,
)

BTC, ETH = Instrument("B", "BTCUSDT"), Instrument("B", "ETHUSDT")
ALL = TimeRange()
HEARD = {one: Expected(listened=True) for one in (BTC, ETH)}


def seen(*intervals, time_us=100):
    return Seen(np.array(intervals, dtype=np.int64), time_us)


def test_holes_of_those_asked_for_are_listed_in_order():
    states = {0: FoldState({ETH: seen((1, 2), (5, 6)), BTC: seen((1, 1), (3, 3), (9, 9))})}
    found = holes_of(states, None, ALL, HEARD)
    assert found.listed == (Gap(BTC, 2, 2), Gap(BTC, 4, 8), Gap(ETH, 3, 4))
    assert found.total == 3
    assert holes_of(states, {ETH}, ALL, HEARD).listed == (Gap(ETH, 3, 4),)


def test_a_range_after_the_newest_trade_has_no_holes():
    states = {0: FoldState({BTC: seen((1, 1), (3, 3), time_us=100)})}
    assert holes_of(states, {BTC}, TimeRange(100, None), HEARD).total == 1
    assert holes_of(states, {BTC}, TimeRange(101, None), HEARD).total == 0


def test_the_list_is_bounded_and_the_count_is_not():
    many = seen(*((i * 2, i * 2) for i in range(GAPS_LISTED_MAX * 3)))
    found = holes_of({0: FoldState({BTC: many})}, {BTC}, ALL, HEARD)
    assert len(found.listed) == GAPS_LISTED_MAX
    assert found.total == GAPS_LISTED_MAX * 3 - 1


def test_completeness_is_the_worst_that_is_true():
    missing = [MissingPart("lake", Reason.LAKE_UNAVAILABLE, "away")]
    whole = Holes((), 0, True)
    assert completeness(whole, ()) is Completeness.COMPLETE
    assert completeness(Holes((), 1, True), ()) is Completeness.GAPS
    assert completeness(Holes((), 0, False), ()) is Completeness.UNKNOWN
    assert completeness(None, ()) is Completeness.UNKNOWN
    assert completeness(whole, missing) is Completeness.PARTIAL


def test_past_the_time_at_which_ids_began_again_nothing_is_known_of_what_is_missing():
    again = Seen(np.array([[1, 5]], dtype=np.int64), 100, reused_us=500)
    states = {0: FoldState({BTC: again, ETH: seen((1, 2), (5, 6), time_us=900)})}

    def said(*times, asked=(BTC,)):
        return completeness(holes_of(states, set(asked), TimeRange(*times), HEARD), ())

    assert said(None, 500) is Completeness.COMPLETE
    assert said(None, 501) is Completeness.UNKNOWN
    assert said(400, None) is Completeness.UNKNOWN
    assert said(None, None, asked=(ETH,)) is Completeness.GAPS, "another symbol is not concerned"
    assert said(None, None, asked=(BTC, ETH)) is Completeness.UNKNOWN


def test_an_instrument_never_seen_makes_it_unknown():
    states = {0: FoldState({BTC: seen((1, 1))})}
    assert holes_of(states, {BTC}, ALL, HEARD).all_known
    assert not holes_of(states, {BTC, ETH}, ALL, HEARD).all_known
    assert not holes_of({}, None, ALL, HEARD).all_known


def test_only_what_reaches_below_the_floor_lacks_rows():
    assert below_retention(None, ALL) == ()
    assert below_retention(100, TimeRange(100, None)) == ()
    for times in (ALL, TimeRange(99, None), TimeRange(None, 50)):
        (part,) = below_retention(100, times)
        assert part.reason is Reason.OUT_OF_RANGE
        assert "1970-01-01T00:00:00.000100+00:00" in part.message


@pytest.mark.parametrize(
    ("lack", "kind", "reason", "part"),
    [
        (MissingReason.LAKE, Unavailable, Reason.LAKE_UNAVAILABLE, "lake"),
        (MissingReason.EVICTED, Unavailable, Reason.LAKE_UNAVAILABLE, "lake"),
        (MissingReason.BEHIND, Unavailable, Reason.TAIL_BEHIND, "tail"),
        (MissingReason.RELEASED, Overloaded, Reason.TAIL_FULL, "tail"),
        (MissingReason.DEFERRED, Unavailable, Reason.DEFERRED, "tail"),
    ],
)
def test_each_lack_has_a_reason_and_a_side(lack, kind, reason, part):
    failure = failure_of(MissingSide(lack, (3, 5)), None, 10.0, 15.0)
    assert (type(failure), failure.reason) == (kind, reason)
    assert failure.metadata == {"partitions": "3, 5"}
    assert failure.retry_after_s
    said = part_of(MissingSide(lack, (3, 5)), failure)
    assert (said.part, said.reason, said.message) == (part, reason, failure.message)


def test_why_the_tail_stopped_is_said():
    stopped = Data(Reason.TAPE_TRUNCATED, "the tape ends at 7")
    assert (
        "the tape ends at 7"
        in failure_of(MissingSide(MissingReason.BEHIND, (0,)), stopped, 10.0, 15.0).message
    )


def test_what_waits_for_a_commit_is_asked_again_after_the_interval_that_is_set():
    released = MissingSide(MissingReason.RELEASED, (3,))
    hints = [failure_of(released, None, each, 15.0).retry_after_s for each in (2.0, 60.0)]
    assert hints == [2.0, 60.0]


def test_what_is_deferred_is_asked_again_after_the_dwell():
    failure = failure_of(MissingSide(MissingReason.DEFERRED, (3,)), None, 10.0, 2.0)
    assert failure.retry_after_s == 2.0
