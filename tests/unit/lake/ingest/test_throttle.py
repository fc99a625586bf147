from k2 import limits
from k2.clock import ManualClock
from k2.lake.ingest.throttle import Throttle


def test_without_a_bound_a_batch_may_always_be_taken():
    throttle = Throttle(None, ManualClock())
    throttle.take(10**9)
    assert throttle.room() == limits.CONSUME_BATCH_RECORDS
    assert not throttle.bounds


def test_what_is_taken_comes_back_at_the_rate():
    clock = ManualClock()
    throttle = Throttle(100, clock)
    assert throttle.bounds
    assert throttle.room() == 100 * limits.THROTTLE_BURST_S
    throttle.take(throttle.room())
    assert throttle.room() == 0
    clock.advance(0.1)
    assert throttle.room() == 10
    clock.advance(1000)
    assert throttle.room() == 100 * limits.THROTTLE_BURST_S, "what was not taken is not saved"


def test_what_was_taken_beyond_the_room_is_owed():
    clock = ManualClock()
    throttle = Throttle(10, clock)
    throttle.take(15)
    clock.advance(1)
    assert throttle.room() == 0
    clock.advance(0.1)
    assert throttle.room() == 1


def test_a_slow_rate_still_takes_one():
    clock = ManualClock()
    throttle = Throttle(0.5, clock)
    assert throttle.room() == 1
    throttle.take(1)
    clock.advance(2)
    assert throttle.room() == 1
