"""What an answer lacks while a part is behind, away or full is said by name, or refused."""

from dataclasses import replace

import pytest

from k2 import limits
from k2.errors import Data, Overloaded, Reason, Unavailable
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector
from k2.query.lake_snapshots import LakeSide
from k2.query.provenance import Completeness
from k2.query.request import Consistency, TradesRequest
from k2.query.view import DEFERRED
from tests.support.eventually import eventually
from tests.support.query_stack import PARTITIONS, QueryStack

BTC = ("BTCUSDT",)


def test_a_tail_that_does_not_come_is_waited_for_and_then_named(stack, impatient):
    stack.send("BTCUSDT", [1])
    stack.tail.close()
    stack.send("BTCUSDT", [2])
    planned = stack.plan(symbols=BTC)
    with pytest.raises(Unavailable) as caught:
        stack.read(planned)
    assert caught.value.reason is Reason.TAIL_BEHIND
    assert caught.value.retry_after_s is not None


def test_a_partial_answer_says_that_the_tail_is_behind(stack, impatient):
    stack.send("BTCUSDT", [1])
    eventually(lambda: stack.tail.position()[0] == 1)
    stack.tail.close()
    stack.send("BTCUSDT", [2])
    table, answer = stack.ask(symbols=BTC, allow_partial=True)
    assert table.column("trade_id").to_pylist() == [1]
    provenance = answer.opened.provenance
    assert provenance.completeness is Completeness.PARTIAL
    assert [(one.part, one.reason) for one in provenance.missing] == [("tail", Reason.TAIL_BEHIND)]


def test_another_partition_that_is_behind_does_not_matter(stack, impatient):
    stack.send("BTCUSDT", [1])
    eventually(lambda: stack.tail.position()[0] == 1)
    stack.tail.close()
    stack.send("SOLUSDT", [2])
    assert stack.ids(symbols=BTC, exchanges=("BINANCE",)) == [1]
    assert stack.ids(symbols=BTC) == [1]


def test_a_symbol_that_is_new_on_another_exchange_is_waited_for(stack, impatient):
    stack.send("BTCUSDT", [1])
    eventually(lambda: stack.tail.position()[0] == 1)
    stack.tail.close()
    stack.send("BTCUSDT", [2], exchange="BINANCE_UM")
    with pytest.raises(Unavailable) as caught:
        stack.ids(symbols=BTC)
    assert caught.value.reason is Reason.TAIL_BEHIND


def test_a_silent_broker_is_named_or_said_to_be_missing(stack):
    stack.send("BTCUSDT", [1])
    assert stack.ids(symbols=BTC) == [1]
    stack.tape.away = True
    with pytest.raises(Unavailable) as caught:
        stack.plan(symbols=BTC)
    assert caught.value.reason is Reason.TAPE_UNAVAILABLE
    table, answer = stack.ask(symbols=BTC, allow_partial=True)
    assert table.column("trade_id").to_pylist() == [1]
    assert [one.reason for one in answer.opened.provenance.missing] == [Reason.TAPE_UNAVAILABLE]
    assert answer.opened.provenance.completeness is Completeness.PARTIAL


def test_files_that_are_gone_fail_loudly_or_are_said_to_be_missing(stack):
    stack.send("BTCUSDT", [1])
    stack.commit()
    stack.view.maintain()
    stack.send("BTCUSDT", [2])
    for path in stack.folder.glob("*.parquet"):
        path.rename(path.with_suffix(".away"))
    with pytest.raises(Unavailable) as caught:
        stack.ask(symbols=BTC)
    assert caught.value.reason is Reason.LAKE_UNAVAILABLE
    table, answer = stack.ask(symbols=BTC, allow_partial=True)
    assert table.column("trade_id").to_pylist() == [1, 2]  # the tail still holds both
    assert answer.opened.provenance.missing == ()


def test_a_partial_answer_says_that_the_lake_is_missing(tmp_path):
    with QueryStack(tmp_path, recent_s=0.0) as stack:
        stack.send("BTCUSDT", [1])
        stack.commit()
        eventually(lambda: stack.tail.position()[0] == 1)
        stack.clock.advance(1)
        stack.view.maintain()
        stack.send("BTCUSDT", [2])
        for path in stack.folder.glob("*.parquet"):
            path.unlink()
        table, answer = stack.ask(symbols=BTC, allow_partial=True)
        assert table.column("trade_id").to_pylist() == [2]
        missing = answer.opened.provenance.missing
        assert [(one.part, one.reason) for one in missing] == [("lake", Reason.LAKE_UNAVAILABLE)]


