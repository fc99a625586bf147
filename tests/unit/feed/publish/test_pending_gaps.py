from k2.feed.publish.pending_gaps import PendingGaps
from k2.market.ledger import Cause, GapState


def spans(runs):
    return [(run.first_id, run.last_id) for run in runs]


def jumped(*runs, **given):
    missing = PendingGaps(1.0, **given)
    for first, last in runs:
        missing.jumped(first, last, Cause.SEQUENCE, first)
    return missing


def test_a_run_rests_for_the_grace_and_is_handed_over_once():
    missing = jumped((5, 9))
    assert missing.due(10.0) == []
    assert missing.due(10.9) == []
    (run,) = missing.due(11.0)
    assert (run.first_id, run.last_id, run.cause, run.detected_us) == (5, 9, Cause.SEQUENCE, 5)
    assert missing.due(99.0) == []


def test_what_comes_within_the_grace_is_not_missing():
    missing = jumped((5, 9), (20, 20))
    missing.due(0.0)
    for each in (5, 7, 20, 100):
        missing.came(each)
    assert spans(missing.due(1.0)) == [(6, 6), (8, 9)]


def test_nothing_is_promised_past_a_run_until_the_ledger_has_it():
    missing = jumped((20, 29), (5, 9))
    assert missing.lowest == 5
    missing.due(0.0)
    first, second = missing.due(1.0)
    assert missing.lowest == 5
    missing.recorded(second)
    assert missing.lowest == 20
    missing.recorded(first)
    assert missing.lowest is None


def test_what_comes_after_it_was_handed_over_is_the_ledgers_matter():
    missing = jumped((5, 9))
    missing.due(0.0)
    (run,) = missing.due(1.0)
    missing.came(7)
    assert missing.lowest == 5
    missing.recorded(run)
    assert missing.lowest is None


def test_what_was_printed_without_a_trade_is_the_ledgers_at_once():
    missing = jumped((5, 9))
    for each in (10, 11, 20):
        missing.settled(each, each, GapState.VOID, 3)
    missing.came(7)
    assert missing.lowest == 5
    assert [(*spans([run])[0], run.state.value, run.detected_us) for run in missing.due(0.0)] == [
        (10, 11, "VOID", 3), (20, 20, "VOID", 3),
    ]  # fmt: skip
    assert [(*spans([run])[0], run.state.value) for run in missing.due(1.0)] == [
        (5, 6, "OPEN"), (8, 9, "OPEN"),
    ]  # fmt: skip


def test_beyond_the_bound_what_was_printed_without_a_trade_is_asked_for_with_others():
    missing = jumped((0, 0), (100, 100), runs_max=2)
    missing.settled(102, 102, GapState.VOID, 0)
    assert missing.due(0.0) == []
    assert [(*spans([run])[0], run.state.value) for run in missing.due(1.0)] == [
        (0, 0, "OPEN"), (100, 102, "OPEN"),
    ]  # fmt: skip
    many = PendingGaps(1.0, runs_max=1)
    many.settled(1, 1, GapState.VOID, 0)
    many.settled(3, 3, GapState.VOID, 0)
    assert [(*spans([run])[0], run.state.value) for run in many.due(0.0)] == [(1, 3, "OPEN")]


def test_beyond_the_bound_the_closest_runs_become_one():
    missing = jumped((0, 0), (100, 100), (110, 110), (900, 900), runs_max=3)
    missing.due(0.0)
    assert sorted(spans(missing.due(1.0))) == [(0, 0), (100, 110), (900, 900)]
