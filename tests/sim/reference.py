"""What the answer is, by definition: a naive fold, record by record, told what each record means.

It shares no code with K2's decoder, fold or plan: the simulation knows what it put on the tape, and
remembers ids in sets.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from k2 import limits
from k2.market.events import DAY_US, EVENT_TIME_MIN_US, RECORD_TIME_MAX_US, Trade
from k2.market.instrument import Instrument


class Row(NamedTuple):
    """An accepted trade, in canonical order by its first four."""

    event_time: int
    exchange: str
    symbol: str
    trade_id: int
    partition: int
    offset: int
    receive_time: int
    price: int
    quantity: int
    side: int
    source: str
    epoch: int

    @property
    def place(self):
        """Of the record that it was made of."""
        return self.epoch, self.partition, self.offset


@dataclass
class Judged:
    """A partition in one epoch: its records from `first` on, each with the row it is, or None.

    Attributes:
        first, rows: see above.
        dead: offsets of records that are none.
        seen: identities of all rows, those of earlier epochs included.
        decided: offsets of records that a commit has passed as dead, by what its writer knew.
        records: bytes and append time of each.
        newest: the greatest event time of the rows of each instrument, with the same.
        reused: offset, instrument and event time of the records that use an id again.
    """

    first: int = 0
    rows: list = field(default_factory=list)
    dead: set = field(default_factory=set)
    seen: set = field(default_factory=set)
    decided: frozenset = frozenset()
    records: list = field(default_factory=list)
    newest: dict = field(default_factory=dict)
    reused: list = field(default_factory=list)

    @property
    def end(self):
        return self.first + len(self.rows)

    def between(self, low, high):
        """The rows of these offsets."""
        found = self.rows[max(0, low - self.first) : max(0, high - self.first)]
        return [row for row in found if row is not None]


class Reference:
    """See the module.

    Args:
        partitions: how many.
        home: the partition of an instrument, when it has one.

    Attributes:
        epoch: of the tape.
        partitions: of that epoch.
        dead: places of all records that were none, also of such as no tape has any more.
        reused: of those among them that use an id again.
        doubtful: places of records that may be dead to a writer that cannot ask for their schema.
        doubted: identities of trades whose record is dead by the word of a commit.
    """

    def __init__(self, partitions, home):
        self.epoch = 0
        self.partitions = [Judged() for _ in range(partitions)]
        self.dead = set()
        self.reused = set()
        self.doubtful = set()
        self.doubted = set()
        self._past = []
        self._home = home
        self._meaning = {}
        self._newer = set()

    def begin_epoch(self, ends, logs):
        """The next epoch: of the last one remains what lies below `ends`, and its ids are known.

        Args:
            ends: where the last epoch ended.
            logs: of each partition the first offset to be judged, and from there on the values
                and when each was appended.

        Returns:
            Instrument and id of the rows that are lost.
        """
        before = set().union(*(judged.seen for judged in self.partitions))
        for judged, end in zip(self.partitions, ends, strict=True):
            judged.rows = judged.rows[: max(0, end - judged.first)]
            judged.reused = [one for one in judged.reused if one[0] < end]
        self._past.append(self.partitions)
        self.epoch += 1
        self.partitions = [Judged(first) for first, _ in logs]
        for partition, judged in enumerate(self.partitions):
            for row in self._rows_before(partition):
                self._take(judged, row)
            for value, at_us in logs[partition][1]:
                self.append(partition, value, at_us)
        return before.difference(*(judged.seen for judged in self.partitions))

    def begin_anew(self, logs):
        """The lake begins with what is there; see `begin_epoch`."""
        self.partitions = [Judged(first) for first, _ in logs]
        for partition, (_, values) in enumerate(logs):
            for value, at_us in values:
                self.append(partition, value, at_us)

    def _rows_before(self, partition):
        """The rows of a partition in the epochs before."""
        epochs = (partitions[partition] for partitions in self._past)
        return [row for judged in epochs for row in judged.rows if row is not None]

    def means(self, value, trade, newer=False):
        """Be told what bytes a trade has, and whether a schema is needed that few know."""
        self._meaning[value] = trade
        if newer:
            self._newer.add(value)

    def meaning(self, value):
        """The trade that bytes are."""
        return self._meaning[value]

    def append(self, partition, value, at_us):
        """Judge the next record of a partition.

        Args:
            partition: of the tape.
            value: its bytes.
            at_us: when it was appended.
        """
        judged = self.partitions[partition]
        offset = judged.end
        judged.records.append((value, at_us))
        if value in self._newer:
            self.doubtful.add((self.epoch, partition, offset))
        trade = self._meaning.get(value)
        row, dead = None, True
        if trade is not None and self._home(trade.label.instrument) == partition:
            row = row_of(trade, self.epoch, partition, offset)
            dead = offset in judged.decided or not is_of_a_time(row, at_us)
        if row is not None and not dead and identity_of(row) in judged.seen:
            instrument, _ = identity_of(row)
            dead = row.event_time > judged.newest[instrument] + REUSED_AFTER_US
            if dead:
                judged.reused.append((offset, instrument, row.event_time))
                self.reused.add((self.epoch, partition, offset))
            row = None
        if dead:
            row = None
            judged.dead.add(offset)
            self.dead.add((self.epoch, partition, offset))
        if row is not None:
            self._take(judged, row)
        judged.rows.append(row)

    def decide(self, partition, offset):
        """A commit has passed a doubtful record as dead: all behind it is judged again."""
        before = self.partitions[partition]
        self.doubted.add(identity_of(before.rows[offset - before.first]))
        self.dead -= {(self.epoch, partition, one) for one in before.dead}
        self.reused -= {(self.epoch, partition, one) for one, *_ in before.reused}
        again = Judged(before.first, decided=before.decided | {offset})
        self.partitions[partition] = again
        for row in self._rows_before(partition):
            self._take(again, row)
        for value, at_us in before.records:
            self.append(partition, value, at_us)

    def reused_below(self, end):
        """The event time of the first record of each instrument that uses an id again."""
        found = {}
        for epoch, partitions in enumerate([*self._past, self.partitions][: end.epoch + 1]):
            for judged, high in zip(partitions, end.offsets, strict=True):
                for offset, instrument, time_us in judged.reused:
                    if epoch < end.epoch or offset < high:
                        found.setdefault(instrument, time_us)
        return found

    def holes_below(self, end):
        """Instruments with an id missing between two that are rows."""
        ids = {}
        for row in self.held(end).values():
            instrument, one = identity_of(row)
            ids.setdefault(instrument, set()).add(one)
        return {each for each, of in ids.items() if max(of) - min(of) + 1 != len(of)}

    def doubtful_between(self, partition, low, high):
        """Offsets of doubtful records of this epoch."""
        return [one for one in range(low, high) if (self.epoch, partition, one) in self.doubtful]

    def row(self, partition, offset):
        """The row that a record of this epoch is; None where it is none."""
        judged = self.partitions[partition]
        return judged.rows[offset - judged.first]

    def shadows(self, partition, start, gone):
        """Duplicates of rows that are gone, where nothing that is left tells that there were any.

        So of a symbol that a venue began again, when records from `start` on repeat each id that
        neither tape nor lake has, and none of its records was REUSED_ID.

        Args:
            partition: of this epoch.
            start: where the tape begins.
            gone: places of rows that the lake does not have any more.

        Returns:
            Their offsets.
        """
        judged, hidden, copies = self.partitions[partition], {}, {}
        for row in judged.between(judged.first, start):
            if row.place in gone:
                instrument, one = identity_of(row)
                hidden.setdefault(instrument, set()).add(one)
        for offset in range(start, judged.end):
            if judged.rows[offset - judged.first] is None and offset not in judged.dead:
                trade = self._meaning[judged.records[offset - judged.first][0]]
                copies.setdefault(trade.label.instrument, {})[offset] = trade.trade_id
        reused = {instrument for _, instrument, _ in judged.reused}
        return {
            offset
            for instrument in hidden.keys() - reused
            if hidden[instrument] <= set((of := copies.get(instrument, {})).values())
            for offset in of
        }

    @property
    def doubtful_trades(self):
        """Identities of all trades of doubtful records."""
        trades = map(self._meaning.get, self._newer)
        return {(trade.label.instrument, trade.trade_id) for trade in trades}

    @staticmethod
    def _take(judged, row):
        """Remember what a row says of those after it."""
        instrument, _ = identity = identity_of(row)
        judged.seen.add(identity)
        judged.newest[instrument] = max(judged.newest.get(instrument, 0), row.event_time)

    def ends(self):
        """Where each partition ends."""
        return tuple(judged.end for judged in self.partitions)

    def accepted(self, start, end):
        """The rows between two vectors of this epoch, by place on the tape."""
        return {
            row.place: row
            for judged, low, high in zip(self.partitions, start, end, strict=True)
            for row in judged.between(low, high)
        }

    def held(self, positions):
        """The rows below positions of any epoch, by place on the tape."""
        found = {
            row.place: row
            for partitions in self._past[: positions.epoch]
            for judged in partitions
            for row in judged.rows
            if row is not None
        }
        of = [*self._past, self.partitions][positions.epoch]
        for judged, end in zip(of, positions.offsets, strict=True):
            found |= {row.place: row for row in judged.between(judged.first, end)}
        return found

    def dead_between(self, start, end):
        """Places of the records between two vectors of this epoch that are none."""
        return {
            (self.epoch, partition, offset)
            for partition, judged in enumerate(self.partitions)
            for offset in judged.dead
            if start[partition] <= offset < end[partition]
        }

    def count(self, partition, end):
        """Accepted, duplicate and dead records of a partition below an offset, in this epoch.

        Those of doubtful records that are duplicates may count as dead: no row tells.
        """
        judged = self.partitions[partition]
        accepted = len(judged.between(judged.first, end))
        dead = sum(offset < end for offset in judged.dead)
        return accepted, end - judged.first - accepted - dead, dead

    def seen(self, partition, end):
        """Per instrument what was accepted below an offset.

        Returns:
            Its ids, the newest event time, and that of the first record that used an id again.
        """
        found, judged = {}, self.partitions[partition]
        reused = [one for partitions in self._past for one in partitions[partition].reused]
        reused += [one for one in judged.reused if one[0] < end]
        first = {instrument: time_us for _, instrument, time_us in reversed(reused)}
        for row in (*self._rows_before(partition), *judged.between(judged.first, end)):
            instrument = Instrument(row.exchange, row.symbol)
            ids, newest, _ = found.get(instrument, (set(), 0, None))
            ids.add(row.trade_id)
            found[instrument] = ids, max(newest, row.event_time), first.get(instrument)
        return found

    def ids(self, partition, instrument):
        """All ids of an instrument that are rows of a partition."""
        return {one for name, one in self.partitions[partition].seen if name == instrument}

    def lacks(self, instrument, first_id, last_id):
        """Ids of a range, both ends inclusive, that are no rows, nor dead by a commit's word."""
        seen = self.partitions[self._home(instrument)].seen
        ids = range(first_id, last_id + 1)
        return [
            one
            for one in ids
            if (instrument, one) not in seen and (instrument, one) not in self.doubted
        ]

    def answer(self, request, end):
        """What a request must give when it is cut at `end`."""
        rows = sorted(
            row
            for row in self.held(end).values()
            if (not request.symbols or row.symbol in request.symbols)
            and (request.range.start_us is None or row.event_time >= request.range.start_us)
            and (request.range.end_us is None or row.event_time < request.range.end_us)
        )
        if request.order.value == "desc":
            rows.reverse()
        return rows[: request.limit]


