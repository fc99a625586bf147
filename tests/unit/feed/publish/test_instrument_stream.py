"""The high water: only what is acknowledged, with everything sent before it."""

from collections import deque

from k2.errors import Reason, Unavailable
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapState
from k2.market.sequence import Finding

BTC = Instrument("BINANCE", "BTCUSDT")


def flights(line, *ids, finding=Finding.NEXT):
    made = [line.prepare(trade_id, finding) for trade_id in ids]
    for flight in made:
        line.sent(flight)
    return made


def test_nothing_is_promised_before_the_first_acknowledgement():
    line = InstrumentStream(BTC, 3, 90)
    flights(line, 100)
    assert (line.acknowledged_id, line.resumed_after, line.in_flight) == (None, 90, 1)
    assert (line.key, line.partition) == (b"BINANCE:BTCUSDT", 3)


def test_it_follows_acknowledgements_in_order():
    line = InstrumentStream(BTC, 0, None)
    for number, flight in enumerate(flights(line, 5, 6, 7)):
        flight(number, None)
        assert line.acknowledged_id == 5 + number
    assert (line.acknowledged, line.in_flight) == (3, 0)


def test_it_waits_for_what_was_sent_before():
    line = InstrumentStream(BTC, 0, None)
    first, second, third = flights(line, 5, 6, 7)
    third(2, None)
    second(1, None)
    assert line.acknowledged_id is None
    first(0, None)
    assert line.acknowledged_id == 7


def test_a_late_trade_holds_it_but_does_not_lower_it():
    line = InstrumentStream(BTC, 0, None)
    ahead, late = flights(line, 9, 6)
    ahead(0, None)
    late(1, None)
    assert line.acknowledged_id == 9


def test_a_new_beginning_of_the_venues_ids_starts_it_anew():
    line = InstrumentStream(BTC, 0, None)
    (old,) = flights(line, 900)
    (new,) = flights(line, 3, finding=Finding.RESET)
    old(0, None)
    new(1, None)
    assert line.acknowledged_id == 3


def test_a_trade_that_will_never_be_acknowledged_is_a_failure_of_the_line():
    line = InstrumentStream(BTC, 0, None)
    first, second = flights(line, 5, 6)
    first(None, Unavailable(Reason.TAPE_UNAVAILABLE, "purged"))
    second(1, None)
    assert line.failure.message == "purged"
    assert line.acknowledged_id is None


def heard(line, *ids):
    for trade_id in ids:
        finding = line.sequence.observe(trade_id)
        if finding is not Finding.NEXT:
            line.note(trade_id, finding, 7)
        flight = line.prepare(trade_id, finding)
        line.sent(flight)
        flight(0, None)


def causes(line):
    line.missing.due(0.0)
    return [(run.first_id, run.last_id, run.cause) for run in line.missing.due(100.0)]


def test_why_ids_were_missed():
    line = InstrumentStream(BTC, 0, 9)
    heard(line, 12, 14)
    line.interrupted()
    heard(line, 20, 22)
    assert causes(line) == [
        (10, 11, Cause.OUTAGE),
        (13, 13, Cause.SEQUENCE),
        (15, 19, Cause.DISCONNECT),
        (21, 21, Cause.SEQUENCE),
    ]


def test_a_line_keeps_up_once_it_heard_something_after_the_connection_was_lost():
    line = InstrumentStream(BTC, 0, 9)
    assert not line.keeps_up(), "what came after 9 is not known"
    heard(line, 10)
    assert line.keeps_up()
    line.interrupted()
    assert not line.keeps_up()
    heard(line, 10)
    assert not line.keeps_up()
    heard(line, 12)
    assert line.keeps_up()


def test_a_line_keeps_up_while_what_it_had_heard_before_is_acknowledged():
    line = InstrumentStream(BTC, 0, None)
    flying = []
    for trade_id in (5, 6, 7):
        line.sequence.observe(trade_id)
        flying += flights(line, trade_id)
        if trade_id == 5:
            assert line.keeps_up(), "it was heard just now"
            assert not line.keeps_up(), "it is on its way for too long"
    flying[0](0, None)
    assert line.keeps_up()
    assert not line.keeps_up(), "7 was heard at the call before"
    flying[1](1, None)
    flying[2](2, None)
    assert line.keeps_up()


