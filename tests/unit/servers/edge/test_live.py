import asyncio
import json
import threading

import pytest

from k2.clock import SystemClock
from k2client import records
from k2client.errors import NotFound, Overloaded, Unavailable
from k2client.times import from_us
from servers.edge.calls import CallThreads, Connections
from servers.edge.live import LiveTopics, NewestTrades
from tests.fakes.k2_server import trade_rows
from tests.fakes.k2_services import FIRST_US

ORIGIN = records.Provenance(
    *(None, None, records.OffsetVector(0, ()), records.OffsetVector(0, ()), None),
    *("NORMAL", "SIMULATED", "COMPLETE", (), 0, (), None, None, None, None, "k2t1.x"),
    *(records.TimeRange(None, None), None, None),
)


class Scripted:
    """Answers in turn, then with nothing."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0
        self.recent = []

    def ask(self, _k2):
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        self.recent = self.recent + answer
        return answer, ORIGIN


@pytest.fixture
def live():
    made = LiveTopics(
        Connections("127.0.0.1:1"), CallThreads("live", 1, 9, SystemClock()), poll_s=0.01
    )
    yield made
    made.threads.close()


def rows_of(event):
    return json.loads(event.raw_data)["data"]


async def taken(watcher, count):
    events = watcher.events()
    return [await asyncio.wait_for(anext(events), 10) for _ in range(count)]


def test_all_watchers_of_a_topic_share_its_asks(live):
    newest = Scripted(["1"], ["2", "3"], [], Unavailable("TAIL_BEHIND", "soon"), ["4"])

    async def watch():
        first = await live.watch("k", "trades", lambda: newest)
        second = await live.watch("k", "trades", lambda: pytest.fail("it is watched"))
        both = await asyncio.gather(taken(first, 4), taken(second, 4))
        first.leave()
        second.leave()
        return both

    for events in asyncio.run(watch()):
        assert [event.event for event in events] == ["trades", "trades", "problem", "trades"]
        assert [rows_of(events[at]) for at in (0, 1, 3)] == [[1], [2, 3], [4]]
        assert json.loads(events[2].raw_data)["reason"] == "TAIL_BEHIND"
    assert newest.asked <= 6


def test_one_that_comes_later_begins_with_the_newest_rows(live):
    async def watch():
        first = await live.watch("k", "trades", lambda: Scripted(["1"], ["2"]))
        await taken(first, 2)
        later = await live.watch("k", "trades", Scripted)
        (event,) = await taken(later, 1)
        first.leave()
        later.leave()
        return event

    event = asyncio.run(watch())
    assert rows_of(event) == [1, 2]
    assert json.loads(event.raw_data)["source"] == "SIMULATED"


def test_what_cannot_be_asked_is_said_to_the_first_watcher(live):
    async def watch():
        with pytest.raises(NotFound):
            await live.watch("k", "trades", lambda: Scripted(NotFound("UNKNOWN_SYMBOL", "no")))
        again = await live.watch("k", "trades", lambda: Scripted(["1"]))
        again.leave()

    asyncio.run(watch())


def test_a_topic_that_is_not_watched_is_not_asked_about(live):
    newest = Scripted(["1"])

    async def watch():
        (await live.watch("k", "trades", lambda: newest)).leave()
        asked = newest.asked
        await asyncio.wait_for(asyncio.to_thread(threading.Event().wait, 0.1), 10)
        return asked

    assert asyncio.run(watch()) == newest.asked


def test_a_watcher_that_does_not_keep_up_is_let_go(live):
    async def watch():
        slow = await live.watch("k", "trades", lambda: Scripted(*(["1"] for _ in range(99))))
        while slow._queue.qsize() != 1 or slow._queue._queue[0] is not None:
            await asyncio.to_thread(threading.Event().wait, 0.01)
        return [event async for event in slow.events()]

    assert asyncio.run(watch()) == []


def test_streams_are_bounded_and_end_with_the_server(live):
    async def watch():
        watchers = [await live.watch("k", "trades", lambda: Scripted(["1"])) for _ in range(64)]
        with pytest.raises(Overloaded):
            await live.watch("k", "trades", Scripted)
        await asyncio.to_thread(live.close)
        ended = [[event async for event in watcher.events()] for watcher in watchers]
        for watcher in watchers:
            watcher.leave()
        with pytest.raises(Overloaded):
            await live.watch("k", "trades", Scripted)
        return ended

    assert asyncio.run(watch()) == [[]] * 64


class Rows:
    """A K2 that has these trades."""

    def __init__(self, *numbers):
        self.numbers = set(numbers)
        self.starts = []
        self.same_time = False

    def trades(self, _symbol, start, limit, **_):
        self.starts.append(start)
        all_rows = trade_rows(100).to_pylist()
        for row in all_rows if self.same_time else ():
            row["event_time"] = from_us(FIRST_US)
        rows = [
            row
            for row in all_rows
            if row["trade_id"] in self.numbers and (start is None or row["event_time"] >= start)
        ]
        self.table = trade_rows(1).from_pylist(rows[::-1][:limit], trade_rows(1).schema)
        return self

    def to_arrow(self):
        return self.table

    provenance = ORIGIN


def ids(newest, k2):
    return [int(json.loads(row)["trade_id"]) for row in newest.ask(k2)[0]]


def test_each_new_trade_is_sent_once_also_one_that_comes_late():
    k2, newest = Rows(*range(1, 60)), NewestTrades("BTCUSDT", None)
    assert ids(newest, k2) == list(range(10, 60))
    assert ids(newest, k2) == []
    k2.numbers |= {61, 63}
    assert ids(newest, k2) == [61, 63]
    k2.numbers |= {62}
    assert ids(newest, k2) == [62]
    assert k2.starts[0] is None
    assert k2.starts[1] == from_us(FIRST_US + 9 * 1000 + 8)


def test_nothing_older_than_the_first_rows_is_sent_also_of_the_same_time():
    k2, newest = Rows(*range(1, 60)), NewestTrades("BTCUSDT", None)
    k2.same_time = True
    assert ids(newest, k2) == list(range(10, 60))
    k2.numbers |= {60}
    assert ids(newest, k2) == []
    assert k2.starts[1] == from_us(FIRST_US + 1)


def test_a_symbol_without_trades_begins_with_its_first():
    k2, newest = Rows(), NewestTrades("BTCUSDT", None)
    assert ids(newest, k2) == ids(newest, k2) == []
    k2.numbers |= {5}
    assert ids(newest, k2) == [5]


def test_an_unknown_symbol_has_its_status(http):
    refused = http.get("/v1/trades/stream?symbol=NOPE")
    assert (refused.status_code, refused.json()["reason"]) == (404, "UNKNOWN_SYMBOL")
    assert http.get("/v1/trades/stream").status_code == 400


@pytest.mark.usefixtures("market")
def test_events_come_over_http_until_the_server_ends(http, parts):
    threading.Timer(1.0, parts.live.close).start()
    with http.stream("GET", "/v1/trades/stream?symbol=BTCUSDT") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = "".join(answer.iter_text()).splitlines()
    assert lines[0] == "event: trades"
    rows = json.loads(lines[1].removeprefix("data: "))["data"]
    assert [int(row["trade_id"]) for row in rows] == list(range(1, 24))
