"""A read token has the same rows for ever, whatever becomes of files, snapshots and servers."""

import hashlib
from contextlib import ExitStack

import pytest

from k2.errors import Invalid, NotFound, Reason, Unavailable
from k2.market.offsets import OffsetVector, ReadToken, TimeRange
from k2.query import view as view_module
from k2.query.provenance import Completeness
from k2.query.request import Consistency, Order, TradesRequest
from tests.support.eventually import eventually
from tests.support.query_stack import PARTITIONS, QueryStack
from tests.support.trades import NOW_US

BTC = ("BTCUSDT",)
AS_OF = Consistency.AS_OF
QUESTIONS = (
    {},
    {"symbols": BTC},
    {"symbols": BTC, "limit": 7, "order": Order.DESC},
    {"limit": 33, "order": Order.ASC, "columns": ("trade_id", "tape_offset")},
    {"range": TimeRange(NOW_US + 20_000, NOW_US + 70_000)},
    {"exchanges": ("BINANCE",), "symbols": ("SOLUSDT", "BTCUSDT"), "order": Order.DESC},
)


@pytest.fixture
def stack(tmp_path):
    with QueryStack(tmp_path, recent_s=0.0) as made:
        yield made


def hashed(stack, **fields):
    """A hash of every value of every row in order, and the answer."""
    table, answer = stack.ask(**fields)
    digest = hashlib.sha256()
    for row in table.to_pylist():
        digest.update(repr(row).encode())
    return (len(table), digest.hexdigest()), answer


def again(stack, token):
    """What the questions are answered under a token."""
    return [
        hashed(stack, **fields, consistency=AS_OF, as_of_token=token)[0] for fields in QUESTIONS
    ]


def lived(stack):
    """Rows of lake and tail, late ones and duplicates among them; nothing of it is evicted."""
    stack.send("BTCUSDT", range(40))
    stack.send("SOLUSDT", range(30))
    stack.commit()
    stack.view.maintain()
    stack.send("BTCUSDT", [*range(50, 80), 3, 45, 60])
    stack.send("ETHUSDT", range(5))


def go_on(stack):
    """More of everything, also earlier in time and between old ids, all committed."""
    stack.send("BTCUSDT", [41, 46, *range(80, 120), 2])
    stack.send("SOLUSDT", range(25, 60))
    stack.send("BNBUSDT", range(10), start_us=NOW_US - 50_000)
    stack.commit()
    eventually(lambda: stack.tail.position() == stack.committed)
    stack.clock.advance(1)
    stack.view.maintain()


def test_a_token_of_a_union_has_the_same_rows_for_ever(stack, tmp_path):
    lived(stack)
    before, tokens = [], set()
    for fields in QUESTIONS:
        found, answer = hashed(stack, **fields)
        before.append(found)
        tokens.add(answer.opened.provenance.token)
        assert answer.rows_tail
    (token,) = tokens
    assert token == ReadToken("1", OffsetVector(0, (78, 30, 0, 0)), 1)
    assert again(stack, token) == before  # at once

    stack.send("BTCUSDT", [41, 46])
    assert again(stack, token) == before  # while the tape went on

    go_on(stack)
    assert stack.tail.stats().rows == 0
    assert again(stack, token) == before  # from a snapshot that holds more

    for path in stack.rewrite():
        path.unlink()
    stack.snapshots.expire(1)  # the hint
    stack.snapshots.expire(2)
    stack.view.maintain()
    assert again(stack, token) == before  # after compaction and expiry

    go_on(stack)
    with stack.restarted() as other:
        assert again(other, token) == before  # by another server
        assert hashed(other, **QUESTIONS[0])[0] != before[0]


def test_a_token_of_a_snapshot_outlives_it(stack):
    lived(stack)
    before, answer = hashed(stack, consistency=Consistency.COMMITTED)
    token = answer.opened.provenance.token
    assert token == ReadToken("1", OffsetVector(0, (40, 30, 0, 0)), 1)
    go_on(stack)
    stack.snapshots.expire(1)
    stack.rewrite()
    after, _ = hashed(stack, consistency=AS_OF, as_of_token=token)
    assert after == before


def test_the_answer_to_a_token_carries_it_with_the_snapshot_that_was_read(stack):
    lived(stack)
    token = stack.view.plan(TradesRequest()).provenance.token
    go_on(stack)
    stack.rewrite()
    planned = stack.view.plan(TradesRequest(consistency=AS_OF, as_of_token=token))
    assert planned.end == token.end
    assert planned.snapshot_id == 2  # the oldest that holds all
    assert planned.provenance.token == ReadToken("1", token.end, 2)
    assert planned.provenance.newest_receive_us is None


def test_a_ticket_for_a_token_is_answered_by_a_newer_snapshot_too(stack):
    lived(stack)
    token = stack.view.plan(TradesRequest()).provenance.token
    before = hashed(stack)[0]
    planned = stack.view.plan(TradesRequest(consistency=AS_OF, as_of_token=token))
    assert planned.snapshot_id == 1
    go_on(stack)
    stack.snapshots.expire(1)
    with stack.restarted() as other:
        table, answer = other.read(planned)
        assert (len(table), answer.rows_tail) == (before[0], 0)


