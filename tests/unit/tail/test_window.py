from dataclasses import replace

import numpy as np
import pytest

from k2 import limits
from k2.market.fold import FoldState, fold
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector
from k2.tail.window import CHUNK_ROWS_MIN, Window
from tests.support.trades import columns, label

BTC = Instrument("BINANCE", "BTCUSDT")
ETH = Instrument("BINANCE", "ETHUSDT")
ZERO = OffsetVector.zero(0, 2)
FOREVER = 10**12


@pytest.fixture
def window():
    return Window(ZERO, {})


def put(window, ids, *, partition=0, at_s=0.0, symbols=None, times=None, first_offset=None):
    first = window.position[partition] if first_offset is None else first_offset
    batch = columns(ids, symbols=symbols, times=times, first_offset=first)
    window.append(partition, batch, np.arange(len(ids)), first + len(ids), at_s)


def rows_of(view):
    return sum(one.range.rows for one in view.held.values())


def test_it_starts_where_the_snapshot_ends_and_knows_the_newest_times():
    state = fold(FoldState(), columns([1, 2], times=[5, 9])).state
    window = Window(OffsetVector(0, (7, 3)), {0: state})
    view = window.view(None)
    assert view.position == view.low == OffsetVector(0, (7, 3))
    assert view.time_max_below == {BTC: 9}
    assert window.view({BTC}).time_max_below == {BTC: 9}
    assert window.view({ETH}).time_max_below == {}
    assert window.instruments() == {BTC}


def test_rows_are_seen_with_the_position(window):
    put(window, [1, 2, 3])
    view = window.view(None)
    assert view.position == OffsetVector(0, (3, 0))
    assert rows_of(view) == 3
    assert window.rows == 3
    assert rows_of(window.view({ETH})) == 0


def test_a_view_can_be_cut_at_an_end(window):
    put(window, [1, 2, 3])
    assert rows_of(window.view(None, OffsetVector(0, (2, 0)))) == 2
    assert rows_of(window.view(None, ZERO)) == 0


def test_a_view_stays_while_the_window_goes_on(window):
    put(window, [1, 2])
    view = window.view(None)
    put(window, [3])
    window.evict(OffsetVector(0, (3, 0)), FOREVER, FOREVER)
    assert rows_of(view) == 2
    assert window.rows == 0


def test_chunks_grow_up_to_the_limit(window):
    for _ in range(200):
        put(window, list(range(100)))
    sizes = [one.range.rows for one in window.view(None).held.values()]
    assert sum(sizes) == 20_000
    assert max(sizes) == limits.TAIL_CHUNK_ROWS
    assert sizes[0] == 100 >= CHUNK_ROWS_MIN


def test_one_batch_may_fill_several_chunks(window):
    put(window, list(range(10_000)))
    sizes = [one.range.rows for one in window.view(None).held.values()]
    assert sizes == [4096, 4096, 1808]


def test_labels_have_chunks_of_their_own(window):
    batch = columns([1, 2, 3, 4], symbols=["BTCUSDT", "ETHUSDT", "BTCUSDT", "ETHUSDT"])
    window.append(0, batch, np.array([0, 2, 3]), 4, 0.0)
    held = window.view(None).held.values()
    assert {(one.range.instrument, one.range.rows) for one in held} == {(BTC, 2), (ETH, 1)}


def test_nothing_accepted_still_moves_the_position(window):
    window.append(0, columns([1]), np.empty(0, np.intp), 1, 0.0)
    assert window.position == OffsetVector(0, (1, 0))
    assert window.size_bytes == 0


def test_what_the_lake_does_not_hold_is_never_evicted(window):
    put(window, [1, 2, 3])
    assert window.evict(OffsetVector(0, (2, 0)), FOREVER, 0) == 0
    assert window.rows == 3


def test_recent_rows_stay_until_the_bound_is_reached(window):
    put(window, [1, 2], at_s=1.0)
    put(window, [1, 2], at_s=5.0, partition=1)
    covered = OffsetVector(0, (2, 2))
    assert window.evict(covered, 1.0, FOREVER) == 0
    assert window.evict(covered, 5.0, FOREVER) == 1
    assert window.view(None).low == OffsetVector(0, (2, 0))
    assert window.evict(covered, 0.0, 0) == 1
    assert window.view(None).low == covered
    assert window.size_bytes == 0


def test_the_oldest_go_first_when_there_is_too_much(window):
    put(window, [1], at_s=1.0)
    put(window, [1], at_s=2.0, partition=1)
    assert window.evict(OffsetVector(0, (1, 1)), 0.0, window.size_bytes - 1) == 1
    assert window.view(None).low == OffsetVector(0, (1, 0))


def test_backfill_leaves_on_commit(window):
    batch = replace(columns([1]), labels=(label(source="backfill"),))
    window.append(0, batch, np.arange(1), 1, 5.0)
    assert window.evict(OffsetVector(0, (1, 0)), 0.0, FOREVER) == 1


def test_eviction_raises_the_low_and_the_times_below(window):
    batch = columns([1, 1, 2, 2], symbols=["BTCUSDT", "ETHUSDT"] * 2, times=[9, 3, 4, 8])
    window.append(0, batch, np.arange(3), 3, 1.0)
    window.append(0, batch.take(np.array([3])), np.arange(1), 4, 9.0)
    assert window.evict(OffsetVector(0, (3, 0)), 2.0, FOREVER) == 1
    view = window.view(None)
    assert view.low == OffsetVector(0, (3, 0))
    assert view.time_max_below == {BTC: 9, ETH: 3}  # ETH's chunk stays, its first row is below
    assert [one.range.instrument for one in view.held.values()] == [ETH]
    put(window, [3], first_offset=4)
    assert rows_of(window.view({BTC})) == 1


def test_a_released_partition_holds_nothing_until_it_is_restored(window):
    put(window, [1, 2])
    put(window, [1], partition=1)
    before = window.bytes_by_partition()
    window.release(0)
    assert window.released == {0}
    assert window.view(None).released == {0}
    assert rows_of(window.view({BTC})) == 1
    assert window.size_bytes == before[1]
    state = fold(FoldState(), columns([1, 2], times=[5, 9])).state
    window.restore(0, 2, state)
    view = window.view(None)
    assert view.released == frozenset()
    assert (view.low[0], view.position[0]) == (2, 2)
    assert view.time_max_below == {BTC: 9}
    put(window, [3], first_offset=2)
    assert window.view(None).position == OffsetVector(0, (3, 1))


def test_the_newest_receive_time_is_of_those_asked_for(window):
    put(window, [1], times=[5])
    put(window, [1], times=[50], symbols="ETHUSDT")
    assert window.view({BTC}).receive_max_us == 1005
    assert window.view(None).receive_max_us == 1050
    assert window.view({Instrument("X", "Y")}).receive_max_us is None