def test_a_catalog_that_cannot_be_read_fails_committed_and_not_the_union(stack):
    stack.send("BTCUSDT", [1])
    stack.commit()
    stack.view.maintain()
    stack.snapshots.failure = Unavailable(Reason.LAKE_UNAVAILABLE, "locked")
    with pytest.raises(Unavailable):
        stack.plan(symbols=BTC, consistency=Consistency.COMMITTED)
    assert stack.ids(symbols=BTC) == [1]


def test_warm_planning_reads_nothing_of_the_lake(stack):
    stack.send("BTCUSDT", [1])
    stack.commit()
    stack.view.maintain()
    before = stack.snapshots.reads
    for _ in range(5):
        stack.ids(symbols=BTC)
    assert stack.snapshots.reads == before


def test_a_tape_that_lost_what_was_read_is_refused_by_name(stack):
    stack.send("BTCUSDT", [1, 2, 3])
    eventually(lambda: stack.tail.position()[0] == 3)
    stack.commit()
    stack.view.maintain()
    stack.tape.truncate(0, 1)
    with pytest.raises(Data) as caught:
        stack.plan(symbols=BTC)
    assert caught.value.reason is Reason.TAPE_TRUNCATED
    assert stack.ids(symbols=BTC, consistency=Consistency.COMMITTED) == [1, 2, 3]
    table, answer = stack.ask(symbols=BTC, allow_partial=True)
    assert table.column("trade_id").to_pylist() == [1, 2, 3]
    assert [one.reason for one in answer.opened.provenance.missing] == [Reason.TAPE_TRUNCATED]


def test_a_full_tail_releases_the_least_critical_and_says_so(tmp_path, impatient):
    with QueryStack(tmp_path, bytes_max=100_000) as stack:
        stack.lake.commit_interval_s = 60.0
        stack.send("BTCUSDT", [1])
        stack.send("ADAUSDT", range(2000))
        eventually(lambda: stack.tail.released() == {2})
        assert stack.ids(symbols=BTC, exchanges=("BINANCE",)) == [1]
        with pytest.raises(Overloaded) as caught:
            stack.ask(symbols=("ADAUSDT",))
        assert caught.value.reason is Reason.TAIL_FULL
        assert caught.value.retry_after_s == 60.0
        table, answer = stack.ask(symbols=("ADAUSDT",), allow_partial=True)
        assert len(table) == 0
        assert [one.reason for one in answer.opened.provenance.missing] == [Reason.TAIL_FULL]
        stack.commit()
        stack.view.maintain()
        eventually(lambda: not stack.tail.released())
        assert stack.ids(symbols=("ADAUSDT",)) == list(range(2000))


def test_a_server_that_cannot_reach_as_far_as_the_ticket_refuses(stack):
    stack.send("BTCUSDT", [1, 2])
    planner = LakeSide(
        stack.snapshots, PARTITIONS, stack.tape.topic_id
    )  # of another server, which sees the commit
    stack.commit()
    planned = planner.refresh()
    request = TradesRequest(symbols=BTC, consistency=Consistency.COMMITTED)
    stack.snapshots.failure = Unavailable(Reason.LAKE_UNAVAILABLE, "locked")
    end = planned.facts.positions
    with pytest.raises(Unavailable) as caught:
        stack.view.open(request, planned.snapshot_id, end)
    assert caught.value.reason is Reason.LAKE_UNAVAILABLE
    opened = stack.view.open(replace(request, allow_partial=True), planned.snapshot_id, end)
    assert [one.part for one in opened.provenance.missing] == ["lake"]


def test_what_a_full_tail_let_go_a_snapshot_of_meanwhile_has(tmp_path, impatient):
    with QueryStack(tmp_path, bytes_max=100_000) as stack:
        stack.send("ADAUSDT", [0])
        stack.commit()
        old = stack.lake.refresh()
        stack.send("ADAUSDT", range(1, 2000))
        eventually(lambda: stack.tail.released() == {2})
        stack.commit()
        stack.lake.refresh()  # as the maintainer does before it restores what was let go
        end = OffsetVector(0, stack.tape.admin().log_ends("trades", PARTITIONS))
        opened = stack.view.open(TradesRequest(symbols=("ADAUSDT",)), old.snapshot_id, end)
        assert opened.plan.missing == ()


