from dataclasses import replace

import pytest
from google.protobuf import json_format

from k2.clock import ManualClock
from k2.degrade.level import Level
from k2.errors import Data, Invalid, NotFound, Reason, Unavailable
from k2.market import events
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector, TimeRange
from k2.query import view as view_module
from k2.query.lake_snapshots import LakeSide
from k2.query.provenance import Completeness, Gap
from k2.query.request import Consistency, Order, TradesRequest
from servers.services.query_messages import provenance_to
from tests.support.eventually import eventually
from tests.support.query_stack import PARTITIONS, QueryStack
from tests.support.trades import NOW_US

BTC = ("BTCUSDT",)


def test_what_was_acknowledged_before_is_in_the_answer(stack):
    for count in range(1, 20):
        stack.send("BTCUSDT", [count])
        assert stack.ids(symbols=BTC) == list(range(1, count + 1))


def test_the_answer_is_the_same_before_and_after_a_commit(stack):
    stack.send("BTCUSDT", [1, 2, 2, 5, 4])
    before, of_tail = stack.ask(symbols=BTC)
    stack.commit()
    stack.view.maintain()
    after, of_lake = stack.ask(symbols=BTC)
    assert before == after
    assert (of_tail.rows_lake, of_tail.rows_tail) == (0, 4)
    assert (of_lake.rows_lake, of_lake.rows_tail) == (4, 0)


def test_an_answer_has_rows_from_both_sides(stack):
    stack.send("BTCUSDT", range(10))
    stack.commit()
    stack.view.maintain()
    stack.send("BTCUSDT", range(5, 15))
    table, answer = stack.ask(symbols=BTC)
    assert table.column("trade_id").to_pylist() == list(range(15))
    assert (answer.rows_lake, answer.rows_tail) == (10, 5)


def test_a_range_above_what_the_tail_lost_needs_no_lake(tmp_path):
    with QueryStack(tmp_path, recent_s=0.0) as stack:
        stack.send("BTCUSDT", range(100))
        stack.commit()
        eventually(lambda: stack.tail.position()[0] == 100)
        stack.clock.advance(1)
        stack.view.maintain()
        stack.send("BTCUSDT", range(100, 110))
        late = TimeRange(NOW_US + 100_000, None)
        table, answer = stack.ask(symbols=BTC, range=late)
        assert table.column("trade_id").to_pylist() == list(range(100, 110))
        assert answer.opened.plan.skips_lake
        _, answer = stack.ask(symbols=BTC, range=TimeRange(NOW_US + 99_000, None))
        assert (answer.rows_lake, answer.rows_tail) == (1, 10)


def test_the_newest_rows_come_from_the_tail_when_it_holds_enough(stack):
    stack.send("BTCUSDT", range(300))
    stack.commit()
    eventually(lambda: stack.tail.position()[0] == 300)
    stack.view.maintain()
    table, answer = stack.ask(symbols=BTC, limit=100, order=Order.DESC)
    assert table.column("trade_id").to_pylist() == list(range(299, 199, -1))
    assert answer.rows_lake == 0


def test_last_starts_a_duration_before_now(stack):
    stack.send("BTCUSDT", range(10), step_us=1_000_000, start_us=NOW_US - 10_000_000)
    assert stack.ids(symbols=BTC, last_us=3_000_000) == [7, 8, 9]


def test_an_unknown_symbol_or_exchange_is_named(stack):
    stack.send("BTCUSDT", [1])
    for fields in (
        {"symbols": ("NOPE",)},
        {"exchanges": ("NOPE",)},
        {"symbols": BTC, "exchanges": ("NOPE",)},
        {"symbols": BTC, "exchanges": ("BINANCE", "NOPE")},
    ):
        with pytest.raises(NotFound) as caught:
            stack.plan(**fields)
        assert caught.value.reason is Reason.UNKNOWN_SYMBOL
        assert "NOPE" in caught.value.metadata["unknown"]


def test_a_wrong_request_is_refused_before_anything_is_asked(stack):
    with pytest.raises(Invalid):
        stack.plan(limit=-1)


def test_names_may_be_in_lower_case(stack):
    stack.send("BTCUSDT", [1])
    assert stack.ids(symbols=("btcusdt",), exchanges=("binance",)) == [1]


