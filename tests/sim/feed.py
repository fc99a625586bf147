"""A feed's process: K2's session, intake, lines and high waters between a simulated venue and tape.

The loop is that of `k2.feed.publish.loop` without its event loop: frames in, acknowledgements
collected, gaps told, high waters published, now and then; `backfill.py` is what goes on beside it.
The network loses, doubles, delays and spoils frames and cuts connections; a feed that dies takes
its unacknowledged trades with it, and the next one goes on from the high water on the board.
"""

import json
from typing import NamedTuple

from k2 import limits
from k2.errors import K2Error, Unavailable
from k2.feed.connection.session import Action, Session, SessionTimes, State
from k2.feed.publish.coverage_topic import CoverageTopic
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.publish.publisher import TradePublisher
from k2.feed.venues.binance import BinanceSource
from k2.market.instrument import Instrument
from k2.tape import topics
from k2.tape.avro.trade_codec import encode_trade
from k2.tape.partition_map import PartitionMap
from tests.sim.backfill import EXCHANGE, backfill_of
from tests.sim.tape import Board, Office, Producer
from tests.sim.violation import require

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "ADAUSDT", "PEPEUSDT")
SCHEMA_ID = 7
SOURCE = "simulated"
TICK_S = (0.02, 0.4)
LATE_S = (0.05, 4.0)
LATER_S = (3000.0, 12_000.0)  # than all trades of before, when a venue is reset
AHEAD_MAX_US = 20 * 3600 * 1_000_000
TUNING = SessionTimes(
    stale_s=4, quiet_max_s=20, backoff_min_s=0.1, backoff_max_s=2, renew_s=15, overlap_s=1,
    connect_s=1,
)  # fmt: skip


class Printed(NamedTuple):
    """A trade as the stream had it, and when."""

    frame: bytes
    at_s: float


class Venue:
    """Prints trades with contiguous ids; now and then it begins those of a symbol again.

    Attributes:
        printed: of each symbol in its present life.
        reset: symbols whose ids were begun again.
        ahead_us: how far a symbol's event times are ahead, for it was reset hours later.
    """

    def __init__(self, world):
        self.world = world
        self.symbols = SYMBOLS[: world.swarm.symbols]
        highest = 1_000_000_000 if "venue.reset" not in world.swarm.every_s else 2
        self.next_id = {symbol: int(world.chance.integers(1, highest)) for symbol in self.symbols}
        self.reset = set()
        self.ahead_us = dict.fromkeys(self.symbols, 0)
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

    def begin_ids_again(self):
        """Reset a symbol: its ids begin at 1, and its trades are of hours later."""
        symbol = str(self.world.chance.choice(self.symbols))
        ahead_us = self.ahead_us[symbol] + int(self.world.chance.uniform(*LATER_S) * 1e6)
        if ahead_us < AHEAD_MAX_US and self.next_id[symbol] > 1:
            self.reset.add(symbol)
            self.ahead_us[symbol], self.next_id[symbol] = ahead_us, 1
            self.printed[symbol] = {}

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
            "T": world.now_us() + self.ahead_us[symbol] - back_us,
            "m": bool(world.chance.random() < 0.5), "M": True,
        }  # fmt: skip
        frame = json.dumps({"stream": f"{symbol.lower()}@trade", "data": data}).encode()
        self.printed[symbol][trade_id] = Printed(frame, world.scheduler.now_s)
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


class Box(DeadLetterPublisher):
    """The real box without its thread: letters go when the loop says so."""

    def deliver(self):
        """Publish what waits, once."""
        letters = list(self._waiting)
        if letters:
            try:
                self._sink.publish(letters, 1.0)
            except Unavailable:
                return
            self._done(letters)


def lines_of(process, tape, symbols):
    """The lines of a feed that starts now, and its high waters."""
    placement = PartitionMap(Board(process, tape, topics.PARTITIONS), tape.topic_id, 1)
    board = Board(process, tape, topics.COVERAGE)
    coverage = CoverageTopic(board, process.name, process.identity)
    instruments = [Instrument(EXCHANGE, symbol) for symbol in symbols]
    resumed = coverage.read(instruments)
    line = process.world.parts.line
    lines = [line(each, placement.place(each), resumed.get(each)) for each in instruments]
    for one in lines:
        one.begun = one.resumed_after is not None
    return lines, coverage