@pytest.mark.parametrize("error", [Unavailable(Reason.TAPE_UNAVAILABLE, "away"), OSError("full")])
def test_a_tail_that_could_not_be_opened_again_has_failed_and_is_tried_again(stack, error):
    """Not one that has neither a thread nor a failure: nobody would start that again."""
    stack.send("BTCUSDT", [1, 2])
    stack.commit()
    older = list(stack.snapshots._kept)
    stack.send("BTCUSDT", [3])
    stack.commit()
    stack.view.maintain()
    errors = [error, error]

    def reader(start):
        if errors:
            raise errors.pop()
        return stack.tape.reader(start)

    stack.tail._open = reader
    stack.snapshots._kept = older  # an older lake is put in its place
    for _ in range(2):
        with pytest.raises((Unavailable, OSError), match=r"away|full"):
            stack.view.maintain()
        assert stack.tail.failure is not None
        planned = stack.plan(symbols=BTC)
        with pytest.raises(Unavailable, match=r"away|full"):
            stack.read(planned)
    stack.view.maintain()
    assert stack.tail.failure is None
    assert stack.ids(symbols=BTC) == [1, 2, 3]


@pytest.mark.parametrize("part", ["current", "states"])
def test_a_lake_that_moved_back_is_gone_back_to_once_it_can_be_read(tmp_path, part):
    with QueryStack(tmp_path, recent_s=0.0) as stack:
        stack.send("BTCUSDT", [1, 2])
        stack.commit()
        older = list(stack.snapshots._kept)
        stack.send("BTCUSDT", [3, 4, 5])
        stack.commit()
        eventually(lambda: stack.tail.position()[0] == 5)
        stack.clock.advance(1)
        stack.view.maintain()  # the tail lets everything go
        stack.snapshots._kept = older
        whole, calls = getattr(stack.snapshots, part), []

        def locked(*given):
            calls.append(part)
            if len(calls) == (2 if part == "current" else 1):
                raise Unavailable(Reason.LAKE_UNAVAILABLE, "locked")
            return whole(*given)

        setattr(stack.snapshots, part, locked)
        stack.lake._states.clear()
        with pytest.raises(Unavailable):
            stack.view.maintain()
        stack.view.maintain()
        assert stack.ids(symbols=BTC) == [1, 2, 3, 4, 5]


def test_a_failed_tail_is_started_again_by_the_maintainer(stack, impatient):
    stack.send("BTCUSDT", [1, 2, 3])
    eventually(lambda: stack.tail.position()[0] == 3)
    stack.commit()
    stack.tape.remove_before(0, 3)
    stack.send("BTCUSDT", [4])
    stack.tape.remove_before(0, 4)
    eventually(lambda: stack.tail.failure is not None or stack.tail.position()[0] == 4)
    stack.committed = OffsetVector(0, (4, 0, 0, 0))
    stack.commit()
    stack.view.maintain()
    eventually(lambda: stack.tail.failure is None)
    stack.send("BTCUSDT", [5])
    assert stack.ids(symbols=BTC)[-1] == 5


def test_only_questions_that_touch_a_waiting_partition_wait_for_the_registry(stack):
    stack.send("BTCUSDT", [1])
    stack.send("SOLUSDT", [1])
    assert stack.ids() == [1, 1]
    known, schemas = dict(stack.tail._acceptance._decoder._schemas.schemas), {}

    class Away(dict):
        def __getitem__(self, key):
            if key in known:
                return known[key]
            raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "the registry is away")

    stack.tail._acceptance._decoder._schemas.schemas = Away(schemas)
    home = stack.homes.known()[Instrument("BINANCE", "SOLUSDT")]
    stack.tape.append(home, b"\x00\x00\x00\x00\x63what is this")
    stack.send("SOLUSDT", [2])
    stack.send("BTCUSDT", [2])
    assert stack.ids(symbols=("BTCUSDT",)) == [1, 2]
    with pytest.raises(Unavailable) as caught:
        stack.ask(symbols=("SOLUSDT",))
    assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE
    assert caught.value.retry_after_s
    assert stack.ids(symbols=("SOLUSDT",), allow_partial=True) == [1]
    stack.clock.advance(limits.UNASKED_AFTER_S)
    eventually(lambda: stack.tail.waiting_for([home]) is None)
    table, answer = stack.ask(symbols=("SOLUSDT",))
    assert table.column("trade_id").to_pylist() == [1, 2]
    assert answer.opened.provenance.completeness is Completeness.UNKNOWN, "a commit decides"


