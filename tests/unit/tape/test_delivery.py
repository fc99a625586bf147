"""Sending to a broker that is not there ends in time. Delivery itself is in the contract."""

import pytest

from k2.errors import Invalid, Unavailable
from k2.tape.delivery import Delivery, Record


@pytest.fixture
def delivery():
    made = Delivery("127.0.0.1:1", "t", 1000)
    yield made
    made.close()


def test_nothing_is_sent_at_once(delivery):
    delivery.send([], 0)


def test_a_broker_that_is_away_ends_the_wait(delivery):
    with pytest.raises(Unavailable) as caught:
        delivery.send([Record("k", b"v")], 0.05)
    assert caught.value.retry_after_s


def test_a_record_that_is_too_large_is_refused(delivery):
    with pytest.raises(Invalid):
        delivery.send([Record("k", bytes(200_000))], 0.05)