def test_the_same_symbol_on_a_new_exchange_is_found_without_being_named(stack):
    stack.send("BTCUSDT", [1])
    assert stack.ids(symbols=BTC) == [1]
    stack.send("BTCUSDT", [2], exchange="BINANCE_UM")
    assert stack.ids(symbols=BTC) == [1, 2]
    assert stack.ids(symbols=BTC, exchanges=("BINANCE_UM",)) == [2]
    assert stack.ids(exchanges=("BINANCE",)) == [1]


def test_without_names_all_are_asked(stack):
    stack.send("BTCUSDT", [1, 3])
    stack.send("SOLUSDT", [2, 3])
    stack.commit()
    stack.view.maintain()
    stack.send("ADAUSDT", [4])
    table, _ = stack.ask()
    assert table.column("symbol").to_pylist() == [
        "BTCUSDT", "SOLUSDT", "BTCUSDT", "SOLUSDT", "ADAUSDT",
    ]  # fmt: skip


def test_an_empty_lake_and_tape_answer_nothing(stack):
    table, answer = stack.ask()
    assert len(table) == 0
    provenance = answer.opened.provenance
    assert provenance.snapshot_id == 0
    assert provenance.committed_at_us is None
    assert provenance.completeness is Completeness.UNKNOWN
    assert stack.ids(consistency=Consistency.COMMITTED) == []


def test_committed_and_as_of_are_what_their_snapshots_hold(stack):
    stack.send("BTCUSDT", [1])
    stack.commit()
    stack.send("BTCUSDT", [2])
    stack.commit()
    stack.send("BTCUSDT", [3])
    assert stack.ids(symbols=BTC, consistency=Consistency.COMMITTED) == [1, 2]
    as_of = Consistency.AS_OF
    assert stack.ids(symbols=BTC, consistency=as_of, as_of_snapshot=1) == [1]
    assert stack.ids(symbols=BTC, consistency=as_of, as_of_time_us=NOW_US + 1_500_000) == [1]
    for fields in ({"as_of_snapshot": 9}, {"as_of_time_us": 1}):
        with pytest.raises(NotFound) as caught:
            stack.plan(consistency=as_of, **fields)
        assert caught.value.reason is Reason.UNKNOWN_SNAPSHOT


def test_a_pinned_snapshot_that_was_expired_is_answered_by_a_newer_one(stack):
    stack.send("BTCUSDT", [1])
    stack.commit()
    planned = stack.plan(symbols=BTC, consistency=Consistency.COMMITTED)
    stack.send("BTCUSDT", [2])
    stack.commit()
    stack.snapshots.expire(1)
    fresh = QueryStack(stack.folder)
    other = LakeSide(stack.snapshots, PARTITIONS, stack.tape.topic_id)
    other.refresh()
    fresh.view._lake, stack.view._lake = stack.view._lake, other
    stack.view.maintain()
    table, _ = stack.read(planned)
    assert table.column("trade_id").to_pylist() == [1]
    fresh.executor.close()


def test_a_ticket_is_answered_the_same_after_commits_and_evictions(tmp_path):
    with QueryStack(tmp_path, recent_s=0.0) as stack:
        stack.send("BTCUSDT", range(50))
        stack.commit()
        stack.view.maintain()
        stack.send("BTCUSDT", range(50, 80))
        planned = stack.plan(symbols=BTC)
        stack.send("BTCUSDT", range(80, 100))
        eventually(lambda: stack.tail.position()[0] == 100)
        stack.commit()
        stack.clock.advance(1)
        stack.view.maintain()
        table, answer = stack.read(planned)
        assert table.column("trade_id").to_pylist() == list(range(80))
        assert answer.rows_tail == 0
        assert answer.opened.provenance.snapshot_id == 2
        assert answer.opened.provenance.end == planned.end


def test_open_answers_read_on_after_eviction(tmp_path):
    with QueryStack(tmp_path, recent_s=0.0) as stack:
        stack.send("BTCUSDT", range(50))
        planned = stack.plan(symbols=BTC)
        opened = stack.view.open(planned.request, planned.snapshot_id, planned.end)
        stack.commit()
        stack.clock.advance(1)
        stack.view.maintain()
        assert stack.tail.stats().rows == 0
        assert sum(batch.num_rows for batch in stack.executor.run(opened)) == 50


