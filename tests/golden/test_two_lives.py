"""A ticker that is used again: the recording of two lives of a symbol, through feed, lake, query.

The venue prints ids 1 to 60, and a day later, of another instrument by the same name, ids 1 to 40.
The frames are made by nothing of K2:

    python -m tests.golden.test_two_lives     # writes two_lives.jsonl beside this file again
"""

import json
from pathlib import Path

import pytest

from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.feed.recording import read_frames
from k2.feed.venues.binance import BinanceSource
from k2.market.events import Fault
from k2.market.instrument import Instrument
from k2.market.offsets import TimeRange
from k2.query.lake_snapshots import LakeSide
from k2.query.provenance import Completeness, Expected
from k2.query.request import TradesRequest
from k2.query.view import QueryView
from k2.tail.tail import Tail
from k2.tape.avro.trade_codec import Decoder, encode_trade
from tests.fakes.coverage import FakeCoverage
from tests.support.writer_world import SCHEMA_ID, PumpWorld, pumped

FRAMES = Path(__file__).parent / "two_lives.jsonl"
FIRST_MS, SECOND_MS = 1_738_000_000_000, 1_738_086_400_000
FIRST_IDS, SECOND_IDS = range(1, 61), range(1, 41)
LIT = Instrument("BINANCE", "LITUSDT")


def frame(trade_id, time_ms, price):
    """One trade as the venue prints it."""
    data = {
        "e": "trade", "E": time_ms, "s": LIT.symbol, "t": trade_id, "p": price, "q": "10.0",
        "T": time_ms, "m": trade_id % 2 == 1,
    }  # fmt: skip
    return json.dumps({"stream": "litusdt@trade", "data": data}, separators=(",", ":"))


def printed():
    """Both lives, in the order of their printing."""
    first = [frame(one, FIRST_MS + 100 * one, f"0.{8000 + 10 * one}") for one in FIRST_IDS]
    return first + [frame(one, SECOND_MS + 100 * one, f"2.{1000 + one}") for one in SECOND_IDS]


@pytest.fixture
def world(tmp_path):
    made = PumpWorld(tmp_path)
    yield made
    made.close()


@pytest.fixture
def line(world):
    """The line of a feed that has played the recording to the tape."""
    made = InstrumentStream(LIT, world.placement.place(LIT), None)
    tape = world.tape.producer()
    intake = TradePublisher(
        source=BinanceSource(
            url="ws://x", exchange=LIT.exchange, symbols=[LIT.symbol], source="recorded"
        ),
        tape=tape,
        streams=[made],
        encode=lambda trade: encode_trade(trade, SCHEMA_ID),
        letters=DeadLetterPublisher(world.tape.office(), "feed"),
        headers={},
    )
    frames = [one.text.encode() for one in read_frames(FRAMES)]
    assert intake.take(frames, 0, world.clock.now_us()) == len(frames) == 100
    tape.flush(1)
    return made


class Listening(FakeCoverage):
    """A feed hears the symbol."""

    def at(self, end, partitions, *, now=False):
        return {LIT: Expected(listened=True)}


def view_of(world):
    """A query server's view of the tape and the lake."""
    placement, clock = world.placed(), world.clock
    tail = Tail(
        reader_factory=world.tape.reader,
        decoder=Decoder(world.schemas),
        placement=placement,
        clock=clock,
    )
    facts = world.facts
    return QueryView(
        lake=LakeSide(world.snapshots, facts.partitions, facts.topic_id),
        tail=tail,
        coverage=Listening(lambda: world.facts.log_end),
        placement=placement,
        clock=clock,
        source="recorded",
    )


def said_of(view, times):
    """What an answer says of its completeness."""
    planned = view.plan(TradesRequest(symbols=(LIT.symbol,), range=times))
    opened = view.open(planned.request, planned.snapshot_id, planned.end)
    return opened.provenance.completeness


def test_the_recording_is_of_two_lives():
    assert FRAMES.read_text().splitlines() == printed()


def test_the_first_life_is_rows_and_the_second_is_dead_letters(world, line):
    assert (line.reused, line.missing.lowest, line.covered_through) == (len(SECOND_IDS), None, 60)
    pumped(world)
    rows = world.rows("symbol", "trade_id", "event_time")
    assert [row[:2] for row in rows] == [(LIT.symbol, one) for one in FIRST_IDS]
    assert {row[2].date().isoformat() for row in rows} == {"2025-01-27"}
    letters = world.tape.letters
    assert [one.fault for one in letters] == [Fault.REUSED_ID] * len(SECOND_IDS)
    assert [one.offset for one in letters] == [*range(60, 100)]
    values = world.tape.logs[line.partition].values
    assert [one.value for one in letters] == values[60:]
    report = world.verified()
    assert (report["ok"], report["problems"], report["holes"]) == (True, [], [])
    assert (report["rows"], report["duplicate"], report["dead"]) == (60, 0, 40)


@pytest.mark.parametrize("committed", [True, False])
def test_answers_that_reach_into_the_second_life_do_not_call_themselves_complete(
    world, line, committed
):
    if committed:
        pumped(world)
    view = view_of(world)
    view.start(maintain=False)
    try:
        reused_us = (SECOND_MS + 100) * 1000
        ends = (None, reused_us + 1, reused_us, FIRST_MS * 1000 + 6_000_000)
        said = [said_of(view, TimeRange(None, end_us)) for end_us in ends]
    finally:
        view.close()
    assert said == [Completeness.UNKNOWN] * 2 + [Completeness.COMPLETE] * 2


if __name__ == "__main__":
    FRAMES.write_text("\n".join(printed()) + "\n")
