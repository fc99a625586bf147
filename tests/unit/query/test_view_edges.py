"""COMPLETE is not said beyond what is known: at the edges of ids, and after the newest trade."""

import pytest

from k2.errors import Unavailable
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState
from k2.market.offsets import TimeRange
from k2.query.provenance import Completeness, Gap
from k2.query.request import Consistency
from tests.support.eventually import eventually
from tests.support.query_stack import QueryStack
from tests.support.trades import NOW_US

BTC = ("BTCUSDT",)
INSTRUMENT = Instrument("BINANCE", "BTCUSDT")
COMPLETE, GAPS, UNKNOWN = Completeness.COMPLETE, Completeness.GAPS, Completeness.UNKNOWN
COMMITTED = {"consistency": Consistency.COMMITTED}


def as_of(**moment):
    return {"consistency": Consistency.AS_OF, **moment}


@pytest.fixture
def stack(tmp_path):
    with QueryStack(tmp_path, recent_s=0.0) as made:
        yield made


def send_dead(stack, count):
    """Records that are no trades, where ids of BTCUSDT belong."""
    partition = stack.homes.place(INSTRUMENT)
    stack.tape.append(partition, *[b"garbage"] * count)


def settled(stack, **fields):
    """The provenance of an answer that was read to its end."""
    return stack.ask(symbols=BTC, **fields)[1].opened.provenance


def found(stack, **fields):
    provenance = settled(stack, **fields)
    return provenance.completeness, [(gap.first_id, gap.last_id) for gap in provenance.gaps]


def tell(stack, first, last, state=GapState.OPEN, cause=Cause.SEQUENCE):
    event = GapEvent(INSTRUMENT, first, last, NOW_US, cause, state, NOW_US, "feed")
    stack.gap_log.publish([event])


def test_the_newest_ids_are_dead_letters(stack):
    stack.send("BTCUSDT", [1, 2])
    send_dead(stack, 2)
    stack.promise("BTCUSDT", 0, 4)
    provenance = settled(stack)
    assert provenance.completeness is GAPS
    assert provenance.gaps == (Gap(INSTRUMENT, 3, 4),)
    assert provenance.gaps_total == 1
    before = TimeRange(None, NOW_US + 2000)  # they were printed later
    assert found(stack, range=before) == (COMPLETE, [])
    stack.commit()
    stack.view.maintain()
    assert found(stack) == (GAPS, [(3, 4)])
    assert found(stack, **COMMITTED) == (GAPS, [(3, 4)])
    stack.send("BTCUSDT", [3, 4])
    assert found(stack) == (COMPLETE, [])


def test_the_first_ids_are_dead_letters(stack):
    send_dead(stack, 2)
    stack.send("BTCUSDT", [3, 4])
    stack.promise("BTCUSDT", 0, 4)
    assert found(stack) == (GAPS, [(1, 2)])
    later = TimeRange(NOW_US + 4001, None)
    assert found(stack, range=later) == (COMPLETE, [])


def test_every_id_is_a_dead_letter(stack):
    send_dead(stack, 2)
    stack.promise("BTCUSDT", 0, 2)
    provenance = settled(stack)
    assert provenance.completeness is GAPS
    assert provenance.gaps == (Gap(INSTRUMENT, 1, 2),)
    assert provenance.covered_until_us is None


def test_what_an_epoch_lost_is_missing_above_what_is_left(stack):
    stack.send("BTCUSDT", [1, 2])
    stack.promise("BTCUSDT", 0, 9)
    tell(stack, 3, 9, cause=Cause.EPOCH)
    assert found(stack) == (GAPS, [(3, 9)])


def test_the_ledger_knows_what_nobody_has_promised_yet(stack):
    stack.send("BTCUSDT", [1, 2])
    tell(stack, 3, 9)
    tell(stack, 20, 30, cause=Cause.REQUESTED)  # that they are missing is not known
    assert found(stack) == (GAPS, [(3, 9)])


def test_what_was_printed_without_a_trade_is_not_missing(stack):
    stack.send("BTCUSDT", [2, 3, 5])
    stack.promise("BTCUSDT", 0, 6)
    assert found(stack) == (GAPS, [(1, 1), (4, 4), (6, 6)])
    for one in (1, 4, 6):
        tell(stack, one, one, GapState.VOID)
    assert found(stack) == (COMPLETE, [])


def test_nothing_is_missing_at_the_edges_before_the_tail_has_looked(stack, impatient):
    stack.send("BTCUSDT", [1, 2])
    eventually(lambda: stack.tail.position()[0] == 2)
    stack.tail.close()
    stack.send("BTCUSDT", [3, 4])
    stack.promise("BTCUSDT", 0, 4)
    planned = stack.plan(symbols=BTC)
    assert planned.provenance.completeness is UNKNOWN
    stack.view._restart_tail()
    assert stack.read(planned)[1].opened.provenance.completeness is COMPLETE


