"""Columns as they are read from cursors; whole messages are in test_codec."""

import numpy as np

from k2.tape.avro.trade_columns import NO_ENTRIES


def test_no_entries():
    assert len(NO_ENTRIES.where(np.zeros(0, bool)).row) == 0