REUSED_AFTER_US = limits.REUSED_ID_AFTER_S * 1_000_000


def is_of_a_time(row, appended_us):
    """Whether the times of a record are such as K2 stores."""
    latest_us = min(appended_us + DAY_US, RECORD_TIME_MAX_US - 1)
    return (
        EVENT_TIME_MIN_US <= row.event_time <= latest_us
        and EVENT_TIME_MIN_US <= row.receive_time < RECORD_TIME_MAX_US
    )


def identity_of(row):
    """What no two rows share."""
    return Instrument(row.exchange, row.symbol), row.trade_id


def row_of(trade: Trade, epoch, partition, offset):
    """A trade as it is in the lake."""
    label = trade.label
    return Row(
        trade.event_time_us, label.exchange, label.symbol, trade.trade_id, partition, offset,
        trade.receive_time_us, trade.price, trade.quantity, trade.side, label.source, epoch,
    )  # fmt: skip


def rows_of(table):
    """The rows of an Arrow table with the columns of the trade."""
    columns = [
        table.column("event_time").cast("int64").to_pylist(),
        *(
            table.column(name).to_pylist()
            for name in ("exchange", "symbol", "trade_id", "tape_partition", "tape_offset")
        ),
        table.column("receive_time").cast("int64").to_pylist(),
        [mantissa(value) for value in table.column("price").to_pylist()],
        [mantissa(value) for value in table.column("quantity").to_pylist()],
        [("BUY", "SELL").index(side) for side in table.column("side").to_pylist()],
        table.column("source").to_pylist(),
        table.column("tape_epoch").to_pylist(),
    ]
    return [Row(*values) for values in zip(*columns, strict=True)]


def mantissa(value):
    """A decimal in units of 1e-8."""
    return int(value.scaleb(8))
