"""The view of the ledger under several callers; the rest is in test_feed."""

from concurrent.futures import ThreadPoolExecutor

from k2.clock import ManualClock
from k2.tape import topics
from servers.services.gap_queries import BackfillRequests, GapView
from tests.fakes.tape import FakeTape
from tests.unit.servers.services.test_feed_service import BTC, COUNTERS, gap


class Beat:
    counters = COUNTERS | {"symbols": {"BTCUSDT": {}}}


def test_every_caller_sees_all_that_was_recorded_before():
    tape = FakeTape()
    view = GapView(tape.gap_log())
    tape.gaps += [gap(at, at) for at in range(0, 200, 2)]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: view.gaps(), range(50)):
            assert len(found) == 100


def test_a_feed_that_has_not_said_how_fast_it_is_can_be_asked_too():
    desk = BackfillRequests(FakeTape().board(topics.BACKFILLS), ManualClock())
    plan = desk.ask([Beat()], "", "BTCUSDT", (1, 1500))
    assert (plan.request.instrument, plan.requests, plan.eta_s) == (BTC, 2, 0.0)
