"""High waters survive the process, and say what nobody listened to."""

from k2.errors import Reason, Unavailable
from k2.feed.publish.coverage_topic import CoverageTopic, read_coverage
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.market.coverage import Coverage
from k2.market.instrument import Instrument
from k2.market.sequence import Finding
from tests.fakes.tape import FakeTape

BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")


def acknowledged(line, *ids):
    for trade_id in ids:
        line.sequence.observe(trade_id)
        flight = line.prepare(trade_id, Finding.NEXT)
        line.sent(flight)
        flight(0, None)


def test_what_was_published_is_read_by_the_next_run():
    tape = FakeTape()
    line, quiet = InstrumentStream(BTC, 0, 90), InstrumentStream(ETH, 1, 7)
    acknowledged(line, 100, 101)
    CoverageTopic(tape.board("h"), "feed", "run-1").publish([line, quiet], 55)
    assert tape.board("h").read_all() == {
        "BINANCE:BTCUSDT@feed": {
            "began_after": 101,
            "trade_id": 101,
            "feed": "feed",
            "first_id": 100,
            "resumed_after": 90,
            "run_id": "run-1",
            "at_us": 55,
        }
    }
    assert CoverageTopic(tape.board("h"), "feed", "run-2").read([BTC, ETH]) == {BTC: 101}


def test_only_what_changed_is_published():
    tape = FakeTape()
    line, coverage = InstrumentStream(BTC, 0, None), CoverageTopic(tape.board("h"), "feed", "r")
    acknowledged(line, 1)
    coverage.publish([line], 1)
    coverage.publish([line], 2)
    acknowledged(line, 2)
    coverage.publish([line], 3)
    assert [value["trade_id"] for _, value in tape.board("h").read_log()] == [1, 2]


def test_where_lines_begin_is_a_promise_of_the_id_below():
    tape = FakeTape()
    lines = [InstrumentStream(BTC, 0, None), InstrumentStream(ETH, 1, None)]
    for line, first in zip(lines, (0, 7), strict=True):
        line.begun = False
        line.sequence.observe(first)
    tape.away = True
    coverage = CoverageTopic(tape.board("h"), "feed", "run-1")
    assert not coverage.begin(lines, 55, 1.0)
    assert not any(line.begun for line in lines)
    tape.away = False
    assert coverage.begin(lines, 55, 1.0)
    assert all(line.begun for line in lines)
    coverage.publish(lines, 56)  # nothing is acknowledged yet
    assert tape.board("h").read_all()["BINANCE:ETHUSDT@feed"] == {
        "began_after": 6, "trade_id": 6, "feed": "feed", "first_id": 7, "resumed_after": None,
        "run_id": "run-1", "at_us": 55,
    }  # fmt: skip
    assert CoverageTopic(tape.board("h"), "feed", "run-2").read([BTC, ETH]) == {BTC: -1, ETH: 6}


def test_an_unreadable_document_counts_as_none():
    tape = FakeTape()
    board = tape.board("h")
    board.put(BTC.key, {"trade_id": "many"})
    board.put(ETH.key, {"trade_id": -4})
    board.put("no key", {"trade_id": 4})
    assert CoverageTopic(board, "feed", "r").read([BTC, ETH]) == {}
    assert read_coverage(board) == {}


def begun(board, first, feed="feed"):
    """A feed that has promised where it begins, and its high waters."""
    line, coverage = InstrumentStream(BTC, 0, None), CoverageTopic(board, feed, "r")
    line.begun = False
    line.sequence.observe(first)
    assert coverage.begin([line], 1, 1.0)
    return line, coverage


def test_where_a_line_began_is_kept_by_every_later_run():
    board = FakeTape().board("h")
    begun(board, 100)
    for first in (200, 300):
        coverage = CoverageTopic(board, "feed", f"run-{first}")
        line = InstrumentStream(BTC, 0, coverage.read([BTC, ETH])[BTC])
        acknowledged(line, first, first + 1)
        coverage.publish([line], 1)
        assert read_coverage(board) == {BTC: {"feed": Coverage(99, first + 1)}}


def test_no_feed_hides_where_another_began():
    board = FakeTape().board("h")
    begun(board, 100, "feed")  # and dies with 100 unacknowledged
    line, other = begun(board, 104, "feed-2")
    acknowledged(line, 104, 105)
    other.publish([line], 2)
    assert CoverageTopic(board, "feed", "again").read([BTC]) == {BTC: 99}
    assert CoverageTopic(board, "feed-2", "again").read([BTC]) == {BTC: 105}
    assert CoverageTopic(board, "feed-3", "new").read([BTC]) == {BTC: 99}


def test_what_another_feed_has_is_not_missing():
    board = FakeTape().board("h")
    line, one = begun(board, 100, "feed")
    acknowledged(line, 100, 101)
    one.publish([line], 2)
    two = CoverageTopic(board, "feed-2", "r")
    other = InstrumentStream(BTC, 0, two.read([BTC])[BTC])
    assert other.resumed_after == 101
    acknowledged(other, 102, 150)
    two.publish([other], 3)
    again = CoverageTopic(board, "feed", "again")
    assert again.read([BTC]) == {BTC: 150}


def test_a_document_of_an_earlier_k2_is_gone_on_from():
    board = FakeTape().board("h")
    board.put(BTC.key, {"trade_id": 70, "first_id": 50, "resumed_after": None})
    assert read_coverage(board) == {BTC: {"": Coverage(49, 70)}}
    assert CoverageTopic(board, "feed", "r").read([BTC]) == {BTC: 70}


def test_a_tape_that_is_away_is_tried_again():
    class Away(list):
        def put(self, key, value, wait_s=None):
            self.append(wait_s)
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "away")

    away, line = Away(), InstrumentStream(BTC, 0, None)
    coverage = CoverageTopic(away, "feed", "r")
    acknowledged(line, 1)
    coverage.publish([line], 1)
    coverage.publish([line], 2, wait_s=0.5)
    assert away == [None, 0.5]
