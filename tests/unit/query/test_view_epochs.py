"""Questions to a lake whose rows are of several epochs of the tape."""

import pytest

from k2.errors import Data, NotFound, Reason
from k2.query.provenance import Completeness
from k2.query.request import Consistency

BTC = ("BTCUSDT",)


def test_an_answer_spans_the_epochs_of_the_tape(stack):
    stack.send("BTCUSDT", [1, 2, 3, 4, 5])
    stack.commit()
    stack.begin_epoch()
    stack.send("BTCUSDT", [4, 5, 8, 9])  # at offsets that older rows have in another epoch
    assert stack.ids(symbols=BTC) == [1, 2, 3, 4, 5, 8, 9]
    planned = stack.plan(symbols=BTC)
    stack.commit()
    stack.send("BTCUSDT", [10])
    stack.commit()
    stack.view.maintain()
    assert stack.ids(symbols=BTC) == [1, 2, 3, 4, 5, 8, 9, 10]
    stack.snapshots.expire(planned.snapshot_id)
    stack.lake._kept.clear()
    table, _ = stack.read(planned)  # on a newer snapshot, cut in its epoch alone
    assert table.column("trade_id").to_pylist() == [1, 2, 3, 4, 5, 8, 9]


def test_a_snapshot_of_an_older_epoch_answers_as_it_did_also_when_it_is_gone(stack):
    stack.send("BTCUSDT", [1, 2])
    stack.commit()
    stack.send("BTCUSDT", [3, 4])
    stack.commit()
    stack.begin_epoch()
    stack.send("BTCUSDT", [5])
    stack.commit()
    stack.view.maintain()
    planned = stack.plan(symbols=BTC, consistency=Consistency.AS_OF, as_of_snapshot=1)
    assert stack.read(planned)[0].column("trade_id").to_pylist() == [1, 2]
    stack.snapshots.expire(1)
    stack.lake._kept.clear()
    assert stack.read(planned)[0].column("trade_id").to_pylist() == [1, 2]


def test_a_token_of_an_older_epoch_has_the_same_rows_for_ever(stack):
    stack.send("BTCUSDT", [1, 2])
    stack.commit()
    stack.send("BTCUSDT", [3, 4])
    token = stack.plan(symbols=BTC).provenance.token
    stack.send("BTCUSDT", [5])
    stack.commit()
    stack.begin_epoch()
    stack.send("BTCUSDT", [4, 5, 6, 7])
    stack.commit()
    stack.rewrite()  # the rows of both epochs in one file
    stack.view.maintain()
    of_token = {"symbols": BTC, "consistency": Consistency.AS_OF, "as_of_token": token}
    for expired in (None, 1, 2, 3):
        if expired:
            stack.snapshots.expire(expired)
            stack.lake._kept.clear()
        again = stack.plan(**of_token)
        assert stack.read(again)[0].column("trade_id").to_pylist() == [1, 2, 3, 4]
        assert again.provenance.token.end == token.end
        assert again.provenance.token.topic_id == token.topic_id != stack.tape.topic_id
        assert again.provenance.completeness is Completeness.UNKNOWN


def test_the_token_of_an_older_epochs_snapshot_is_of_its_topic(stack):
    stack.send("BTCUSDT", [1, 2])
    stack.commit()
    stack.begin_epoch()
    stack.send("BTCUSDT", [3])
    first = stack.plan(symbols=BTC, consistency=Consistency.AS_OF, as_of_snapshot=1)
    token = first.provenance.token
    again = stack.plan(symbols=BTC, consistency=Consistency.AS_OF, as_of_token=token)
    assert stack.read(again)[0].column("trade_id").to_pylist() == [1, 2]
    assert again.provenance.completeness is Completeness.COMPLETE  # a snapshot stands just there


@pytest.mark.parametrize("gone", [False, True], ids=["kept", "expired"])
def test_a_token_beyond_the_end_of_its_epoch_is_refused(stack, gone):
    """What it was made from was lost with the epoch: fewer rows would be another answer."""
    stack.send("BTCUSDT", [1, 2])
    stack.send("SOLUSDT", [7])
    stack.commit()
    of_end = stack.plan(symbols=BTC).provenance.token
    stack.send("BTCUSDT", [3])
    beyond = stack.plan(symbols=BTC).provenance.token
    stack.begin_epoch()
    stack.send("BTCUSDT", [4, 5])
    stack.commit()
    stack.view.maintain()
    if gone:
        stack.snapshots.expire(1)
    of_token = {"symbols": BTC, "consistency": Consistency.AS_OF}
    assert stack.ids(**of_token, as_of_token=of_end) == [1, 2]
    for partial in (False, True):
        with pytest.raises(NotFound) as caught:
            stack.plan(**of_token, as_of_token=beyond, allow_partial=partial)
        assert caught.value.reason is Reason.OUT_OF_RANGE


def test_a_hybrid_question_of_an_older_epoch_is_refused(stack):
    stack.send("BTCUSDT", [1])
    planned = stack.plan(symbols=BTC)
    stack.commit()
    stack.begin_epoch()
    with pytest.raises(Data) as caught:
        stack.read(planned)
    assert caught.value.reason is Reason.EPOCH_ENDED