def test_an_interruption_that_missed_nothing_explains_nothing():
    line = InstrumentStream(BTC, 0, None)
    heard(line, 1, 2)
    line.interrupted()
    heard(line, 3, 5)
    assert causes(line) == [(4, 4, Cause.SEQUENCE)]


def test_what_was_before_the_first_id_is_no_gap():
    line = InstrumentStream(BTC, 0, None)
    heard(line, 1000, 1001)
    assert causes(line) == []
    assert line.covered_through == 1001


def test_a_venue_that_begins_anew_leaves_no_gap_of_a_billion_ids_to_fill():
    line = InstrumentStream(BTC, 0, 5)
    heard(line, 6, 5_000_000_000_000)
    assert line.covered_through == 6, "until the ledger explains the hole"
    (run,) = line.missing.due(0.0)
    assert (run.first_id, run.last_id, run.state) == (7, 4_999_999_999_999, GapState.UNFILLABLE)
    line.missing.recorded(run)
    assert line.covered_through == 5_000_000_000_000
    heard(line, 7, 8)
    assert (causes(line), line.covered_through) == ([], 8)


def test_the_high_water_passes_an_id_without_a_trade_in_its_turn():
    line = InstrumentStream(BTC, 0, None)
    heard(line, 1)
    assert line.keeps_up()
    line.sequence.observe(2)
    (second,) = flights(line, 2)
    assert line.voided(3, 7)
    assert (line.acknowledged_id, line.covered_through, line.acknowledged) == (1, 1, 1)
    second(0, None)
    assert (line.acknowledged_id, line.covered_through, line.acknowledged) == (3, 2, 2)
    (run,) = line.missing.due(0.0)
    line.missing.recorded(run)
    assert line.covered_through == 3
    assert [line.keeps_up(), line.keeps_up()] == [True, True], "though no trade follows"


def test_an_id_without_a_trade_that_came_late_fills_nothing():
    line = InstrumentStream(BTC, 0, None)
    heard(line, 1, 4)
    assert line.voided(2, 7)
    assert (line.acknowledged_id, line.late) == (4, deque())
    assert [(run.first_id, run.state) for run in line.missing.due(0.0)] == [(2, GapState.VOID)]


def test_what_came_out_of_order_is_told_when_it_is_acknowledged():
    line = InstrumentStream(BTC, 0, None)
    heard(line, 1, 4)
    finding = line.sequence.observe(2)
    line.note(2, finding, 7)
    flight = line.prepare(2, finding)
    line.sent(flight)
    assert not line.late
    flight(0, None)
    assert list(line.late) == [2]
    assert causes(line) == [(3, 3, Cause.SEQUENCE)]


def test_the_promise_stops_short_of_what_is_not_written_down():
    line = InstrumentStream(BTC, 0, None)
    heard(line, 1, 2, 5, 6)
    assert (line.acknowledged_id, line.covered_through) == (6, 2)
    line.missing.due(0.0)
    (run,) = line.missing.due(100.0)
    line.missing.recorded(run)
    assert line.covered_through == 6


def test_the_promise_stops_short_of_what_came_late_until_it_is_acknowledged():
    line = InstrumentStream(BTC, 0, None)
    heard(line, 1, 2, 5, 6)
    line.note(4, line.sequence.observe(4), 7)
    line.note(3, line.sequence.observe(3), 7)
    assert line.covered_through == 2  # whether the tape has taken it yet or not
    fourth, third = flights(line, 4, 3, finding=Finding.REORDERED)
    fourth(0, None)
    assert line.covered_through == 2
    third(1, None)
    assert line.covered_through == 6


def test_ids_that_were_refused_say_so():
    line = InstrumentStream(BTC, 0, None)
    for trade_id in (1, 2):
        line.note(trade_id, line.sequence.observe(trade_id), 0)
    line.interrupted(Cause.REFUSED)
    line.interrupted()  # it was lost once more before anything came
    line.note(9, line.sequence.observe(9), 0)
    line.interrupted()
    line.interrupted(Cause.REFUSED)
    line.note(12, line.sequence.observe(12), 0)
    line.note(14, line.sequence.observe(14), 0)
    due = line.missing.due(0.0) + line.missing.due(10.0)
    assert [(run.first_id, run.last_id, run.cause) for run in due] == [
        (3, 8, Cause.REFUSED),
        (10, 11, Cause.REFUSED),
        (13, 13, Cause.SEQUENCE),
    ]