def test_holes_are_gaps_unless_the_range_is_later(stack):
    stack.send("BTCUSDT", [1, 2, 5, 9])
    table, answer = stack.ask(symbols=BTC)
    provenance = answer.opened.provenance
    btc = Instrument("BINANCE", "BTCUSDT")
    assert provenance.completeness is Completeness.GAPS
    assert provenance.gaps == (Gap(btc, 3, 4), Gap(btc, 6, 8))
    assert provenance.gaps_total == 2
    later = TimeRange(NOW_US + 10_000, None)
    assert stack.plan(symbols=BTC, range=later).provenance.completeness is Completeness.COMPLETE
    assert len(table) == 4
    stack.commit()
    planned = stack.plan(symbols=BTC, consistency=Consistency.COMMITTED)
    assert planned.provenance.completeness is Completeness.GAPS


def test_a_hole_that_was_filled_above_the_end_leaves_it_unknown(stack):
    stack.send("BTCUSDT", [1, 2, 5])
    stack.commit()
    asked = TradesRequest(symbols=BTC)
    planned = stack.view.plan(asked)
    committed = stack.view.plan(replace(asked, consistency=Consistency.COMMITTED))
    stack.send("BTCUSDT", [3, 4])
    stack.commit()
    eventually(lambda: stack.tail.position() == stack.committed)
    stack.view.maintain()
    opened = stack.view.open(planned.request, planned.snapshot_id, planned.end)
    assert opened.provenance.completeness is Completeness.UNKNOWN
    opened = stack.view.open(committed.request, committed.snapshot_id, committed.end)
    assert opened.provenance.completeness is Completeness.GAPS
    no_longer_kept = 999
    opened = stack.view.open(committed.request, no_longer_kept, committed.end)
    assert opened.provenance.completeness is Completeness.UNKNOWN
    assert stack.plan(symbols=BTC).provenance.completeness is Completeness.COMPLETE


def test_an_answer_below_the_floor_of_retention_says_so(stack):
    stack.send("BTCUSDT", range(5))
    stack.floor_us = NOW_US + 3000
    stack.commit()
    stack.view.maintain()
    eventually(lambda: stack.tail.position()[0] == 5)
    for consistency in (Consistency.UNION, Consistency.COMMITTED):
        below = stack.plan(symbols=BTC, consistency=consistency).provenance
        assert below.completeness is Completeness.PARTIAL
        (part,) = below.missing
        assert (part.part, part.reason) == ("retention", Reason.OUT_OF_RANGE)
        assert "before 2" in part.message
        above = TimeRange(stack.floor_us, None)
        whole = stack.plan(symbols=BTC, consistency=consistency, range=above).provenance
        assert (whole.completeness, whole.missing) == (Completeness.COMPLETE, ())


def test_the_newest_rows_of_the_tail_are_above_any_floor(stack):
    stack.send("BTCUSDT", range(5))
    stack.floor_us = NOW_US + 1
    stack.commit()
    stack.view.maintain()
    eventually(lambda: stack.tail.position()[0] == 5)
    newest = stack.plan(symbols=BTC, limit=2, order=Order.DESC)
    assert newest.provenance.completeness is Completeness.COMPLETE


def test_provenance_says_where_rows_come_from(stack):
    stack.send("BTCUSDT", [1, 2])
    stack.commit()
    stack.view.maintain()
    stack.send("BTCUSDT", [3])
    eventually(lambda: stack.tail.position()[0] == 3)
    planned = stack.plan(symbols=BTC)
    provenance = planned.provenance
    assert provenance.snapshot_id == planned.snapshot_id == 1
    assert provenance.committed_at_us == NOW_US + 1_000_000
    assert provenance.positions == OffsetVector(0, (2, 0, 0, 0))
    assert provenance.end == planned.end == OffsetVector(0, (3, 0, 0, 0))
    assert provenance.newest_receive_us == NOW_US + 3500
    assert provenance.source == "simulated"
    assert provenance.completeness is Completeness.COMPLETE
    assert (planned.estimate.files, planned.estimate.chunks) == (1, 1)
    assert planned.estimate.rows >= 3
    assert planned.estimate.bytes > 0


def test_a_query_of_another_tape_is_refused(stack):
    with pytest.raises(Data) as caught:
        stack.view.open(TradesRequest(), 0, OffsetVector(0, (1,)))
    assert caught.value.reason is Reason.EPOCH_ENDED


