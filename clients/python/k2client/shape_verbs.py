"""The methods of a client that ask for shapes of trades: bars, means, joins, days.

All take the options of `Client.trades` as keywords besides, and return what it returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import date
from typing import Unpack

from k2client import shape_questions
from k2client.shape_questions import ShapeQuestion, TradesOptions
from k2client.times import Duration
from k2client.trades import Trades
from k2client.trades_request import Names, TradesQuestion


class ShapeVerbs(ABC):
    """Asks for shapes; `Client` is one."""

    @abstractmethod
    def ask(
        self, question: TradesQuestion | ShapeQuestion, *, deadline_s: float | None = None
    ) -> Trades:
        """Query trades, or a shape of them, by a prepared question."""

    def bars(
        self,
        symbols: Names | None,
        *,
        every: str = "1m",
        fill: str = "none",
        tz: str = "UTC",
        deadline_s: float | None = None,
        **asked: Unpack[TradesOptions],
    ) -> Trades:
        """Query bars: open, high, low, close, volumes, vwap, and whether they are final.

        Args:
            symbols: as in `trades`.
            every: the length of a bar: `100ms` to `1d`, n of `ms s m h` that divides a day, counted
                from midnight; or `1d`, `1w`, `1mo`.
            fill: bars without trades: `none` (left out), `prev` (the last close; at the start of a
                range that of the hour before it, else null), `null`.
            tz: the time zone whose midnights, weeks and months they follow.
            deadline_s: as in `trades`.
            asked: the other options of `trades`; `columns`, `limit` and `order` are of the bars.
        """
        question = shape_questions.bars(TradesQuestion(symbols, **asked), every, fill, tz)
        return self.ask(question, deadline_s=deadline_s)

    def vwap(
        self,
        symbols: Names | None,
        *,
        deadline_s: float | None = None,
        **asked: Unpack[TradesOptions],
    ) -> Trades:
        """Query the volume-weighted mean price of each instrument, exact.

        Args:
            symbols: as in `trades`.
            deadline_s: as in `trades`.
            asked: the other options of `trades`.
        """
        question = ShapeQuestion("vwap", TradesQuestion(symbols, **asked))
        return self.ask(question, deadline_s=deadline_s)

    def twap(
        self,
        symbols: Names | None,
        *,
        deadline_s: float | None = None,
        **asked: Unpack[TradesOptions],
    ) -> Trades:
        """Query the time-weighted mean price of each instrument, exact.

        A price weighs from its trade to the next, the last one to the end of the range; while the
        range goes on, to the newest trade of the instruments.

        Args:
            symbols: as in `trades`.
            deadline_s: as in `trades`.
            asked: the other options of `trades`.
        """
        question = ShapeQuestion("twap", TradesQuestion(symbols, **asked))
        return self.ask(question, deadline_s=deadline_s)

    def latest(
        self,
        symbols: Names | None = None,
        *,
        deadline_s: float | None = None,
        **asked: Unpack[TradesOptions],
    ) -> Trades:
        """Query the newest trade of each instrument.

        Args:
            symbols: as in `trades`; unset: all.
            deadline_s: as in `trades`.
            asked: the other options of `trades`.
        """
        question = ShapeQuestion("latest", TradesQuestion(symbols, **asked))
        return self.ask(question, deadline_s=deadline_s)

    def asof(
        self,
        left: Names,
        right: str,
        *,
        tolerance: Duration | None = None,
        direction: str = "backward",
        deadline_s: float | None = None,
        **asked: Unpack[TradesOptions],
    ) -> Trades:
        """Query each trade of one side beside the nearest one of another symbol.

        Columns are those of a left trade, then those of the right one as `right_...`, null where
        there is none. Both are of one exchange.

        Args:
            left: one symbol or several, whose trades make the rows.
            right: the other symbol.
            tolerance: how far apart both may be, such as `"5s"`; unset: any, which reads the whole
                history of the right symbol on that side.
            direction: `backward`: the last right trade at or before the left one; `forward`: the
                first at or after it.
            deadline_s: as in `trades`.
            asked: the other options of `trades`; the range is that of the left trades.
        """
        of = TradesQuestion(left, **asked)
        question = shape_questions.asof(of, right, tolerance, direction)
        return self.ask(question, deadline_s=deadline_s)

    def markouts(
        self,
        symbols: Names | None,
        *,
        horizons: Duration | Iterable[Duration] = shape_questions.HORIZONS,
        deadline_s: float | None = None,
        **asked: Unpack[TradesOptions],
    ) -> Trades:
        """Query what the price of each trade did some time later, in favour of its aggressor.

        One row a trade and horizon: the trade's columns, then `horizon_us price_then markout`; the
        last two are null where the price at that moment is not known yet.

        Args:
            symbols: as in `trades`.
            horizons: one duration or several, at most 16 of up to a day.
            deadline_s: as in `trades`.
            asked: the other options of `trades`.
        """
        question = shape_questions.markouts(TradesQuestion(symbols, **asked), horizons)
        return self.ask(question, deadline_s=deadline_s)

    def summary(
        self,
        symbols: Names | None,
        date: date | str,
        *,
        tz: str = "UTC",
        deadline_s: float | None = None,
        **asked: Unpack[TradesOptions],
    ) -> Trades:
        """Query a day in one row: prices, volumes, means, first and last trade.

        Args:
            symbols: as in `trades`; usually one.
            date: the day, such as `"2026-01-31"`.
            tz: the time zone of the day.
            deadline_s: as in `trades`.
            asked: the other options of `trades`, without a range.
        """
        question = shape_questions.summary(TradesQuestion(symbols, **asked), date, tz)
        return self.ask(question, deadline_s=deadline_s)

    def symbols(
        self,
        symbols: Names | None = None,
        *,
        deadline_s: float | None = None,
        **asked: Unpack[TradesOptions],
    ) -> Trades:
        """Query which instruments have trades: from when, to when, which ids, how many.

        Args:
            symbols: as in `trades`; unset: all.
            deadline_s: as in `trades`.
            asked: the other options of `trades`; without a range it counts all trades.
        """
        question = ShapeQuestion("symbols", TradesQuestion(symbols, **asked))
        return self.ask(question, deadline_s=deadline_s)

    def availability(
        self,
        symbols: Names | None = None,
        *,
        tz: str = "UTC",
        deadline_s: float | None = None,
        **asked: Unpack[TradesOptions],
    ) -> Trades:
        """Query how much there is of each day: available, degraded, pending or missing.

        Args:
            symbols: as in `trades`; unset: all.
            tz: the time zone of the days.
            deadline_s: as in `trades`.
            asked: the other options of `trades`; the range is lengthened to whole days.
        """
        question = shape_questions.availability(TradesQuestion(symbols, **asked), tz)
        return self.ask(question, deadline_s=deadline_s)
