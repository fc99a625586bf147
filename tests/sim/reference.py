"""What the answer is, by definition: a naive fold, record by record, told what each record means.

It shares no code with K2's decoder, fold or plan: the simulation knows what it put on the tape, and
remembers ids in sets.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from k2.market.events import Trade
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


@dataclass
class Judged:
    """A partition: its records, each with the row it is, or None."""

    rows: list = field(default_factory=list)
    dead: set = field(default_factory=set)
    seen: set = field(default_factory=set)


class Reference:
    """See the module.

    Args:
        partitions: how many.
        home: the partition of an instrument, when it has one.
    """

    def __init__(self, partitions, home):
        self.partitions = [Judged() for _ in range(partitions)]
        self._home = home
        self._meaning = {}

    def means(self, value, trade):
        """Be told what bytes a trade has."""
        self._meaning[value] = trade

    def append(self, partition, value):
        """Judge the next record of a partition."""
        judged = self.partitions[partition]
        offset = len(judged.rows)
        trade = self._meaning.get(value)
        row = None
        if trade is None or self._home(trade.label.instrument) != partition:
            judged.dead.add(offset)
        else:
            identity = (trade.label.instrument, trade.trade_id)
            if identity not in judged.seen:
                judged.seen.add(identity)
                row = row_of(trade, partition, offset)
        judged.rows.append(row)

    def ends(self):
        """Where each partition ends."""
        return tuple(len(judged.rows) for judged in self.partitions)

    def accepted(self, start, end):
        """The rows between two vectors, by place on the tape."""
        return {
            (row.partition, row.offset): row
            for judged, low, high in zip(self.partitions, start, end, strict=True)
            for row in judged.rows[low:high]
            if row is not None
        }

    def dead(self, start, end):
        """Places of the records between two vectors that are none."""
        return {
            (partition, offset)
            for partition, judged in enumerate(self.partitions)
            for offset in judged.dead
            if start[partition] <= offset < end[partition]
        }

    def count(self, partition, end):
        """Accepted, duplicate and dead records of a partition below an offset."""
        judged = self.partitions[partition]
        accepted = sum(row is not None for row in judged.rows[:end])
        dead = sum(offset < end for offset in judged.dead)
        return accepted, end - accepted - dead, dead

    def seen(self, partition, end):
        """Per instrument the ids accepted below an offset, and the newest event time."""
        found = {}
        for row in self.partitions[partition].rows[:end]:
            if row is not None:
                ids, newest = found.get(Instrument(row.exchange, row.symbol), (set(), 0))
                ids.add(row.trade_id)
                found[Instrument(row.exchange, row.symbol)] = ids, max(newest, row.event_time)
        return found

    def ids(self, partition, instrument):
        """All ids of an instrument that are rows of a partition."""
        return {one for name, one in self.partitions[partition].seen if name == instrument}

    def answer(self, request, end):
        """What a request must give when it is cut at `end`."""
        rows = sorted(
            row
            for row in self.accepted((0,) * len(end), end).values()
            if (not request.symbols or row.symbol in request.symbols)
            and (request.range.start_us is None or row.event_time >= request.range.start_us)
            and (request.range.end_us is None or row.event_time < request.range.end_us)
        )
        if request.order.value == "desc":
            rows.reverse()
        return rows[: request.limit]


def row_of(trade: Trade, partition, offset):
    """A trade as it is in the lake."""
    label = trade.label
    return Row(
        trade.event_time_us, label.exchange, label.symbol, trade.trade_id, partition, offset,
        trade.receive_time_us, trade.price, trade.quantity, trade.side, label.source,
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
    ]
    return [Row(*values) for values in zip(*columns, strict=True)]


def mantissa(value):
    """A decimal in units of 1e-8."""
    return int(value.scaleb(8))