def test_without_a_feed_that_listens_nothing_is_known_after_the_newest_trade(stack):
    stack.send("BTCUSDT", [1, 2])
    stack.promise("BTCUSDT", 0, 2)
    stack.commit()
    stack.view.maintain()
    newest = NOW_US + 2000
    last = {"last_us": 10_000_000}
    stack.clock.advance(60)
    # Nothing was printed; the follower of coverage has to look again at the later time.
    eventually(lambda: found(stack, **last) == (COMPLETE, []))
    stack.listened = set()
    stack.clock.advance(1)
    for fields in ({}, last, {"range": TimeRange(None, newest + 1)}, COMMITTED):
        provenance = settled(stack, **fields)
        assert provenance.completeness is UNKNOWN, fields
        assert provenance.covered_until_us == newest
    within = {"range": TimeRange(None, newest)}
    eventually(lambda: found(stack, **within) == (COMPLETE, []))
    assert found(stack, **within, **COMMITTED) == (COMPLETE, [])
    token = settled(stack, **within).token
    for fields in (as_of(as_of_snapshot=1), as_of(as_of_token=token)):
        assert found(stack, **fields) == (COMPLETE, []), "of what there was then"
        for after in (TimeRange(newest + 1), TimeRange(None, newest + 1)):
            assert found(stack, **fields, range=after) == (UNKNOWN, [])


def test_one_that_is_not_listened_to_is_enough(stack):
    stack.send("BTCUSDT", [1])
    stack.send("ETHUSDT", [7])
    stack.listened = {INSTRUMENT}
    assert stack.ask(symbols=BTC)[1].opened.provenance.completeness is COMPLETE
    both = stack.ask(symbols=(*BTC, "ETHUSDT"))[1].opened.provenance
    assert (both.completeness, both.covered_until_us) == (UNKNOWN, NOW_US + 1000)


def test_the_lake_alone_says_nothing_of_what_is_on_the_tape_only(stack):
    stack.send("BTCUSDT", [1])
    stack.commit()
    stack.send("BTCUSDT", [2])
    after = {"range": TimeRange(NOW_US + 1001, None)}
    assert found(stack, **after) == (COMPLETE, [])
    assert stack.ids(symbols=BTC, **after) == [2]
    assert found(stack, **after, **COMMITTED) == (UNKNOWN, [])


def test_what_cannot_be_followed_leaves_it_unknown(stack):
    stack.send("BTCUSDT", [1, 2])
    stack.commit()
    stack.view.maintain()
    stack.gap_log.refusing = True
    for fields in ({}, COMMITTED, as_of(as_of_snapshot=1)):
        assert found(stack, **fields) == (UNKNOWN, [])
    stack.send("BTCUSDT", [4])
    assert found(stack) == (GAPS, [(3, 3)]), "what is known is said"
    stack.gap_log.refusing = False
    assert found(stack, **as_of(as_of_snapshot=1)) == (COMPLETE, [])


def test_an_answer_of_before_lacks_at_its_edges_what_is_missing_even_now(stack):
    stack.send("BTCUSDT", [3, 4])
    send_dead(stack, 1)
    stack.commit()
    stack.view.maintain()
    first = as_of(as_of_snapshot=1)
    stack.promise("BTCUSDT", 0, 5)
    assert found(stack, **first) == (GAPS, [(1, 2), (5, 5)])
    stack.send("BTCUSDT", [1, 2, 5, 6, 9])
    stack.promise("BTCUSDT", 0, 9)
    assert found(stack, **first) == (COMPLETE, []), (
        "what came since does not count, 7 and 8 neither"
    )
    assert found(stack) == (GAPS, [(7, 8)])
    assert stack.ids(symbols=BTC, **first) == [3, 4]


def test_a_ticket_is_judged_as_of_its_own_end(stack):
    stack.send("BTCUSDT", [1, 2])
    stack.promise("BTCUSDT", 0, 2)
    stack.coverage.follow()
    planned = stack.plan(symbols=BTC)
    stack.clock.advance(3)
    send_dead(stack, 1)
    stack.promise("BTCUSDT", 0, 3)
    assert found(stack) == (GAPS, [(3, 3)])
    assert stack.read(planned)[1].opened.provenance.completeness is COMPLETE


def test_a_time_in_the_future_is_answered_and_said(stack):
    stack.send("BTCUSDT", [1])
    stack.commit()
    now_us = stack.clock.now_us()
    stack.clock.advance(5)
    ahead = settled(stack, **as_of(as_of_time_us=now_us + 7_000_000))
    assert (ahead.snapshot_id, ahead.as_of_ahead_us) == (1, 2_000_000)
    assert stack.ids(symbols=BTC, **as_of(as_of_time_us=now_us + 7_000_000)) == [1]
    for fields in (as_of(as_of_time_us=now_us + 5_000_000), as_of(as_of_snapshot=1), {}):
        assert settled(stack, **fields).as_of_ahead_us is None


def test_a_broker_that_is_away_leaves_pinned_answers_and_takes_their_completeness(stack):
    stack.send("BTCUSDT", [1])
    stack.commit()
    stack.view.maintain()
    assert found(stack, **COMMITTED) == (COMPLETE, [])
    stack.tape.away = True
    stack.clock.advance(60)
    assert found(stack, **COMMITTED) == (UNKNOWN, [])
    with pytest.raises(Unavailable):
        stack.plan(symbols=BTC)