def test_a_lake_that_moved_back_is_followed_and_the_tail_reads_again(tmp_path):
    with QueryStack(tmp_path, recent_s=0.0) as stack:
        stack.send("BTCUSDT", [1, 2])
        stack.commit()
        older = list(stack.snapshots._kept)
        stack.send("BTCUSDT", [3, 4, 5])
        stack.commit()
        eventually(lambda: stack.tail.position()[0] == 5)
        stack.clock.advance(1)
        stack.view.maintain()  # the tail lets everything go
        stack.snapshots._kept = older  # an older lake is put in its place
        stack.view.maintain()
        assert stack.ids(symbols=BTC) == [1, 2, 3, 4, 5]


def test_the_maintainer_publishes_new_snapshots_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(view_module.limits, "SNAPSHOT_POLL_S", 0.01)
    stack = QueryStack(tmp_path)
    stack.view.start()
    stack.send("BTCUSDT", [1])
    stack.snapshots.failure = Unavailable(Reason.LAKE_UNAVAILABLE, "locked")
    eventually(lambda: stack.snapshots.reads > 5)
    stack.snapshots.failure = None
    stack.commit()
    eventually(lambda: stack.plan(symbols=BTC).snapshot_id == 1)
    stack.view.close()
    stack.executor.close()


@pytest.mark.parametrize("skew_s", [-3600, 3600])
def test_clocks_that_are_an_hour_off_change_no_answer(tmp_path, skew_s):
    """A server's is off by so much, the feed's by as much in the other direction."""
    off = ManualClock(NOW_US + skew_s * 1_000_000)
    with (
        QueryStack(tmp_path) as right,
        QueryStack(tmp_path, clock=off, tape=right.tape, snapshots=right.snapshots) as wrong,
    ):
        for ids in (range(10), range(8, 20), range(15, 25), range(27, 30)):
            right.commit()
            stamped_us = NOW_US - skew_s * 1_000_000
            right.send("BTCUSDT", ids, receive_time_us=stamped_us)
        as_of = {"consistency": Consistency.AS_OF}
        for server in (right, wrong):
            server.view.maintain()
        token = right.plan(symbols=BTC).provenance.token
        right.send("BTCUSDT", [30])
        for fields in (
            {},
            {"consistency": Consistency.COMMITTED},
            as_of | {"as_of_time_us": NOW_US + 3_500_000},
            as_of | {"as_of_token": token},
            {"range": TimeRange(NOW_US + 12_000, NOW_US + 28_000)},
        ):
            mine, of_right = right.ask(symbols=BTC, **fields)
            theirs, of_wrong = wrong.ask(symbols=BTC, **fields)
            assert theirs == mine
            assert len(mine)
            told = [one.opened.provenance for one in (of_right, of_wrong)]
            assert told[1].planned_at_us - told[0].planned_at_us == skew_s * 1_000_000
            of_no_clock = [replace(one, planned_at_us=0, as_of_ahead_us=None) for one in told]
            assert of_no_clock[1] == of_no_clock[0]
        assert right.ids(symbols=BTC) == [*range(25), *range(27, 31)]
        assert told[0].completeness is Completeness.GAPS


def test_a_row_of_rules_0_with_a_time_in_the_year_10000_fails_no_answer(stack, monkeypatch):
    monkeypatch.setattr(events, "RECORD_TIME_MAX_US", 2**62)
    stack.send("BTCUSDT", [1], receive_time_us=events.TIME_MAX_US + 7)
    stack.send("BTCUSDT", [2])
    stack.commit()
    stack.view.maintain()
    table, _ = stack.ask(symbols=("BTCUSDT",), consistency=Consistency.COMMITTED)
    assert [row["trade_id"] for row in table.to_pylist()] == [1, 2]
    told = provenance_to(stack.ask(symbols=("BTCUSDT",))[1].opened.provenance, Level.NORMAL)
    assert json_format.MessageToDict(told)["plannedTime"]


def test_an_answer_past_the_time_at_which_ids_began_again_reads_unknown(stack):
    stack.send("BTCUSDT", range(1, 61))
    stack.send("BTCUSDT", range(1, 41), start_us=NOW_US + 2 * 3_600_000_000)
    reused_us = NOW_US + 2 * 3_600_000_000 + 1000
    for _ in range(2):
        table, answer = stack.ask(symbols=("BTCUSDT",))
        assert len(table) == 60
        assert answer.opened.provenance.completeness is Completeness.UNKNOWN
        before = TimeRange(None, reused_us)
        _, answer = stack.ask(symbols=("BTCUSDT",), range=before)
        assert answer.opened.provenance.completeness is Completeness.COMPLETE
        stack.commit()
        stack.view.maintain()