class Feed:
    """One life of a feed."""

    def __init__(self, process, venue, tape):
        self.process = process
        self._venue = venue
        self._tape = tape
        self._session = Session(process.world.chance, TUNING)
        self._wires = {}
        self._sent = {}
        self._promised = {}
        self._publish_s = self._begin_s = 0.0
        self._reconnects = 0
        self._lines = []
        self._intake = None
        self._source = BinanceSource(
            url="wss://sim", exchange=EXCHANGE, symbols=venue.symbols, source=SOURCE
        )

    def run(self):
        """Feed for ever."""
        process, chance = self.process, self.process.world.chance
        self._lines, self._coverage = self._patiently()
        self._producer = Producer(process, self._tape, int(chance.integers(5, 99)))
        self._box = Box(Office(process, self._tape), f"feed:{process.identity}")
        self._intake = TradePublisher(
            source=self._source, tape=self._producer, streams=self._lines, encode=self._encode,
            letters=self._box, headers={},
        )  # fmt: skip
        self._gaps = backfill_of(process, self._venue, self._producer, self._lines, self._encoded)
        try:
            self._obey(self._session.start(process.monotonic_s()))
            while True:
                process.before("feed")
                self._obey(self._session.tick(process.monotonic_s()))
                self._read()
                process.sleep(chance.uniform(*TICK_S))
                self._tick()
        finally:
            for link in list(self._wires):
                self._cut(link)

    @property
    def idle(self):
        """Whether all that came was sent and acknowledged."""
        waits = self._intake is None or self._intake.blocked or self._producer.depth()
        return not waits and not any(wire.waiting for wire in self._wires.values())

    @property
    def listens(self):
        """Whether it hears what is printed."""
        return bool(self._wires)

    @property
    def has_told(self):
        """Whether the ledger has all that this life missed."""
        return all(line.missing.lowest is None for line in self._lines)

    def _tick(self):
        """What `Pump` does many times a second."""
        self._box.deliver()
        self._producer.poll()
        self._begin()
        self._intake.unblock()
        now_s = self.process.monotonic_s()
        if self._session.reconnects != self._reconnects:
            self._reconnects = self._session.reconnects
            for line in self._lines:
                line.interrupted()
        self._gaps.exchange(self._lines, now_s)
        if now_s >= self._publish_s:
            self._beat()
            self._publish_s = now_s + limits.FEED_COVERAGE_INTERVAL_S
            self._judge()
            self._coverage.publish(self._lines, self.process.now_us())

    def _beat(self):
        """Say what is listened to; the board of heartbeats is no part of the simulation."""
        hears = self._session.state in (State.LIVE, State.RENEWING) and not self._intake.blocked
        listened = {line.instrument for line in self._lines if line.keeps_up() and hears}
        if not self._tape.away:
            world = self.process.world
            world.beats[self.process.name] = world.scheduler.now_s, listened

    def _begin(self):
        new = [line for line in self._lines if line.beginning is not None]
        now_us = self.process.now_us()
        if (
            new
            and self.process.monotonic_s() >= self._begin_s
            and not self._coverage.begin(new, now_us, limits.FEED_BEGIN_WAIT_S)
        ):
            self._begin_s = self.process.monotonic_s() + limits.FEED_BACKOFF_MIN_S

    def _patiently(self):
        while True:
            try:
                return lines_of(self.process, self._tape, self._venue.symbols)
            except K2Error:
                self.process.sleep(0.5)

    def _judge(self):
        """Every trade that this run sent up to its high water, and that one, is on the tape.

        What it promises beyond is known to be missing.
        """
        world = self.process.world
        if world.awaits_epoch:
            return  # what is on the tape is judged when the epoch begins
        for line in self._lines:
            sent = self._sent.setdefault(line.instrument, [])
            if line.reused:
                sent.clear()  # the venue began its ids again: the high water is of their first life
            if line.acknowledged_id in sent:
                below = sent[: sent.index(line.acknowledged_id) + 1]
                lacks = world.reference.lacks
                lost = [one for one in below if lacks(line.instrument, one, one)]
                require(not lost, "below the high water, and not on the tape", line.key, lost)
                del sent[: len(below)]
            self._judge_promise(line)

    def _judge_promise(self, line):
        if line.covered_through is None:
            return
        world, before = self.process.world, line.resumed_after
        if before is None:
            before = line.sequence.first - 1
        before = self._promised.get(line.instrument, before)
        untold = [
            one
            for one in world.reference.lacks(line.instrument, before + 1, line.covered_through)
            if not world.ops.ledger.within(line.instrument, one, one)
        ]
        require(not untold, "promised, neither on the tape nor told", line.key, untold)
        self._promised[line.instrument] = max(before, line.covered_through)

    def _encode(self, trade):
        self._sent.setdefault(trade.label.instrument, []).append(trade.trade_id)
        return self._encoded(trade)

    def _encoded(self, trade):
        world = self.process.world
        value = encode_trade(trade, world.schema_id)
        world.reference.means(value, trade, world.schema_id != SCHEMA_ID)
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
                    self._tick()

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
