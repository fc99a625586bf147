"""Statistics of the quality of each commit, by symbol; no row depends on them.

Of the rows that one commit added of a symbol:

* the *late* ones: those whose id lies below one that came before it;
* the largest *jump*: the greatest change of price from one trade to the next, as a ratio;
* the *outliers*: trades whose logarithmic return differs from the median by more than
  `OUTLIER_DEVIATIONS` times the median of these differences. Where more than half of the trades
  repeat the price before them there is no measure of a usual return, and no outlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from k2.market.events import Int64s, TradeColumns
from k2.metrics import counter, gauge

OUTLIER_DEVIATIONS = 6.0

LATE = gauge("k2_quality_late_ratio", "Share of late trades of the last commit.", "symbol")
JUMP = gauge(
    "k2_quality_largest_jump_ratio",
    "Greatest change of price between two trades of the last commit.",
    "symbol",
)
OUTLIERS = counter("k2_quality_outliers_total", "Trades with an unusual change of price.", "symbol")
SKIPPED = counter("k2_quality_commits_skipped_total", "Commits without quality statistics.")


class Quality(NamedTuple):
    """The statistics of one symbol in one commit.

    Attributes:
        late_ratio: share of late trades, 0..1.
        jump_ratio: the largest jump; 0 with less than two trades.
        outliers: how many.
    """

    late_ratio: float
    jump_ratio: float
    outliers: int


def quality_of(trade_id: Int64s, price: Int64s) -> Quality:
    """Compute the statistics of trades of one symbol.

    Args:
        trade_id: of each, in the order of the tape; at least one.
        price: of each.
    """
    late = trade_id[1:] < np.maximum.accumulate(trade_id)[:-1]
    late_ratio = float(late.sum()) / len(trade_id)
    ordered = price[np.argsort(trade_id, kind="stable")] if late.any() else price
    ordered = ordered[ordered > 0].astype(np.float64)
    if len(ordered) < 2:
        return Quality(late_ratio, 0.0, 0)
    jump_ratio = float(np.abs(ordered[1:] / ordered[:-1] - 1.0).max())
    returns = np.diff(np.log(ordered))
    deviations = np.abs(returns - np.median(returns))
    usual = float(np.median(deviations))
    unusual = deviations > OUTLIER_DEVIATIONS * usual
    return Quality(late_ratio, jump_ratio, int(unusual.sum()) if usual > 0 else 0)


def by_symbol(rows: Iterable[TradeColumns]) -> Iterator[tuple[str, Quality]]:
    """Iterate over the statistics of each symbol.

    Args:
        rows: of one commit; those of a partition in the order of the tape.
    """
    parts: dict[str, list[tuple[Int64s, Int64s]]] = {}
    for columns in rows:
        symbols = [label.instrument.symbol for label in columns.labels]
        for code in np.unique(columns.label).tolist():
            chosen = columns.label == code
            ids_and_prices = columns.trade_id[chosen], columns.price[chosen]
            parts.setdefault(symbols[code], []).append(ids_and_prices)
    for symbol, pieces in parts.items():
        ids, prices = zip(*pieces, strict=True)
        yield symbol, quality_of(np.concatenate(ids), np.concatenate(prices))


def note_quality(rows: Iterable[TradeColumns]) -> None:
    """Move the metrics by the rows of one commit."""
    for symbol, quality in by_symbol(rows):
        LATE.labels(symbol).set(quality.late_ratio)
        JUMP.labels(symbol).set(quality.jump_ratio)
        OUTLIERS.labels(symbol).inc(quality.outliers)
