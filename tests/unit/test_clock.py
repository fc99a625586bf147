from k2.clock import ManualClock, SystemClock


def test_the_manual_clock_moves_only_when_told():
    clock = ManualClock(now_us=1_000_000)
    assert clock.now_us() == clock.now_us() == 1_000_000
    clock.sleep(0.5)
    clock.advance(1)
    assert clock.now_us() == 2_500_000
    assert clock.monotonic_s() == 2.5


def test_the_system_clock_goes_forward():
    clock = SystemClock()
    before, wall = clock.monotonic_s(), clock.now_us()
    clock.sleep(0.001)
    assert clock.monotonic_s() > before
    assert clock.now_us() > wall > 1_600_000_000_000_000
