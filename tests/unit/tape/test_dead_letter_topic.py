"""A letter is its bytes and where they came from. Publishing is in the contract."""

import pytest

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.market.events import Fault
from k2.tape.dead_letter_topic import DeadLetter, DeadLetterTopic, headers_of, read_letter
from tests.support.scraped import Moved

LETTER = DeadLetter("t", 1, 2, 3, None, Fault.NULL_VALUE, "ü", 4, None)


def test_headers_carry_everything_but_the_value():
    headers = [(name, text.encode()) for name, text in headers_of(LETTER).items()]
    assert read_letter(headers, b"x") == DeadLetter(
        "t", 1, 2, 3, None, Fault.NULL_VALUE, "ü", 4, b"x"
    )


def test_errors_are_short():
    long = headers_of(DeadLetter("t", 1, 2, 3, 7, Fault.TRAILING, "x" * 10_000, 4, b""))
    assert len(long["error"]) <= limits.KIB
    assert long["schema_id"] == "7"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("topic", None), ("offset", b"-1"), ("offset", b"x"), ("offset", b"9" * 30),
        ("partition", b"2147483648"), ("schema_id", b"4294967296"), ("fault", b"NO_SUCH"),
        ("at_us", b"9" * 19), ("error", b"\xff"),
    ],
)  # fmt: skip
def test_what_is_no_letter_is_none(name, content):
    texts = headers_of(LETTER) | {name: content}
    headers = [(key, one.encode() if isinstance(one, str) else one) for key, one in texts.items()]
    if content is None:
        headers = [each for each in headers if each[0] != name]
    assert read_letter(headers, b"x") is None


def test_a_record_without_headers_is_no_letter():
    assert read_letter(None, b"x") is None


def test_a_letter_is_named_by_where_its_record_is():
    assert LETTER.name == "t/1/2/3"


def test_letters_are_counted_by_fault_once_they_are_acknowledged(monkeypatch):
    sent, moved = [], Moved("k2_dead_letters_total", fault="NULL_VALUE")
    topic = DeadLetterTopic("127.0.0.1:1")
    monkeypatch.setattr(topic._delivery, "send", lambda records, wait_s: sent.extend(records))
    topic.publish([LETTER, LETTER])
    assert (len(sent), moved.by()) == (2, 2)

    def away(records, wait_s):
        raise Unavailable(Reason.TAPE_UNAVAILABLE, "away")

    monkeypatch.setattr(topic._delivery, "send", away)
    with pytest.raises(Unavailable):
        topic.publish([LETTER])
    assert moved.by() == 2
    topic.close()
