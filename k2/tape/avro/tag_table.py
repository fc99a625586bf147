"""Labels by what their bytes are: each distinct one is parsed once, then found by hash.

The six leading strings of a trade are the same bytes in millions of messages. So a batch's labels
are looked up as whole spans of bytes: hashed by array operations, found in a sorted table, and
compared word by word with the entry found, so that a hash that collides costs time, never a wrong
label. Spans that are not in the table yet are parsed one by one and join it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from k2 import limits
from k2.market.events import Int32s, Int64s, Label
from k2.tape.avro.cursors import Joined, Words, hash_words, masked_words, some

BAD = -1  # the code of a span that is not a label

_WORDS = limits.LABEL_BYTES_MAX // 8 + 1


class LabelTable:
    """The labels met so far, each with a code. One thread uses it."""

    def __init__(self) -> None:
        self.clear()

    def __len__(self) -> int:
        """Spans remembered, those that hold no label too."""
        return len(self._code_of)

    def clear(self) -> None:
        """Forget every label; codes begin again at 0."""
        self.labels: list[Label] = []
        self._code_of: dict[bytes, int] = {}
        self._hash = np.empty(0, dtype=np.uint64)
        self._code = np.empty(0, dtype=np.int32)
        self._length = np.empty(0, dtype=np.int64)
        self._words = np.zeros((_WORDS, 0), dtype=np.uint64)

    def codes(self, joined: Joined, start: Int64s, length: Int64s) -> Int32s:
        """Return the code of each span, or `BAD` where it holds no label.

        Args:
            joined: where the spans are.
            start: of each. int64[n]
            length: of each, at most `limits.LABEL_BYTES_MAX`. int64[n]
        """
        words = masked_words(joined, start, length, limits.LABEL_BYTES_MAX)
        hashed = hash_words(length, words)
        if not len(self._hash):
            return self._learn(joined, start, length)
        at = np.minimum(np.searchsorted(self._hash, hashed), len(self._hash) - 1)
        same = (self._hash[at] == hashed) & (self._length[at] == length)
        for row, word in enumerate(words):
            same &= self._words[row][at] == word
        codes = self._code[at]
        if some(same) < len(same):
            new = np.flatnonzero(~same)
            codes[new] = self._learn(joined, start[new], length[new])
        return codes

    def code(self, span: bytes, label: Callable[[], Label | None]) -> int:
        """Return the code of one span; `label` parses it if it is new."""
        code = self._code_of.get(span)
        if code is None:
            parsed = label()
            code = BAD if parsed is None else len(self.labels)
            if parsed is not None:
                self.labels.append(parsed)
            self._code_of[span] = code
        return code

    def _learn(self, joined: Joined, start: Int64s, length: Int64s) -> Int32s:
        before = len(self._code_of)
        codes = np.empty(len(start), dtype=np.int32)
        fresh: dict[int, int] = {}
        for row, (first, size) in enumerate(zip(start.tolist(), length.tolist(), strict=True)):
            span = joined.bytes_at(first, size)
            codes[row] = self.code(span, lambda span=span: parse_label(span))  # type: ignore[misc]
            if len(self._code_of) > before + len(fresh):
                fresh[row] = len(fresh)
        if fresh:
            rows = np.fromiter(fresh, np.int64, len(fresh))
            self._insert(joined, start[rows], length[rows], codes[rows])
        return codes

    def _insert(self, joined: Joined, start: Int64s, length: Int64s, codes: Int32s) -> None:
        new = masked_words(joined, start, length, limits.LABEL_BYTES_MAX)
        hashed = hash_words(length, new)
        table: Words = np.zeros((_WORDS, len(start)), dtype=np.uint64)
        for row, word in enumerate(new):
            table[row] = word
        every = np.concatenate((self._hash, hashed))
        order = np.argsort(every, kind="stable")
        self._hash = every[order]
        self._code = np.concatenate((self._code, codes))[order]
        self._length = np.concatenate((self._length, length))[order]
        self._words = np.concatenate((self._words, table), axis=1)[:, order]


def parse_label(span: bytes) -> Label | None:
    """Six Avro strings, one after the other; None when a text is not UTF-8."""
    texts = []
    at = 0
    for _ in Label._fields:
        length = shift = 0
        while True:
            byte = span[at]
            length |= (byte & 0x7F) << shift
            at += 1
            shift += 7
            if byte < 0x80:
                break
        size = length >> 1
        texts.append(span[at : at + size])
        at += size
    return label_of(texts)


def label_of(texts: list[bytes]) -> Label | None:
    """Make a label from its six texts; None when one is not UTF-8."""
    try:
        return Label(*(text.decode() for text in texts))
    except UnicodeDecodeError:
        return None
