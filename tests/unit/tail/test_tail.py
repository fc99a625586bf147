import threading

import pytest
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics

from k2.clock import ManualClock
from k2.errors import Reason, Unavailable
from k2.market.events import Label, Trade
from k2.market.fold import FoldState
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector
from k2.metrics import EVENTS
from k2.tail import tail as tail_module
from k2.tail.tail import Tail
from k2.tape.avro.trade_codec import Decoder, encode_trade
from k2.tape.partition_map import PartitionMap
from tests.fakes.tape import FakeTape
from tests.support.eventually import eventually
from tests.support.messages import SCHEMA_ID, Schemas
from tests.support.scraped import Moved
from tests.support.trades import NOW_US

BTC = Instrument("BINANCE", "BTCUSDT")
ADA = Instrument("BINANCE", "ADAUSDT")
ZERO = OffsetVector.zero(0, 4)


class Fixture:
    def __init__(self, **bounds):
        self.tape = FakeTape(partitions=4)
        self.homes = PartitionMap(self.tape.board("p"), 0, 1)
        self.schemas = Schemas()
        self.clock = ManualClock(NOW_US)
        self.tail = Tail(
            reader_factory=self.tape.reader,
            decoder=Decoder(self.schemas),
            placement=PartitionMap(self.tape.board("p"), 0, 1),
            clock=self.clock,
            **bounds,
        )

    def send(self, ids, instrument=BTC, schema_id=SCHEMA_ID, headers=None):
        label = Label(*instrument, instrument.symbol[:3], "USDT", "crypto", "simulated")
        partition = self.homes.place(instrument)
        for trade_id in ids:
            trade = Trade(label, trade_id, NOW_US + trade_id, NOW_US + trade_id, 1, 1, 0, {})
            self.tape.append(partition, encode_trade(trade, schema_id), headers=headers)

    def end(self):
        return OffsetVector(0, self.tape.admin().log_ends("trades", 4))

    def rows(self, instruments=None):
        return sum(one.range.rows for one in self.tail.view(instruments).held.values())


@pytest.fixture
def on():
    made = Fixture()
    made.tail.start(ZERO, {})
    yield made
    made.tail.close()


def test_what_lies_below_the_position_is_visible(on):
    on.send(range(100))
    assert on.tail.wait_until(on.end(), 10.0)
    assert on.tail.position() == on.end()
    assert on.rows() == 100
    assert on.tail.instruments() == {BTC}
    assert on.tail.states()[0].accepted == 100


def test_duplicates_and_bad_records_move_the_position_and_are_no_rows(on):
    on.send([1, 2, 2, 1])
    on.tape.append(0, b"garbage", None)
    on.send([3])
    assert on.tail.wait_until(on.end(), 10.0)
    assert on.rows() == 3
    state = on.tail.states()[0]
    assert (state.accepted, state.duplicate, state.dead) == (3, 2, 2)
    assert on.tail.stats().records == 7


def test_a_symbol_placed_after_the_start_is_judged_with_the_map_read_again(on):
    on.send([1])
    assert on.tail.wait_until(on.end(), 10.0)
    on.send([1], ADA)
    assert on.tail.wait_until(on.end(), 10.0)
    assert on.rows({ADA}) == 1


def test_it_goes_on_from_a_snapshot_with_the_fold_of_that_snapshot(on):
    on.send([1, 2, 3])
    assert on.tail.wait_until(on.end(), 10.0)
    position, states = on.tail.position(), on.tail.states()
    on.send([3, 4])
    on.tail.start(position, states)
    assert on.tail.wait_until(on.end(), 10.0)
    assert on.rows() == 1
    assert on.tail.view(None).time_max_below == {BTC: NOW_US + 3}


def test_waiting_ends_with_the_time_or_with_the_partitions_that_matter(on):
    on.send([1])
    assert not on.tail.wait_until(OffsetVector(0, (2, 0, 0, 0)), 0.02)
    assert on.tail.wait_until(OffsetVector(0, (1, 9, 9, 9)), 10.0, [0])


def test_those_who_wait_are_woken_by_the_row_they_wait_for(on):
    seen = []
    wanted = OffsetVector(0, (1, 0, 0, 0))
    waiters = [
        threading.Thread(target=lambda: seen.append(on.tail.wait_until(wanted, 10.0)))
        for _ in range(3)
    ]
    for waiter in waiters:
        waiter.start()
    on.send([1])
    for waiter in waiters:
        waiter.join()
    assert seen == [True, True, True]


