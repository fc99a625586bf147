"""The activity clock of a synthetic symbol: how much of its trading has happened by a time.

Wall time is cut into blocks of 67 s, each with the same mass of activity. A block's mass is halved
in time fourteen times over, down to 4 ms, and each time shared unevenly by chance (a multiplicative
cascade): bursts within bursts, as real order flow has, yet a fixed mean rate. Some of the coarse
splits are the same for all symbols, so that the market is busy together.

A position is (block << MASS_BITS) + mass within the block. Both directions are table look-ups in
integers, so `times` is exactly monotone and the same on any machine.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from k2 import limits
from servers.venue.market import hash_random
from servers.venue.market.hash_random import Int64s

BLOCK_BITS = 26  # of microseconds: 67 s
MASS_BITS = 30  # of activity in a block
BLOCK_US = 1 << BLOCK_BITS

_LEVELS = 14
_LEAF_BITS = BLOCK_BITS - _LEVELS
_LEAVES = 1 << _LEVELS
_COARSE_LEVELS = 6  # 67 s down to 1 s: mild; below: wild
_SHARED_LEVELS = frozenset({0, 2, 4})
# The left half's share of the mass is even between these, in units of 2^-16.
_MILD = (int(0.40 * 65536), int(0.60 * 65536))
_WILD = (int(0.20 * 65536), int(0.80 * 65536))


class Activity:
    """The clock of one symbol under one seed; a bounded number of blocks is remembered."""

    def __init__(self, seed: int, symbol: str) -> None:
        self._keys = [
            hash_random.key_of(seed, "" if level in _SHARED_LEVELS else symbol, f"activity{level}")
            for level in range(_LEVELS)
        ]
        self._tables: OrderedDict[int, Int64s] = OrderedDict()

    def position(self, time_us: int) -> int:
        """Compute how much activity there was before `time_us`."""
        start, mass, rest = self._leaf(time_us)
        return start + (rest * mass >> _LEAF_BITS)

    def reached(self, time_us: int) -> int:
        """Compute the highest position whose time, as `times` has it, is at most `time_us`."""
        start, mass, rest = self._leaf(time_us)
        return start - (-(rest + 1) * mass >> _LEAF_BITS) - 1

    def times(self, positions: Int64s) -> Int64s:
        """Compute when each position was reached, in microseconds; `positions` ascend."""
        blocks = positions >> MASS_BITS
        times = np.empty(len(positions), np.int64)
        edges = np.flatnonzero(np.diff(blocks)) + 1
        start = 0
        for end in (*edges.tolist(), len(positions)):
            if end > start:
                block = int(blocks[start])
                times[start:end] = self._times_within(block, positions[start:end])
            start = end
        return times

    def _leaf(self, time_us: int) -> tuple[int, int, int]:
        """Find the position where the leaf of a time starts, its mass, the microseconds into it."""
        block, within = time_us >> BLOCK_BITS, time_us & (BLOCK_US - 1)
        leaf, rest = within >> _LEAF_BITS, within & ((1 << _LEAF_BITS) - 1)
        table = self._table(block)
        start, end = int(table[leaf]), int(table[leaf + 1])
        return (block << MASS_BITS) + start, end - start, rest

    def _times_within(self, block: int, positions: Int64s) -> Int64s:
        table = self._table(block)
        mass = positions & ((1 << MASS_BITS) - 1)
        leaf = np.searchsorted(table, mass, side="right") - 1
        start = table[leaf]
        rest = ((mass - start) << _LEAF_BITS) // (table[leaf + 1] - start)
        return (block << BLOCK_BITS) + (leaf << _LEAF_BITS) + rest

    def _table(self, block: int) -> Int64s:
        """Compute the mass before each leaf of a block, and the whole. int64[leaves + 1]."""
        table = self._tables.get(block)
        if table is None:
            table = self._cascade(block)
            self._tables[block] = table
            while len(self._tables) > limits.VENUE_BLOCKS_HELD_MAX:
                self._tables.popitem(last=False)
        else:
            self._tables.move_to_end(block)
        return table

    def _cascade(self, block: int) -> Int64s:
        mass = np.array([1 << MASS_BITS], np.int64)
        for level, key in enumerate(self._keys):
            low, high = _MILD if level < _COARSE_LEVELS else _WILD
            nodes = (block << level) + np.arange(1 << level, dtype=np.int64)
            chances = (hash_random.bits(key, nodes) >> np.uint64(48)).astype(np.int64)
            share = low + ((chances * (high - low)) >> 16)
            halves = np.empty(2 << level, np.int64)
            halves[0::2] = (mass * share) >> 16
            halves[1::2] = mass - halves[0::2]
            mass = halves
        table = np.zeros(_LEAVES + 1, np.int64)
        np.cumsum(mass, out=table[1:])
        return table
