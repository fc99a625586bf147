"""A feed's process: K2's session, intake, lines and high waters between a simulated venue and tape.

The loop is that of `k2.feed.pump` without its event loop: frames in, acknowledgements collected,
high waters published, now and then. The network loses, doubles, delays and spoils frames and cuts
connections; a feed that dies takes its unacknowledged trades with it, and the next one goes on from
the high water on the board.
"""

import json

from k2.errors import K2Error, Unavailable
from k2.feed.binance import BinanceSource
from k2.feed.high_water import HighWaters
from k2.feed.intake import Intake
from k2.feed.letters import LetterBox
from k2.feed.line import Line
from k2.feed.session import Action, Session, Tuning
from k2.market.instrument import Instrument
from k2.tape import topics
from k2.tape.codec import encode_trade
from k2.tape.placement import Placement
from tests.sim.oracle import require
from tests.sim.process import EPOCH_US
from tests.sim.tape import Board, Office, Producer

EXCHANGE = "BINANCE"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "ADAUSDT", "PEPEUSDT")
SCHEMA_ID = 7
SOURCE = "simulated"
TICK_S = (0.02, 0.4)
LATE_S = (0.05, 4.0)
TUNING = Tuning(
    stale_s=4, quiet_max_s=20, backoff_min_s=0.1, backoff_max_s=2, renew_s=15, overlap_s=1,
    connect_s=1,
)  # fmt: skip


class Venue:
    """Prints trades with contiguous ids, for ever the same ones."""

    def __init__(self, world):
        self.world = world
        self.symbols = SYMBOLS[: world.swarm.symbols]
        self.next_id = {
            symbol: int(world.chance.integers(1, 1_000_000_000)) for symbol in self.symbols
        }
        self.printed = {symbol: {} for symbol in self.symbols}
        self.wires = {}
        self.open = True

    def run(self):
        """Trade, in bursts."""
        world = self.world
        while self.open:
            for _ in range(int(world.chance.geometric(0.3))):
                self.print(str(world.chance.choice(self.symbols)))
            world.scheduler.pause(world.chance.exponential(3.3 / world.swarm.rate))

    def print(self, symbol):
        """One trade, to everybody who listens."""
        trade_id = self.next_id[symbol]
        self.next_id[symbol] += 1
        world = self.world
        back_us = int(world.chance.integers(0, 3_000_000)) if world.chance.random() < 0.1 else 0
        data = {
            "e": "trade", "E": 1, "s": symbol, "t": trade_id,
            "p": f"{world.chance.integers(1, 99999)}.{world.chance.integers(0, 99)}",
            "q": f"{world.chance.integers(1, 999)}",
            "T": EPOCH_US + int(world.scheduler.now_s * 1e6) - back_us,
            "m": bool(world.chance.random() < 0.5), "M": True,
        }  # fmt: skip
        frame = json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}).encode()
        self.printed[symbol][trade_id] = frame
        for wire in list(self.wires.values()):
            wire.carry(frame)


class Wire:
    """One connection, from the venue to a feed."""

    def __init__(self, world):
        self._world = world
        self._frames = []

    def carry(self, frame):
        """Deliver a frame at some time, or not, or twice, or not as it was."""
        world = self._world
        if world.happens("net.drop"):
            return
        if world.happens("net.garbage"):
            self._frames.append((world.scheduler.now_s, frame[: int(world.chance.integers(0, 80))]))
        for _ in range(1 + world.happens("net.double")):
            delay_s = world.chance.uniform(*LATE_S) if world.happens("net.late") else 0.0
            self._frames.append((world.scheduler.now_s + delay_s, frame))

    @property
    def waiting(self):
        """Frames on the way."""
        return len(self._frames)

    def take(self):
        """What has come by now."""
        now_s = self._world.scheduler.now_s
        come = sorted((each for each in self._frames if each[0] <= now_s), key=lambda one: one[0])
        self._frames = [each for each in self._frames if each[0] > now_s]
        return [frame for _, frame in come]


class Box(LetterBox):
    """The real box without its thread: letters go when the loop says so."""

    def deliver(self):
        """Publish what waits, once."""
        letters = list(self._waiting)
        if letters:
            try:
                self._office.publish(letters, 1.0)
            except Unavailable:
                return
            self._done(letters)


def lines_of(process, tape, symbols):
    """The lines of a feed that starts now, and its high waters."""
    placement = Placement(Board(process, tape, topics.PARTITIONS), tape.topic_id, 1)
    high_waters = HighWaters(Board(process, tape, topics.HIGH_WATER), process.identity)
    instruments = [Instrument(EXCHANGE, symbol) for symbol in symbols]
    resumed = high_waters.read(instruments)
    lines = [Line(each, placement.place(each), resumed.get(each)) for each in instruments]
    return lines, high_waters


