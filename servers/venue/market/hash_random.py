"""Random numbers as a function: a key and an index give the same number on any machine.

Integers only (splitmix64), so a value does not depend on how many others are computed with it.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Uint64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key_of(seed: int, *names: str) -> int:
    """Make a key for the numbers of one purpose, 64 bits."""
    text = "/".join((str(seed), *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def bits(key: int, index: Int64s) -> Uint64s:
    """Draw 64 even bits for each index."""
    mixed = index.astype(np.uint64)
    mixed *= _GOLDEN
    mixed += np.uint64(key)
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


def fractions(chances: Uint64s, shift: int) -> Floats:
    """Turn 32 of the bits, those above `shift`, into numbers in (0, 1]."""
    word = (chances >> np.uint64(shift)) & np.uint64(0xFFFFFFFF)
    return (word.astype(np.float64) + 1.0) / 4294967296.0