def test_a_batch_that_cannot_be_judged_now_is_tried_again(on, monkeypatch):
    monkeypatch.setattr(tail_module.limits, "TAIL_RETRY_S", 0.01)
    schema = on.schemas.schemas[SCHEMA_ID]

    class Away(dict):
        def __getitem__(self, key):
            raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")

    on.schemas.schemas = Away()
    on.send([1, 2])
    on.send([1], ADA)
    assert not on.tail.wait_until(on.end(), 0.1)
    assert on.tail.failure is None
    assert on.tail.waiting_for([2, 0]).reason is Reason.REGISTRY_UNAVAILABLE
    on.schemas.schemas = {SCHEMA_ID: schema}
    on.clock.advance(1)
    eventually(lambda: on.tail.wait_until(on.end(), 10.0))
    assert on.rows() == 3
    assert on.tail.waiting_for([0, 2]) is None


def test_a_flood_of_schema_ids_holds_up_no_other_partition():
    on = Fixture()
    on.schemas.remembers = lambda _: False
    flood = 3 * tail_module.limits.SCHEMA_LOOKUPS_PER_BATCH
    for number in range(flood):
        on.send([number], ADA, schema_id=100 + number)
    on.send([1], ADA)
    on.send([1])
    on.tail._begin(ZERO, {})
    on.tail._reader = on.tape.reader(dict.fromkeys(range(4), 0))
    on.tail.step(0.0)
    assert on.tail.position()[2] < on.end()[2], "the rest is judged in a later step"
    on.send([2])
    on.send([2], ADA)
    on.tail.step(0.0)
    assert on.tail.position()[0] == 2
    assert on.tail._reader._paused == {2}, "what is held of it stays bounded"
    while on.tail.position() != on.end():
        on.tail.step(0.0)
    assert (on.rows({ADA}), on.tail.states()[2].dead) == (2, flood)
    assert on.tail._reader._paused == set()


def test_a_tape_that_lost_records_stops_it_by_name(on):
    on.send([1])
    assert on.tail.wait_until(on.end(), 10.0)
    on.tape.truncate(0, 0)
    eventually(lambda: on.tail.failure is not None)
    assert on.tail.failure.reason is Reason.TAPE_TRUNCATED
    assert on.tail.stats().failure is on.tail.failure
    assert not on.tail.wait_until(OffsetVector(0, (5, 0, 0, 0)), 10.0)


def test_a_defect_stops_it_by_name_too():
    on = Fixture()

    class Broken:
        def append(self, *given):
            raise ZeroDivisionError

    on.tail.start(ZERO, {})
    on.tail._window.append = Broken().append
    on.send([1])
    eventually(lambda: on.tail.failure is not None)
    assert on.tail.failure.reason is Reason.INTERNAL
    on.tail.close()


def test_it_evicts_what_is_covered_and_old():
    on = Fixture(recent_s=10.0)
    on.tail.start(ZERO, {})
    on.send([1, 2])
    assert on.tail.wait_until(on.end(), 10.0)
    assert on.tail.evict(on.end()) == 0
    on.clock.advance(11)
    assert on.tail.evict(ZERO) == 0
    assert on.tail.evict(on.end()) == 1
    assert on.rows() == 0
    assert on.tail.view(None).low == on.end()
    on.tail.close()


def test_when_full_it_evicts_what_is_covered_before_it_releases_anything():
    on = Fixture(bytes_max=1_000_000)
    on.send(range(4096 * 3))  # all that is sent before the start comes in large batches
    on.tail.start(ZERO, {})
    assert on.tail.wait_until(on.end(), 10.0)
    on.tail.evict(on.end())
    on.send(range(4096 * 3, 4096 * 6))
    assert on.tail.wait_until(on.end(), 10.0)
    eventually(lambda: on.tail.stats().size_bytes <= 1_000_000)
    assert on.tail.released() == frozenset()
    assert on.tail.view(None).low[0] > 0
    on.tail.close()


