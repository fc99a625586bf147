"""Frames to the tape: nothing sent twice, nothing dropped, whatever the tape and the frames are."""

from k2 import tracing
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.feed.venues.binance import BinanceSource
from k2.market.instrument import Instrument
from k2.tape.avro.trade_codec import Decoder, encode_trade
from tests.fakes.scripted_venue import TIME_MS, frame
from tests.fakes.tape import FakeTape
from tests.support.messages import SCHEMA_ID, Schemas, raw
from tests.support.spans import recorded

NOW_US = 1_760_000_000_000_000
BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")


class World:
    """An intake before a fake tape."""

    def __init__(self, queue_max=1000):
        self.tape = FakeTape()
        self.producer = self.tape.producer(queue_max)
        self.lines = [InstrumentStream(BTC, 0, None), InstrumentStream(ETH, 3, None)]
        self.letters = DeadLetterPublisher(self.tape.office(), "f")
        self.intake = TradePublisher(
            source=BinanceSource(
                url="ws://x",
                exchange="BINANCE",
                symbols=["BTCUSDT", "ETHUSDT"],
                source="simulated",
            ),
            tape=self.producer,
            streams=self.lines,
            encode=lambda trade: encode_trade(trade, SCHEMA_ID),
            letters=self.letters,
            headers={"source": b"simulated"},
        )

    def take(self, *frames, start=0):
        return self.intake.take([each.encode() for each in frames], start, NOW_US)

    def ids(self, partition):
        self.producer.poll()
        values = self.tape.logs[partition].values
        return Decoder(Schemas()).decode(raw(values)).trade_id.tolist()


def test_trades_go_to_their_partitions_in_order():
    world = World()
    assert world.take(frame(1), frame(7, "ETHUSDT"), frame(2)) == 3
    assert (world.ids(0), world.ids(3)) == ([1, 2], [7])
    assert world.tape.logs[3].keys == [b"BINANCE:ETHUSDT"]
    assert [line.acknowledged_id for line in world.lines] == [2, 7]
    assert world.intake.frames == 3


def test_what_this_run_has_certainly_seen_is_sent_once():
    world = World()
    world.take(frame(5), frame(7), frame(5), frame(6), frame(7), frame(6))
    assert world.ids(0) == [5, 7, 6]
    assert world.lines[0].sequence.counts.duplicates == 3


def test_what_is_not_certainly_a_duplicate_is_sent():
    world = World()
    world.take(frame(5), frame(4), frame(4))
    assert world.ids(0) == [5, 4, 4]


def test_skipped_malformed_and_announced():
    world = World()
    world.take(
        '{"stream":"x@kline","data":{"e":"kline"}}', "{", frame(1, p="x"), '{"e":"serverShutdown"}'
    )
    assert world.intake.skipped == {"kline": 1}
    assert world.intake.malformed == 2
    assert world.intake.shutdown_announced
    world.letters.start()
    world.letters.close(5)
    assert [letter.offset for letter in world.tape.letters] == [1, 2]
    assert world.tape.letters[0].value == b"{"


def later(trade_id, seconds):
    return frame(trade_id, T=TIME_MS + seconds * 1000)


def test_ids_that_a_venue_begins_again_are_sent_and_say_nothing_of_what_is_missing():
    world = World()
    (line, _) = world.lines
    world.take(later(1, 0), later(2, 5), later(5, 4))
    world.take(later(1, 3605), later(2, 3606), later(4, 3607), later(4, 3607))
    assert world.ids(0) == [1, 2, 5, 2, 4, 4], "up to an hour it is a copy"
    assert (line.reused, line.acknowledged, line.acknowledged_id) == (3, 6, 5)
    assert (line.sequence.gaps, line.sequence.counts.gaps) == (((3, 4),), 1)
    world.take(later(6, 7200), later(6, 7200), later(2, 9000), later(1, 10_801))
    assert world.ids(0)[6:] == [6, 1], "a new id carries the time on"


def test_far_below_all_ids_it_is_no_new_beginning_either():
    world = World()
    (line, _) = world.lines
    world.take(later(5_000_000, 0), later(1, 3601), later(2, 3602), later(4, 3603))
    assert world.ids(0) == [5_000_000, 1, 2, 4]
    assert (line.acknowledged_id, line.sequence.counts.resets, line.sequence.gaps) == (
        5_000_000,
        0,
        (),
    )