class Feed:
    """One life of a feed."""

    def __init__(self, process, venue, tape):
        self.process = process
        self._venue = venue
        self._tape = tape
        self._session = Session(process.world.chance, TUNING)
        self._wires = {}
        self._sent = {}
        self._intake = None
        self._source = BinanceSource(
            url="wss://sim", exchange=EXCHANGE, symbols=venue.symbols, source=SOURCE
        )

    def run(self):
        """Feed for ever."""
        process, chance = self.process, self.process.world.chance
        lines, high_waters = self._patiently()
        self._producer = Producer(process, self._tape, int(chance.integers(5, 99)))
        self._box = Box(Office(process, self._tape), f"feed:{process.identity}")
        self._intake = Intake(
            source=self._source, tape=self._producer, lines=lines, encode=self._encode,
            letters=self._box, headers={},
        )  # fmt: skip
        try:
            self._obey(self._session.start(process.monotonic_s()))
            while True:
                process.before("feed")
                self._obey(self._session.tick(process.monotonic_s()))
                self._read()
                process.sleep(chance.uniform(*TICK_S))
                self._send()
                high_waters.publish(lines, process.now_us())
                self._judge(lines)
        finally:
            for link in list(self._wires):
                self._cut(link)

    @property
    def idle(self):
        """Whether all that came was sent and acknowledged."""
        waits = self._intake is None or self._intake.blocked or self._producer.depth()
        return not waits and not any(wire.waiting for wire in self._wires.values())

    def _send(self):
        self._box.deliver()
        self._producer.poll()
        self._intake.unblock()

    def _patiently(self):
        while True:
            try:
                return lines_of(self.process, self._tape, self._venue.symbols)
            except K2Error:
                self.process.sleep(0.5)

    def _judge(self, lines):
        """Every trade that this run sent before its high water, and that one, is on the tape."""
        if self.process.world.awaits_epoch:
            return  # what is on the tape is judged when the epoch begins
        for line in lines:
            sent = self._sent.get(line.instrument, [])
            if line.high_water in sent:
                below = sent[: sent.index(line.high_water) + 1]
                lost = set(below) - self.process.world.reference.ids(
                    line.partition, line.instrument
                )
                require(not lost, "below the high water, and not on the tape", line.key, lost)
                del sent[: len(below)]

    def _encode(self, trade):
        self._sent.setdefault(trade.label.instrument, []).append(trade.trade_id)
        value = encode_trade(trade, SCHEMA_ID)
        self.process.world.reference.means(value, trade)
        return value

    def _read(self):
        for link, wire in list(self._wires.items()):
            now_s = self.process.monotonic_s()
            if self.process.world.happens("net.cut"):
                self._cut(link)
                self._session.lost(link, now_s)
                continue
            frames, taken = wire.take(), 0
            if frames:
                self._session.received(link, now_s)
            while taken < len(frames):
                taken = self._intake.take(frames, taken, self.process.now_us())
                while self._intake.blocked:
                    self.process.before("wait for room")
                    self._session.held_up(self.process.monotonic_s())
                    self._send()

    def _obey(self, commands):
        for action, link, _ in commands:
            now_s = self.process.monotonic_s()
            if action is Action.CONNECT:
                if self.process.world.happens("net.cut"):
                    self._session.lost(link, now_s)
                    continue
                wire = self._wires[link] = Wire(self.process.world)
                self._venue.wires[self.process.identity, link] = wire
                self._session.opened(link, now_s)
            elif action is Action.CLOSE:
                self._cut(link)
            elif action is Action.PING:
                self._session.alive(link, now_s)

    def _cut(self, link):
        self._wires.pop(link, None)
        self._venue.wires.pop((self.process.identity, link), None)


class Backfill:
    """Sends trades again by their ids, as a backfill over REST does."""

    def __init__(self, process, venue, tape):
        self._process = process
        self._venue = venue
        self._tape = tape
        self._source = BinanceSource(
            url="wss://sim", exchange=EXCHANGE, symbols=venue.symbols, source="backfill"
        )

    def send(self, wanted):
        """Send these (symbol, id), in this order, until all are acknowledged."""
        process, reference = self._process, self._process.world.reference
        producer = Producer(process, self._tape, len(wanted) + 1)
        board = Board(process, self._tape, topics.PARTITIONS)
        placement = Placement(board, self._tape.topic_id, 1)
        for symbol, trade_id in wanted:
            frame = self._venue.printed[symbol][trade_id]
            (trade,) = self._source.decode(frame, process.now_us())
            value = encode_trade(trade, SCHEMA_ID)
            reference.means(value, trade)
            partition = placement.place(trade.label.instrument)
            producer.send(trade.label.instrument.key.encode(), value, partition)
        while producer.depth():
            process.before("backfill")
            producer.poll()