def test_the_least_critical_partition_is_released_first_and_restored_when_there_is_room():
    on = Fixture(bytes_max=200_000)
    on.tail.start(ZERO, {})
    on.send([1])
    on.send(range(4000), ADA)
    eventually(lambda: on.tail.released() == {2})
    assert on.rows() == 1
    on.send(range(4000, 4010), ADA)
    covered = OffsetVector(0, (0, 0, 4000, 0))
    on.tail.restore(covered, {2: FoldState(accepted=4000)})
    eventually(lambda: not on.tail.released())
    assert on.tail.wait_until(on.end(), 10.0)
    assert on.rows({ADA}) == 10
    assert on.tail.view({ADA}).low[2] == 4000
    on.tail.close()


def test_nothing_is_restored_while_there_is_no_room():
    on = Fixture(bytes_max=700_000)
    on.send(range(6500))
    on.send(range(6500), ADA)
    on.tail.start(ZERO, {})
    eventually(lambda: on.tail.released() == {2})
    on.tail.restore(on.end(), {})
    on.send(range(10_000, 10_010))
    assert on.tail.wait_until(on.end(), 10.0, [0])
    assert on.tail.released() == {2}
    on.tail.close()


def test_it_knows_whether_a_hole_may_have_been_filled_since(on):
    on.send([1, 2, 5])
    at_hole = on.end()
    partition = on.homes.place(BTC)
    assert on.tail.wait_until(at_hole, 10)
    assert on.tail.holes_stayed(at_hole, [partition], {BTC})
    on.send([6])
    assert on.tail.wait_until(on.end(), 10)
    assert on.tail.holes_stayed(at_hole, [partition], {BTC})
    on.send([3, 4])
    assert on.tail.wait_until(on.end(), 10)
    assert not on.tail.holes_stayed(at_hole, [partition], {BTC})
    assert not on.tail.holes_stayed(at_hole, [partition], None)
    assert on.tail.holes_stayed(at_hole, [partition], {ADA})
    assert on.tail.holes_stayed(on.end(), [partition], {BTC})


def test_it_knows_no_holes_beyond_what_it_has_read(on):
    on.send([1])
    beyond = OffsetVector(0, tuple(offset + 1 for offset in on.end().offsets))
    assert on.tail.wait_until(on.end(), 10)
    assert not on.tail.holes_stayed(beyond, [on.homes.place(BTC)], {BTC})
    on.tail.start(on.end(), {})
    assert not on.tail.holes_stayed(ZERO, [on.homes.place(BTC)], {BTC})


def test_a_commit_that_counts_other_dead_records_is_named(on):
    on.send([1])
    on.tape.append(0, b"garbage")
    for before in (0, 1):
        end = on.end()
        assert on.tail.wait_until(end, 10.0)
        assert on.tail.disagreeing(end, {0: 1 + before}) == frozenset()
        assert on.tail.disagreeing(end, {0: before}) == {0}
        beyond = OffsetVector(0, (end[0] + 1, 0, 0, 0))
        assert on.tail.disagreeing(beyond, {0: 99}) == frozenset(), "not read so far"
        on.tail.start(end, on.tail.states())
        assert on.tail.disagreeing(ZERO, {0: 99}) == frozenset(), "of before this life"
        on.tape.append(0, b"garbage")


def test_a_partition_that_was_read_again_counts_from_there():
    on = Fixture(bytes_max=200_000)
    on.send(range(4000), ADA)
    on.tape.append(2, b"garbage")
    on.tail.start(ZERO, {})
    eventually(lambda: on.tail.released() == {2})
    covered = OffsetVector(0, (0, 0, 4001, 0))
    assert on.tail.disagreeing(covered, {2: 99}) == frozenset()
    on.tail.restore(covered, {2: FoldState(accepted=3999, dead=2)})  # the writer knew less
    eventually(lambda: not on.tail.released())
    assert on.tail.disagreeing(covered, {2: 2}) == frozenset()
    assert on.tail.disagreeing(covered, {2: 1}) == {2}
    on.tail.close()


@pytest.fixture
def stepped():
    """A tail that the test steps itself."""
    made = Fixture()
    made.tail._begin(ZERO, {})
    made.tail._reader = made.tape.reader(dict.fromkeys(range(4), 0))
    return made


