"""Documents on a board, without a broker. Reading and following are in the contract."""

import pytest
from confluent_kafka import Message

from k2.errors import Unavailable
from k2.tape.board import Board, apply, parse


def record(key, value):
    return Message(topic="t", key=key, value=value)


def test_documents_are_json_objects():
    assert parse(record(b"k", b'{"a": 1}')) == ("k", {"a": 1})
    assert parse(record(b"k", None)) == ("k", None)


@pytest.mark.parametrize(
    "foreign",
    [
        record(None, b"{}"),
        record(b"", b"{}"),
        record(b"\xff", b"{}"),
        record(b"k", b"{"),
        record(b"k", b"[1]"),
        record(b"k", b"\xff"),
    ],
)
def test_foreign_records_are_passed_over(foreign):
    assert parse(foreign) is None


def test_the_newest_holds_until_it_is_taken_away():
    documents = {}
    apply(documents, "a", {"n": 1})
    apply(documents, "a", {"n": 2})
    apply(documents, "b", {"n": 3})
    apply(documents, "b", None)
    apply(documents, "c", None)
    assert documents == {"a": {"n": 2}}


def test_a_put_that_must_be_acknowledged_fails_without_a_broker():
    board = Board("127.0.0.1:1", "t")
    with pytest.raises(Unavailable):
        board.put("k", {"a": 1}, wait_s=0.05)
    board.put("k", {"a": 2})
    board.close(drain_s=0.05)
    with pytest.raises(Unavailable):
        board.put("k", {"a": 3})
    with pytest.raises(Unavailable):
        board.current()


def test_closing_what_was_never_used():
    Board("127.0.0.1:1", "t").close()


def test_following_without_a_broker_can_be_ended():
    board = Board("127.0.0.1:1", "t")
    board.start()
    assert board.version == 0
    assert board.wait_change(0, 0.05) == 0
    board.close()
