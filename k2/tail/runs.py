"""A column that most rows lack, as runs of the rows that have it; what lies between is implicit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pyarrow as pa

_RUNS_MAX: Final = 64  # kept apart before they are made one


class SparseColumn:
    """Values of rows by their number; one thread adds, any thread reads.

    Args:
        nothing: makes the values of so many rows that lack the column.
    """

    def __init__(self, nothing: Callable[[int], pa.Array]) -> None:
        self._nothing = nothing
        self._runs: tuple[tuple[int, pa.Array], ...] = ()
        self.size_bytes = 0

    def add(self, first: int, values: pa.Array) -> None:
        """Values of the rows from `first` on, above all that were added before."""
        if len(self._runs) >= _RUNS_MAX:
            start = self._runs[0][0]
            last, of_last = self._runs[-1]
            self._runs = ((start, self.between(start, last + len(of_last))),)
        self._runs = (*self._runs, (first, values))
        self.size_bytes = sum(one.nbytes for _, one in self._runs)

    def between(self, start: int, stop: int) -> pa.Array | None:
        """Values of a range of rows; None when all lack the column."""
        parts, at = [], start
        for first, values in self._runs:
            low, high = max(first, at), min(first + len(values), stop)
            if low < high:
                parts += [self._nothing(low - at), values.slice(low - first, high - low)]
                at = high
        return pa.concat_arrays([*parts, self._nothing(stop - at)]) if parts else None
