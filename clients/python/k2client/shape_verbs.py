"""The methods of a client that ask for shapes of trades: bars, means, the newest trades.

All take the options of `Client.trades` as keywords besides, and return what it returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Unpack

from k2client import shape_questions
from k2client.shape_questions import ShapeQuestion, TradesOptions
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
            fill: bars without trades: `none` (left out), `prev` (the last close), `null`.
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

        A price weighs from its trade to the next, the last one to the end of the range.

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
