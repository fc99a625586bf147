import asyncio
import threading

import pytest

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
    threads, begun, leave = CallThreads("t", 1, 2), threading.Event(), threading.Event()

    def work():
        begun.set()
        leave.wait(10)
        return "done"

    async def ask():
        first = [asyncio.ensure_future(threads.run(work)) for _ in range(2)]
        await asyncio.to_thread(begun.wait, 10)
        with pytest.raises(Overloaded) as refused:
            await threads.run(work)
        leave.set()
        return refused.value, await asyncio.gather(*first), await threads.run(work)

    refusal, answers, after = asyncio.run(ask())
    assert (refusal.reason, refusal.retry_after_s) == ("TOO_MANY_CALLS", 1.0)
    assert [*answers, after] == ["done"] * 3
    threads.close()
