"""A subscription obeys its session, with sockets that a test holds in its hand."""

import asyncio

import numpy as np
import pytest

from k2.clock import ManualClock
from k2.errors import Reason, Unavailable
from k2.feed.connection.session import Session, SessionTimes, State
from k2.feed.connection.socket import Closed
from k2.feed.connection.subscription import Subscription


class HandSocket:
    """Delivers what a test puts in; `None` is the end."""

    def __init__(self):
        self.frames = asyncio.Queue()
        self.pinged = asyncio.Event()
        self.answer = asyncio.Event()
        self.closed = False

    async def read(self):
        frames = await self.frames.get()
        if frames is None:
            raise Closed("over")
        return frames

    async def ping(self):
        self.pinged.set()
        await self.answer.wait()

    async def close(self):
        self.closed = True


class World:
    """A subscription, its clock and the sockets it opened."""

    def __init__(self):
        self.clock = ManualClock()
        self.sockets = []
        self.taken = []
        self.refuse = False
        self.announce = False
        self.fail = None
        self.subscription = Subscription(
            address="ws://x",
            session=Session(np.random.default_rng(1), SessionTimes(stale_s=30)),
            clock=self.clock,
            open_socket=self.open,
            take=self.take,
        )

    async def open(self, address):
        assert address == "ws://x"
        if self.refuse:
            raise Unavailable(Reason.VENUE_UNAVAILABLE, "no")
        self.sockets.append(HandSocket())
        return self.sockets[-1]

    async def take(self, frames):
        if self.fail:
            raise self.fail
        self.taken += frames
        return self.announce

    @property
    def state(self):
        return self.subscription.session.state

    async def pass_time(self, seconds, blocked=False):
        self.clock.advance(seconds)
        self.subscription.tick(blocked=blocked)
        await settled()


async def settled():
    """Let every task run until it waits for something."""
    for _ in range(20):
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(done.set)
        await done.wait()


@pytest.fixture
def run():
    def runner(script):
        async def whole():
            world = World()
            world.subscription.start()
            await settled()
            await script(world)
            await world.subscription.stop()
            assert world.state is State.STOPPED
            assert all(socket.closed for socket in world.sockets)

        asyncio.run(whole())

    return runner


def test_it_connects_and_takes_frames(run):
    async def script(world):
        assert world.subscription.connected
        world.sockets[0].frames.put_nowait([b"1", b"2"])
        await settled()
        assert world.taken == [b"1", b"2"]

    run(script)


def test_a_lost_connection_is_replaced(run):
    async def script(world):
        world.sockets[0].frames.put_nowait(None)
        await settled()
        assert not world.subscription.connected
        assert world.sockets[0].closed
        await world.pass_time(60)
        assert world.subscription.connected
        assert len(world.sockets) == 2

    run(script)


def test_a_refusal_is_a_loss(run):
    async def script(world):
        world.refuse = True
        world.sockets[0].frames.put_nowait(None)
        await settled()
        await world.pass_time(60)
        assert world.state is State.WAITING
        world.refuse = False
        await world.pass_time(60)
        assert world.subscription.connected

    run(script)


def test_silence_is_asked_about(run):
    async def script(world):
        await world.pass_time(15)
        assert world.sockets[0].pinged.is_set()
        world.sockets[0].answer.set()
        await settled()
        await world.pass_time(14)
        assert world.subscription.connected
        assert len(world.sockets) == 1

    run(script)


def test_silence_that_stays_ends_the_connection(run):
    async def script(world):
        await world.pass_time(15)
        await world.pass_time(15)
        assert world.sockets[0].closed
        assert world.state is State.WAITING

    run(script)


def test_silence_of_our_own_making_is_not_the_venues(run):
    async def script(world):
        for _ in range(10):
            await world.pass_time(20, blocked=True)
        assert world.subscription.connected
        assert not world.sockets[0].pinged.is_set()

    run(script)


def test_an_announced_shutdown_opens_a_second_connection(run):
    async def script(world):
        world.announce = True
        world.sockets[0].frames.put_nowait([b"bye"])
        await settled()
        await world.pass_time(0)
        assert world.state is State.RENEWING
        assert len(world.sockets) == 2
        world.announce = False
        world.sockets[1].frames.put_nowait([b"1"])
        await settled()
        await world.pass_time(11)
        assert world.state is State.LIVE
        assert [socket.closed for socket in world.sockets] == [True, False]

    run(script)


def test_a_failure_of_the_taker_is_kept(run):
    async def script(world):
        world.fail = Unavailable(Reason.TAPE_UNAVAILABLE, "gone for good")
        world.sockets[0].frames.put_nowait([b"1"])
        await settled()
        assert world.subscription.failure is world.fail
        assert world.sockets[0].closed

    run(script)


def test_a_pause_closes_the_socket_and_a_resume_opens_another(run):
    async def script(world):
        world.subscription.pause()
        world.sockets[0].frames.put_nowait([b"late"])
        await settled()
        assert world.sockets[0].closed
        assert not world.subscription.connected
        world.subscription.pause()
        await world.pass_time(1000)
        assert len(world.sockets) == 1
        world.subscription.resume()
        await settled()
        assert world.subscription.connected
        assert world.taken == []
        assert world.subscription.session.reconnects == 0

    run(script)


def test_before_the_start_a_pause_does_nothing_and_a_resume_starts():
    async def script():
        world = World()
        world.subscription.pause()
        assert world.state is State.IDLE
        world.subscription.resume()
        await settled()
        assert world.subscription.connected
        await world.subscription.stop()
        world.subscription.pause()
        assert world.state is State.STOPPED

    asyncio.run(script())


def test_a_pause_while_it_connects_leaves_no_socket_open():
    async def script():
        world = World()
        world.subscription.start()
        world.subscription.pause()
        await settled()
        assert world.state is State.PAUSED
        assert all(socket.closed for socket in world.sockets)
        world.subscription.resume()
        world.subscription.pause()
        world.subscription.resume()
        await settled()
        assert world.subscription.connected
        assert sum(not socket.closed for socket in world.sockets) == 1
        await world.subscription.stop()

    asyncio.run(script())
