import asyncio
import threading

import pytest

from k2.clock import ManualClock
from k2client.errors import Invalid, Overloaded
from servers.edge.calls import CallThreads, Connections


def test_a_class_has_one_connection():
    connections = Connections("127.0.0.1:1")
    assert connections.client() is connections.client(None)
    assert connections.client("batch") is not connections.client()
    with pytest.raises(Invalid):
        connections.client("urgent")
    connections.close()


def test_calls_beyond_the_bound_are_refused_at_once():
    clock, begun, leave = ManualClock(), threading.Event(), threading.Event()
    threads = CallThreads("t", 1, 2, clock)

    def work():
        begun.set()
        leave.wait(10)
        return "done"

    async def ask():
        first = [asyncio.ensure_future(threads.run(work)) for _ in range(2)]
        await asyncio.to_thread(begun.wait, 10)
        clock.advance(3)
        assert (threads.queued, threads.longest_wait_s) == (1, 3.0)
        with pytest.raises(Overloaded) as refused:
            await threads.run(work)
        leave.set()
        return refused.value, await asyncio.gather(*first), await threads.run(work)

    refusal, answers, after = asyncio.run(ask())
    assert (refusal.reason, refusal.retry_after_s) == ("TOO_MANY_CALLS", 1.0)
    assert [*answers, after] == ["done"] * 3
    assert (threads.queued, threads.longest_wait_s) == (0, 0.0)
    threads.close()


def test_a_call_that_is_cancelled_in_the_queue_waits_no_more():
    begun, leave = threading.Event(), threading.Event()
    threads = CallThreads("t", 1, 2, ManualClock())

    def work():
        begun.set()
        leave.wait(10)

    async def ask():
        first, second = (asyncio.ensure_future(threads.run(work)) for _ in range(2))
        await asyncio.to_thread(begun.wait, 10)
        second.cancel()
        await asyncio.wait([second])
        assert threads.queued == 0
        leave.set()
        await first

    asyncio.run(ask())
    threads.close()
