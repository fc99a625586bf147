"""Malformed frames reach the dead letters one by one, and a full box says so."""

from k2 import limits
from k2.errors import Data, Reason
from k2.feed.publish.malformed_frames import DeadLetterPublisher
from k2.feed.venues.source import Malformed
from k2.market.events import Fault
from tests.fakes.tape import FakeTape
from tests.support.eventually import eventually

BROKEN = Malformed(Fault.BAD_VALUE, "no price")


def test_a_letter_says_which_feed_and_which_frame():
    tape = FakeTape()
    box = DeadLetterPublisher(tape.office(), "feed:BINANCE:r1")
    box.start()
    box.put(1, BROKEN, b"{", 77)
    box.put(2, BROKEN, b"[", 78)
    assert box.close(5) == 0
    first, second = tape.letters
    assert (first.topic, first.offset, first.value, first.at_us) == (
        "feed:BINANCE:r1", 1, b"{", 77,
    )  # fmt: skip
    assert (first.fault, first.error, first.schema_id) == (Fault.BAD_VALUE, "no price", None)
    assert (second.offset, second.value) == (2, b"[")
    assert box.published == 2


def test_it_is_full_by_count_or_by_bytes():
    box = DeadLetterPublisher(FakeTape().office(), "f")
    for number in range(limits.FEED_LETTERS_MAX):
        assert not box.full
        box.put(number, BROKEN, b"", 0)
    assert box.full
    large = DeadLetterPublisher(FakeTape().office(), "f")
    large.put(1, BROKEN, bytes(limits.FEED_LETTERS_BYTES_MAX), 0)
    assert large.full
    large.start()
    eventually(lambda: not large.full)
    large.close(5)


def test_letters_wait_for_a_tape_that_is_away():
    tape = FakeTape()
    tape.away = True
    box = DeadLetterPublisher(tape.office(), "f")
    box.start()
    box.put(1, BROKEN, b"x", 0)
    assert box.close(0.05) == 1
    tape.away = False
    eventually(lambda: box.published == 1)


def test_a_refusal_for_good_is_told():
    class Refusing:
        def publish(self, letters, wait_s):
            raise Data(Reason.TOPIC_RECREATED, "no")

    box = DeadLetterPublisher(Refusing(), "f")
    box.start()
    box.put(1, BROKEN, b"x", 0)
    assert eventually(lambda: box.failure).reason is Reason.TOPIC_RECREATED
    assert box.close(5) == 1
