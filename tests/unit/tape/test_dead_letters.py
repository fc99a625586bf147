"""A letter is its bytes and where they came from. Publishing is in the contract."""

from confluent_kafka import Message

from k2 import limits
from k2.market.events import Fault
from k2.tape.dead_letters import DeadLetter, headers_of, letter_of

LETTER = DeadLetter("t", 1, 2, 3, None, Fault.NULL_VALUE, "ü", 4, None)


def test_headers_carry_everything_but_the_value():
    headers = [(name, text.encode()) for name, text in headers_of(LETTER).items()]
    message = Message(topic="letters", value=b"x", headers=headers)
    read = letter_of(message)
    assert read == DeadLetter("t", 1, 2, 3, None, Fault.NULL_VALUE, "ü", 4, b"x")


def test_errors_are_short():
    long = headers_of(DeadLetter("t", 1, 2, 3, 7, Fault.TRAILING, "x" * 10_000, 4, b""))
    assert len(long["error"]) <= limits.KIB
    assert long["schema_id"] == "7"