def test_a_deferred_partition_stands_still_and_catches_up_later(stepped):
    tail = stepped.tail
    tail.defer([2, 99])
    tail.step(0.0)
    assert tail.deferred() == {2}
    stepped.send([1])
    stepped.send([1, 2], ADA)
    tail.step(0.0)
    assert tail.position().offsets == (1, 0, 0, 0)
    assert not tail.catches_up()
    tail.defer([])
    tail.step(0.0)
    assert tail.catches_up()
    assert tail.deferred() == {2}
    for _ in range(2):
        tail.note_end(stepped.end())
        tail.step(0.0)
    assert tail.position() == stepped.end()
    assert tail.deferred() == {2}, "the lake does not cover it yet"
    tail.evict(stepped.end())
    tail.note_end(stepped.end())
    tail.step(0.0)
    assert (tail.deferred(), tail.catches_up()) == (frozenset(), False)
    assert stepped.rows({ADA}) == 2


def test_a_wait_does_not_wait_for_what_is_deferred(on):
    on.tail.defer([2])
    eventually(lambda: on.tail.deferred() == {2})
    on.send([1], ADA)
    assert not on.tail.wait_until(on.end(), 1000.0)
    on.send([1])
    assert on.tail.wait_until(on.end(), 10.0, [0])


def test_memory_does_not_resume_what_a_level_paused_nor_the_reverse():
    on = Fixture(bytes_max=200_000)
    on.tail._begin(ZERO, {})
    on.tail._reader = on.tape.reader(dict.fromkeys(range(4), 0))
    on.send(range(4000), ADA)
    on.tail.step(0.0)
    assert on.tail.released() == {2}
    on.tail.defer([2])
    on.tail.step(0.0)
    lake = OffsetVector(0, (0, 0, 4000, 0))
    on.tail.evict(lake)
    on.tail.restore(lake, {2: FoldState(accepted=4000)})
    on.tail.step(0.0)
    assert not on.tail.released()
    assert on.tail._reader._paused == {2}, "the level still pauses it"
    on.tail._make_room(on.tail._reader)
    on.tail.defer([])
    on.tail._bytes_max = 0
    on.send([5000], ADA)
    on.tail.step(0.0)
    assert on.tail.released() == {2}
    on.tail.step(0.0)
    assert on.tail._reader._paused == {2}, "its memory is still short"


def test_a_start_pauses_before_it_reads(on):
    on.tail.defer([2])
    on.send([1], ADA)
    on.tail.start(ZERO, {})
    on.send([1])
    assert on.tail.wait_until(on.end(), 10.0, [0])
    assert on.tail.position()[2] == 0


def test_freshness_is_observed_for_each_row_received_since_the_start(on):
    count, total = Moved("k2_freshness_seconds_count"), Moved("k2_freshness_seconds_sum")
    on.clock.advance(1)
    on.send(range(10))
    on.send([3])
    assert on.tail.wait_until(on.end(), 10.0)
    eventually(lambda: count.by() == 10)
    assert total.by() == pytest.approx(10, abs=0.01)
    on.tail.start(ZERO, {})
    assert on.tail.wait_until(on.end(), 10.0)
    on.tail.close()
    assert count.by() == 10, "what is read again was queryable before"


def test_freshness_has_the_trace_of_a_row_as_its_exemplar(stepped):
    on, count = stepped, Moved("k2_freshness_seconds_count")
    on.clock.advance(1)
    traced = {"traceparent": f"00-{7:032x}-{8:016x}-01".encode()}
    on.send([1, 2])
    on.send([2, 3, 4], headers=traced)  # the first of these is no row
    on.tail.step(0.0)
    assert count.by() == 4
    assert f'trace_id="{7:032x}"' in open_metrics(EVENTS).decode()


def test_little_of_several_partitions_is_decoded_at_once(stepped):
    on, calls = stepped, []
    on.tail._acceptance._decoder = Counted(on.tail._acceptance._decoder, calls)
    on.send([1, 2])
    on.send([1, 2, 3], ADA)
    assert on.tail.step(0.0) == 5
    assert calls == [5]
    assert on.rows() == 5
    assert on.tail.position() == on.end()
    on.send([4], ADA)
    on.send([3])
    on.tape.append(0, b"garbage")
    assert on.tail.step(0.0) == 3
    assert calls[1] == 3
    assert sorted(calls[2:]) == [1, 2], "a record at fault is judged in its own partition"
    assert on.rows() == 7


class Counted:
    """A decoder that notes how many records it is given at once."""

    def __init__(self, inner, calls):
        self.inner, self.calls = inner, calls

    def decode(self, batch):
        self.calls.append(len(batch))
        return self.inner.decode(batch)
