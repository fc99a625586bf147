"""A small world for query tests: a tape, a lake that commits and compacts, a tail that evicts.

Everything is judged by the real fold; the lake keeps rows as tuples. `expected` is the answer by
definition: the accepted rows below E, nothing else.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from k2.market.files import FileIndex
from k2.market.fold import FoldState, Verdict, fold
from k2.market.instrument import Instrument
from k2.market.offsets import FileStat, OffsetVector
from k2.query.plan import LakeFacts, TailFacts
from k2.query.request import Order
from k2.tail.chunk import TailRows
from k2.tail.window import Window
from tests.support.trades import columns

EXCHANGE = "BINANCE"
HOMES = {"BTCUSDT": 0, "ETHUSDT": 0, "SOLUSDT": 1}


class Row(NamedTuple):
    """A row, in canonical order by its first four."""

    event_time: int
    exchange: str
    symbol: str
    trade_id: int
    partition: int
    offset: int

    @property
    def instrument(self):
        return Instrument(self.exchange, self.symbol)


@dataclass(frozen=True)
class Snapshot:
    positions: OffsetVector
    files: dict[str, tuple[Row, ...]]
    states: dict[int, FoldState]

    def facts(self):
        return LakeFacts(self.positions, FileIndex(map(_stat, self.files.items())))


def _stat(item):
    path, rows = item
    times = [row.event_time for row in rows]
    symbols = [row.symbol for row in rows]
    return FileStat(
        path, 1, len(rows), EXCHANGE, min(symbols), max(symbols), min(times), max(times)
    )


@dataclass
class World:
    """Partitions hold (symbol, trade_id, event_time) records; duplicates are welcome."""

    partitions: int = 2
    accepted: list[Row] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0, 0])
    judged: dict[int, FoldState] = field(default_factory=lambda: {0: FoldState(), 1: FoldState()})
    snapshots: list[Snapshot] = field(default_factory=list)
    clock_s: float = 0.0

    def __post_init__(self):
        zero = OffsetVector.zero(0, self.partitions)
        self.snapshots.append(Snapshot(zero, {}, dict(self.judged)))
        self.window = Window(zero, {})
        self.uncommitted = []
        self.named = 0
        self.paused = {}  # what the tail reads later of a partition that a level pauses

    @property
    def end(self):
        return OffsetVector(0, tuple(self.ends))

    def restart_tail(self):
        """A new tail starts at the newest snapshot and reads up to the end again."""
        snapshot = self.snapshots[-1]
        self.window = Window(snapshot.positions, snapshot.states)
        for partition in range(self.partitions):
            rows = [r for r in self.uncommitted if r.partition == partition]
            if partition in self.paused:
                self.paused[partition] = []
            self._read(partition, self._into_window, partition, rows, self.ends[partition])

    def pause(self, partition):
        """A level pauses a partition in the tail; the writer may read on."""
        self.paused.setdefault(partition, [])

    def resume(self, partition):
        """The tail reads what it missed."""
        for append, *arguments in self.paused.pop(partition, []):
            append(*arguments)

    def _read(self, partition, append, *arguments):
        if partition in self.paused:
            self.paused[partition].append((append, *arguments))
        else:
            append(*arguments)

    def print(self, partition, records):
        """Records arrive on the tape; writer and tail judge them."""
        first = self.ends[partition]
        batch = columns(
            [trade_id for _, trade_id, _ in records],
            symbols=[symbol for symbol, _, _ in records],
            times=[time for _, _, time in records],
            first_offset=first,
            varied=True,
        )
        self.judged[partition], verdicts, *_ = fold(self.judged[partition], batch)
        accepted = np.flatnonzero(verdicts == Verdict.ACCEPTED)
        self.clock_s += 1
        self.ends[partition] += len(records)
        end = self.ends[partition]
        self._read(partition, self._append, partition, batch, accepted, end, self.clock_s)
        rows = [
            Row(records[at][2], EXCHANGE, records[at][0], records[at][1], partition, first + at)
            for at in accepted.tolist()
        ]
        self.accepted += rows
        self.uncommitted += rows

    def commit(self):
        """The writer commits all it has judged, one file."""
        before = self.snapshots[-1]
        files = dict(before.files)
        if self.uncommitted:
            files[f"f{self._number()}"] = tuple(self.uncommitted)
        self.snapshots.append(Snapshot(self.end, files, dict(self.judged)))
        self.uncommitted = []

    def compact(self):
        """All files are rewritten as one of each symbol; older snapshots lose theirs."""
        newest = self.snapshots[-1]
        rows = sorted(row for of in newest.files.values() for row in of)
        of = {s: tuple(r for r in rows if r.symbol == s) for s in HOMES}
        number = self._number()
        files = {f"c{number}{s}": some for s, some in of.items() if some}
        self.snapshots.append(Snapshot(newest.positions, files, newest.states))

    def expire(self, kept):
        """All but the newest so many snapshots go."""
        self.snapshots = self.snapshots[-kept:]

    def covering(self, end):
        """The oldest snapshot kept that holds all below `end`; else the newest."""
        found = [one for one in self.snapshots if one.positions.covers(end)]
        return (found or self.snapshots[-1:])[0]

    def evict(self, age, bytes_max):
        """The tail lets go what the newest snapshot holds."""
        self.window.evict(self.snapshots[-1].positions, self.clock_s - age, bytes_max)

    def half_evict(self, early, late, other):
        """Evict one instrument's chunk, so that the low passes through that of its neighbour.

        Args:
            early, late: event times of the neighbour's rows below and above the low.
            other: of what goes.
        """
        first = 1000 * (self._number() + 1)
        rows = [("ETHUSDT", first + at, time) for at, time in enumerate(early)]
        rows += [("BTCUSDT", first + at, time) for at, time in enumerate(other)]
        self.print(0, rows)
        self.commit()
        above = first + len(early)
        self.print(0, [("ETHUSDT", above + at, time) for at, time in enumerate(late)])
        self.evict(0.5, 10**9)

    def tail(self, asked, end):
        """The facts and the view of the tail."""
        view = self.window.view(asked, end)
        facts = TailFacts(
            view.position,
            view.low,
            view.released,
            view.time_max_below,
            tuple(one.range for one in view.held.values()),
            frozenset(self.paused),
        )
        return facts, view

    def expected(self, request, end):
        """The answer by definition."""
        rows = sorted(
            row
            for row in self.accepted
            if row.offset < end[row.partition]
            and request.names(row.instrument)
            and request.range.overlaps(row.event_time, row.event_time)
        )
        return in_order(rows, request)

    def _number(self):
        """Of a file, unlike any other."""
        self.named += 1
        return self.named

    def _into_window(self, partition, rows, end):
        batch = columns(
            [row.trade_id for row in rows],
            symbols=[row.symbol for row in rows],
            times=[row.event_time for row in rows],
            varied=True,
        )
        batch.offset[:] = [row.offset for row in rows]
        self._append(partition, batch, np.arange(len(rows)), end, self.clock_s)

    def _append(self, *batch):
        self.window.append(*batch)


def in_order(rows, request):
    """Rows in the request's order, up to its limit."""
    return sorted(rows, reverse=request.order is Order.DESC)[: request.limit]


def read(plan, request, files, view):
    """Executes a plan over tuples."""
    rows = [
        row
        for stat in plan.files.stats
        for row in files[stat.path]
        if request.names(row.instrument)
        and plan.times.overlaps(row.event_time, row.event_time)
        and row.offset < plan.lake_ends.get(row.partition, row.offset + 1)
    ]
    pieces = []
    for chunk in plan.chunks:
        cut = plan.cuts[chunk.partition]
        pieces.append(view.held[chunk.chunk_id].cut(cut.low, cut.end))
    tail = TailRows(pieces, plan.times)
    order = tail.canonical(descending=request.order is Order.DESC, limit=None)
    names = ["event_time", "exchange", "symbol", "trade_id", "tape_partition", "tape_offset"]
    batch = tail.batch(names, order)
    of_tail = [
        Row(*values)
        for values in zip(
            batch.column("event_time").cast("int64").to_pylist(),
            *(batch.column(name).to_pylist() for name in names[1:]),
            strict=True,
        )
    ]
    assert of_tail == in_order(of_tail, request)[: len(of_tail)] or request.limit is not None
    return in_order(rows + of_tail, request)