def test_what_an_earlier_run_promised_is_not_taken_back_by_an_id_that_is_used_again():
    world = World()
    line = world.lines[0] = InstrumentStream(BTC, 0, 60)
    world.intake._streams["BTCUSDT"] = line
    world.take(later(61, 0))
    world.take(later(3, 4000))
    world.ids(0)
    assert (line.acknowledged_id, line.covered_through) == (61, 61)


def test_one_absurd_time_does_not_hide_that_ids_are_used_again():
    world = World()
    day_s = 86_400
    world.take(later(1, 0), later(2, 100 * day_s), later(3, 1), later(1, 2 * 3600))
    assert world.ids(0) == [1, 2, 3, 1]


def test_an_id_without_a_trade_is_neither_sent_nor_missed():
    world = World()
    void = frame(6, p="0", q="0", X="NA")
    world.take(frame(5), void, void, frame(7), frame(9, p="0", q="0", X="NA"), frame(10))
    assert world.ids(0) == [5, 7, 10]
    assert (world.intake.void, world.intake.malformed) == (2, 0)
    (line, _) = world.lines
    assert (line.sequence.counts.gaps, line.sequence.gaps) == (1, ((8, 8),))
    runs = line.missing.due(0.0)
    assert [(run.first_id, run.last_id, run.state.value) for run in runs] == [
        (6, 6, "VOID"), (9, 9, "VOID"),
    ]  # fmt: skip
    assert (line.acknowledged_id, line.covered_through) == (10, 5), "until the ledger has them"
    for run in runs:
        line.missing.recorded(run)
    assert line.covered_through == 7
    world.take(frame(8, p="0", q="0", X="NA"))
    assert [(run.first_id, run.state.value) for run in line.missing.due(2.0)] == [(8, "VOID")], (
        "late"
    )


def test_a_full_tape_blocks_and_nothing_is_lost():
    world = World(queue_max=2)
    frames = [frame(trade_id) for trade_id in range(1, 7)]
    assert world.take(*frames) == 3, "the third was read and refused by the tape"
    assert world.intake.blocked
    assert world.intake.refused == 1
    assert world.take(*frames, start=3) == 3
    assert not world.intake.unblock()
    world.producer.poll()
    assert world.intake.unblock()
    assert world.take(*frames, start=3) == 5
    world.producer.poll()
    world.intake.unblock()
    assert world.take(*frames, start=5) == 6
    assert world.ids(0) == [1, 2, 3, 4, 5, 6]
    assert world.intake.frames == 6


def test_trades_of_a_line_that_has_not_begun_wait_and_all_behind_them():
    world = World()
    btc = world.lines[0]
    btc.begun = False
    assert btc.beginning is None
    assert world.take(frame(7, "ETHUSDT"), frame(5), frame(8, "ETHUSDT")) == 2
    assert (world.intake.blocked, world.intake.refused, btc.beginning) == (True, 1, 5)
    assert not world.intake.unblock()
    btc.begun = True
    assert world.intake.unblock()
    assert btc.beginning is None
    assert world.take(frame(8, "ETHUSDT")) == 1
    assert (world.ids(0), world.ids(3)) == ([5], [7, 8])


def test_a_full_box_of_letters_blocks_too():
    world = World()
    frames = ["{"] * 2000
    taken = world.take(*frames)
    assert taken < 2000
    assert world.intake.blocked
    assert not world.intake.unblock()
    world.letters.start()
    world.letters.close(5)
    assert world.intake.unblock()
    assert world.take(*frames, start=taken) == 2000


def test_an_empty_batch_is_nothing():
    assert World().take() == 0


def test_the_records_of_a_traced_batch_say_so_also_when_they_had_to_wait():
    world = World(queue_max=1)
    with recorded(), tracing.begin(tracing.PUBLISH) as span:
        world.take(frame(1))
        world.take(frame(2))  # refused
    assert world.intake.blocked
    world.producer.poll()
    assert world.take(frame(3)) == 0
    assert world.intake.unblock()
    world.producer.poll()
    world.take(frame(3))
    world.producer.poll()
    traced = {"source": b"simulated", "traceparent": span.traceparents[0].encode()}
    assert world.tape.logs[0].headers == [traced, traced, {"source": b"simulated"}]
