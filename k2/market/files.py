"""The data files of a snapshot with their statistics in columns, so that a choice costs no loop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from k2.market.events import Bools, Int64s
from k2.market.offsets import FileStat, TimeRange


class FileForm(NamedTuple):
    """What one statement must know of the files that it reads; files of one form are read together.

    Attributes:
        lacks: columns to read that they were written without.
        narrow: whether quantity is read as `schema.NARROW_QUANTITY`, which holds all of theirs.
    """

    lacks: tuple[str, ...] = ()
    narrow: bool = False


class FileIndex:
    """Files to choose from, with their statistics; a choice is an index again."""

    def __init__(self, stats: Iterable[FileStat]) -> None:
        self.stats = tuple(stats)
        self.time_min: Int64s = np.array([stat.time_min_us for stat in self.stats], dtype=np.int64)
        self.time_max: Int64s = np.array([stat.time_max_us for stat in self.stats], dtype=np.int64)
        self.rows: Int64s = np.array([stat.rows for stat in self.stats], dtype=np.int64)
        self._forms = {_form(stat) for stat in self.stats}
        self._exchange = np.array([stat.exchange for stat in self.stats], dtype=np.str_)
        self._symbol_min = np.array([stat.symbol_min for stat in self.stats], dtype=np.str_)
        self._symbol_max = np.array([stat.symbol_max for stat in self.stats], dtype=np.str_)

    def __len__(self) -> int:
        return len(self.stats)

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(stat.size_bytes for stat in self.stats)

    @property
    def paths(self) -> list[str]:
        """Where they are, oldest rows first."""
        return [self.stats[at].path for at in np.argsort(self.time_min, kind="stable").tolist()]

    def paths_by_form(self, columns: Collection[str]) -> dict[FileForm, list[str]]:
        """Where they are, oldest rows first, by their form as far as these columns show it."""
        shown = {form: _shown(form, columns) for form in self._forms}
        if len(shown) == 1:
            return dict.fromkeys(shown.values(), self.paths)
        by_form: dict[FileForm, list[str]] = {}
        for at in np.argsort(self.time_min, kind="stable").tolist():
            stat = self.stats[at]
            by_form.setdefault(shown[_form(stat)], []).append(stat.path)
        return by_form

    def within(self, times: TimeRange) -> FileIndex:
        """Select the files that may hold rows of these times."""
        keep = np.ones(len(self), dtype=np.bool_)
        if times.start_us is not None:
            keep &= self.time_max >= times.start_us
        if times.end_us is not None:
            keep &= self.time_min < times.end_us
        return self._where(keep)

    def of(self, symbols: Sequence[str], exchanges: Sequence[str]) -> FileIndex:
        """Select the files that may hold rows of these symbols and exchanges; none named: all."""
        keep = np.ones(len(self), dtype=np.bool_)
        if exchanges:
            keep &= np.isin(self._exchange, exchanges)
        if symbols:
            hit = [(self._symbol_min <= name) & (self._symbol_max >= name) for name in symbols]
            keep &= np.logical_or.reduce(hit)
        return self._where(keep)

    def _where(self, keep: Bools) -> FileIndex:
        if keep.all():
            return self
        return FileIndex(self.stats[at] for at in np.flatnonzero(keep).tolist())


def _form(stat: FileStat) -> FileForm:
    return FileForm(stat.lacks, stat.narrow)


def _shown(form: FileForm, columns: Collection[str]) -> FileForm:
    """Return what a form means for a statement that reads these columns only."""
    lacks = tuple(name for name in form.lacks if name in columns)
    return FileForm(lacks, form.narrow and "quantity" in columns)