ADA = ("ADAUSDT",)


def deferring(stack):
    """ADA's partition is paused, with a trade above the tail's position."""
    stack.send("BTCUSDT", [1])
    stack.send("ADAUSDT", [1])
    eventually(lambda: stack.tail.position().offsets[:3] == (1, 0, 1))
    stack.tail.defer([2])
    eventually(lambda: stack.tail.deferred() == {2})


def counted():
    return DEFERRED._value.get()


def test_a_union_that_needs_a_deferred_partition_fails_when_it_is_planned(stack):
    deferring(stack)
    assert stack.ids(symbols=ADA) == [1], "nothing lies above the tail's position"
    stack.send("ADAUSDT", [2])
    before = counted()
    with pytest.raises(Unavailable) as caught:
        stack.plan(symbols=ADA)
    assert caught.value.reason is Reason.DEFERRED
    assert caught.value.metadata == {"partitions": "2"}
    assert caught.value.retry_after_s == 15.0
    assert counted() == before + 1


def test_a_partial_answer_says_what_is_deferred(stack):
    deferring(stack)
    stack.send("ADAUSDT", [2])
    before = counted()
    table, answer = stack.ask(symbols=ADA, allow_partial=True)
    assert table.column("trade_id").to_pylist() == [1]
    provenance = answer.opened.provenance
    assert [(one.part, one.reason) for one in provenance.missing] == [("tail", Reason.DEFERRED)]
    assert provenance.completeness is Completeness.PARTIAL
    assert counted() == before + 1


def test_other_partitions_and_other_consistencies_are_answered(stack):
    deferring(stack)
    stack.send("ADAUSDT", [2])
    stack.send("BTCUSDT", [2])
    assert stack.ids(symbols=BTC) == [1, 2]
    stack.commit()
    stack.view.maintain()
    stack.send("ADAUSDT", [3])
    for fields in ({"consistency": Consistency.COMMITTED}, {"as_of_snapshot": 1}):
        if "as_of_snapshot" in fields:
            fields["consistency"] = Consistency.AS_OF
        assert stack.ids(symbols=ADA, **fields) == [1, 2]


def test_what_the_lake_holds_of_a_deferred_partition_is_answered(stack):
    deferring(stack)
    stack.send("ADAUSDT", [2])
    stack.commit()
    stack.view.maintain()
    assert stack.ids(symbols=ADA) == [1, 2]


def test_a_partition_that_was_deferred_is_answered_once_it_has_caught_up(stack):
    deferring(stack)
    stack.send("ADAUSDT", [2])
    stack.tail.defer([])

    def caught_up():
        stack.commit()
        stack.view.maintain()
        return not stack.tail.deferred()

    eventually(caught_up)
    assert stack.ids(symbols=ADA) == [1, 2]


def test_a_broker_that_is_away_does_not_stop_the_maintenance_of_a_view(stack):
    deferring(stack)
    stack.send("ADAUSDT", [2])
    stack.tape.away = True
    stack.tail.defer([])
    eventually(stack.tail.catches_up)
    stack.view.maintain()
    assert stack.tail.deferred() == {2}


def test_a_partition_that_is_deferred_while_it_is_waited_for_is_named(stack, impatient):
    stack.send("ADAUSDT", [1])
    planned = stack.plan(symbols=ADA)
    eventually(lambda: stack.tail.position()[2] == 1)
    stack.tail.defer([2])
    eventually(lambda: stack.tail.deferred() == {2})
    stack.send("ADAUSDT", [2])
    beyond = OffsetVector(0, (0, 0, 2, 0))
    with pytest.raises(Unavailable) as caught:
        stack.view.open(planned.request, planned.snapshot_id, beyond)
    assert caught.value.reason is Reason.DEFERRED


def test_that_a_partition_has_caught_up_is_seen_by_the_queries_themselves(stack):
    deferring(stack)
    stack.send("ADAUSDT", [2])
    stack.tail.defer([])
    eventually(stack.tail.catches_up)
    eventually(lambda: stack.tail.position()[2] == 2)
    stack.commit()

    def answered():
        stack.view.maintain()
        stack.plan(symbols=ADA)
        return not stack.tail.deferred()

    eventually(answered)
