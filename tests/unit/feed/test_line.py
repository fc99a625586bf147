"""The high water: only what is acknowledged, with everything sent before it."""

from k2.errors import Reason, Unavailable
from k2.feed.line import Line
from k2.market.instrument import Instrument
from k2.market.sequence import Finding

BTC = Instrument("BINANCE", "BTCUSDT")


def flights(line, *ids, finding=Finding.NEXT):
    made = [line.prepare(trade_id, finding) for trade_id in ids]
    for flight in made:
        line.launched(flight)
    return made


def test_nothing_is_promised_before_the_first_acknowledgement():
    line = Line(BTC, 3, 90)
    flights(line, 100)
    assert (line.high_water, line.resumed_after, line.flying) == (None, 90, 1)
    assert (line.key, line.partition) == (b"BINANCE:BTCUSDT", 3)


def test_it_follows_acknowledgements_in_order():
    line = Line(BTC, 0, None)
    for number, flight in enumerate(flights(line, 5, 6, 7)):
        flight(number, None)
        assert line.high_water == 5 + number
    assert (line.acknowledged, line.flying) == (3, 0)


def test_it_waits_for_what_was_sent_before():
    line = Line(BTC, 0, None)
    first, second, third = flights(line, 5, 6, 7)
    third(2, None)
    second(1, None)
    assert line.high_water is None
    first(0, None)
    assert line.high_water == 7


def test_a_late_trade_holds_it_but_does_not_lower_it():
    line = Line(BTC, 0, None)
    ahead, late = flights(line, 9, 6)
    ahead(0, None)
    late(1, None)
    assert line.high_water == 9


def test_a_new_beginning_of_the_venues_ids_starts_it_anew():
    line = Line(BTC, 0, None)
    (old,) = flights(line, 900)
    (new,) = flights(line, 3, finding=Finding.RESET)
    old(0, None)
    new(1, None)
    assert line.high_water == 3


def test_a_trade_that_will_never_be_acknowledged_is_a_failure_of_the_line():
    line = Line(BTC, 0, None)
    first, second = flights(line, 5, 6)
    first(None, Unavailable(Reason.TAPE_UNAVAILABLE, "purged"))
    second(1, None)
    assert line.failure.message == "purged"
    assert line.high_water is None