def test_completeness_is_that_of_the_tokens_moment_or_unknown(stack):
    stack.send("BTCUSDT", [1, 2, 4])
    stack.commit()
    token = stack.view.plan(TradesRequest(consistency=Consistency.COMMITTED)).provenance.token
    fields = {"consistency": AS_OF, "as_of_token": token}
    provenance = stack.view.plan(TradesRequest(**fields)).provenance
    assert provenance.completeness is Completeness.GAPS
    stack.send("BTCUSDT", [3])
    stack.commit()
    eventually(lambda: stack.tail.position() == stack.committed)
    stack.view.maintain()
    assert stack.view.plan(TradesRequest()).provenance.completeness is Completeness.COMPLETE
    assert stack.view.plan(TradesRequest(**fields)).provenance == provenance
    stack.snapshots.expire(1)
    provenance = stack.view.plan(TradesRequest(**fields)).provenance
    assert provenance.completeness is Completeness.UNKNOWN
    assert provenance.gaps == ()


def test_rows_that_are_in_no_snapshot_are_waited_for(stack, monkeypatch):
    monkeypatch.setattr(view_module.limits, "WAIT_FOR_TAIL_S", 0.05)
    stack.send("BTCUSDT", range(10))
    token = stack.view.plan(TradesRequest()).provenance.token
    with stack.restarted() as other:
        fields = {"consistency": AS_OF, "as_of_token": token}
        assert other.ids(**fields) == list(range(10))
        other.tail.close()
        stack.send("BTCUSDT", range(10, 20))
        later = stack.view.plan(TradesRequest()).provenance.token
        fields["as_of_token"] = later
        with pytest.raises(Unavailable) as caught:
            other.ask(**fields)
        assert caught.value.reason is Reason.TAIL_BEHIND
        table, answer = other.ask(**fields, allow_partial=True)
        assert len(table) == 10
        assert answer.opened.provenance.completeness is Completeness.PARTIAL


@pytest.mark.parametrize("committed", [True, False])
def test_a_token_beyond_the_tapes_end_is_refused(stack, committed):
    lived(stack)
    if committed:
        stack.commit()
    token = stack.view.plan(TradesRequest()).provenance.token
    beyond = ReadToken("1", token.end.advanced(1, token.end[1] + 1))
    with pytest.raises(NotFound) as caught:
        stack.view.plan(TradesRequest(consistency=AS_OF, as_of_token=beyond))
    assert caught.value.reason is Reason.OUT_OF_RANGE


def test_a_tape_that_lost_what_a_token_names_is_noticed(stack):
    lived(stack)
    token = stack.view.plan(TradesRequest()).provenance.token
    stack.tape.truncate(0, 50)
    with pytest.raises(NotFound) as caught:
        stack.view.plan(TradesRequest(consistency=AS_OF, as_of_token=token))
    assert caught.value.reason is Reason.OUT_OF_RANGE


def test_a_token_of_another_tape_is_refused(stack):
    lived(stack)
    end = OffsetVector.zero(0, PARTITIONS)
    with pytest.raises(NotFound) as caught:
        stack.view.plan(TradesRequest(consistency=AS_OF, as_of_token=ReadToken("9", end)))
    assert caught.value.reason is Reason.UNKNOWN_TOKEN
    none = ReadToken("1", OffsetVector(0, ()))
    with pytest.raises(Invalid):
        stack.view.plan(TradesRequest(consistency=AS_OF, as_of_token=none))


def test_a_committed_token_needs_neither_tape_nor_tail(stack, tmp_path):
    lived(stack)
    stack.commit()
    stack.view.maintain()
    before, answer = hashed(stack)
    fields = {"consistency": AS_OF, "as_of_token": answer.opened.provenance.token}
    stack.tape.away = True
    assert hashed(stack, **fields)[0] == before
    stack.tape.away = False
    go_on(stack)
    stack.tape.away = True
    assert hashed(stack, **fields)[0] == before
    assert hashed(stack, **fields, allow_partial=True)[0] == before


def test_an_uncommitted_token_is_answered_partly_where_that_is_allowed(stack):
    lived(stack)
    token = stack.view.plan(TradesRequest()).provenance.token
    before = hashed(stack)[0]
    fields = {"consistency": AS_OF, "as_of_token": token}
    stack.tape.away = True
    with pytest.raises(Unavailable):
        stack.view.plan(TradesRequest(**fields))
    found, answer = hashed(stack, **fields, allow_partial=True)
    assert found == before  # the tail has them all, so nothing is missing
    assert answer.opened.provenance.missing == ()


def test_tokens_of_an_empty_lake_and_tape_have_no_rows(stack):
    token = stack.view.plan(TradesRequest()).provenance.token
    assert token == ReadToken("1", OffsetVector.zero(0, PARTITIONS), 0)
    lived(stack)
    assert stack.ids(consistency=AS_OF, as_of_token=token) == []
    go_on(stack)
    assert stack.ids(consistency=AS_OF, as_of_token=token) == []


def test_last_is_said_as_a_range_that_goes_with_the_token(stack):
    stack.send("BTCUSDT", range(10), step_us=1_000_000, start_us=NOW_US - 10_000_000)
    planned = stack.view.plan(TradesRequest(last_us=3_000_000))
    assert planned.provenance.range == TimeRange(NOW_US - 3_000_000)
    stack.clock.advance(5)
    token = planned.provenance.token
    fields = {"consistency": AS_OF, "as_of_token": token, "range": planned.provenance.range}
    with ExitStack() as closing:
        other = closing.enter_context(stack.restarted())
        assert other.ids(**fields) == [7, 8, 9]
