"""Decides when to connect, ping, replace a connection and give one up. Sans-IO.

A session holds one subscription at a venue without end, through as many connections as that takes.
Its caller reports what happened and when, and it answers with commands; it knows neither sockets
nor clocks, so every path through it can be tested at once.

    WAITING ──due──▶ CONNECTING ──opened──▶ LIVE ──renewal due──▶ RENEWING ──overlap over──▶ LIVE
       ▲                 │                   │                       │
       └──────lost───────┴───────lost────────┘     one of two lost: the other goes on

* **Pause**: the caller may shut a session and resume it later. What is closed so is neither lost
  nor counted as a reconnect; the backoff of earlier failures is kept.
* **Renewal** is make-before-break: a second connection opens, both are read for a while (what both
  deliver is a duplicate, which the sequence check knows), then the old one closes. It is due before
  the venue's planned cut, when the venue announces a shutdown, and when the venue answers but sends
  no frames. A new connection that stays silent while the old one speaks is dropped instead.
* **Signs of life**: after half of `stale_s` without any, the session asks for one (a ping); after
  `stale_s` the connection is given up. A venue that answers and sends nothing is renewed, not
  given up, and each time that brings no frames, the patience doubles, up to `quiet_max_s`.
* **Backoff** grows exponentially, with jitter, and never ends. Only a connection that stayed open
  for as long as the longest backoff ends the growth, so a venue that accepts and cuts at once is
  not hammered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from k2 import limits

_DOUBLINGS_MAX = 16  # beyond, every backoff is at its maximum anyway


class State(Enum):
    """The state of a session as a whole."""

    IDLE = "IDLE"  # not started
    WAITING = "WAITING"  # for the backoff to pass
    CONNECTING = "CONNECTING"
    LIVE = "LIVE"
    RENEWING = "RENEWING"  # live, and replacing the connection
    PAUSED = "PAUSED"  # shut on purpose, until it is resumed
    STOPPED = "STOPPED"


class Action(Enum):
    """The kinds of command."""

    CONNECT = "CONNECT"  # open a connection and subscribe; answer `opened` or `lost`
    PING = "PING"  # ask the peer for a sign of life; answer `alive` when it comes
    CLOSE = "CLOSE"  # close a connection, open or not yet; no answer is expected


class SessionCommand(NamedTuple):
    """One thing to do.

    Attributes:
        action: what.
        link: the connection it is about; a number never used before for CONNECT.
        reason: why, for logs.
    """

    action: Action
    link: int
    reason: str


@dataclass(frozen=True)
class SessionTimes:
    """The times of a session, seconds; each is one of `limits`, or a setting."""

    stale_s: float = limits.FEED_STALE_S
    quiet_max_s: float = limits.FEED_QUIET_MAX_S
    backoff_min_s: float = limits.FEED_BACKOFF_MIN_S
    backoff_max_s: float = limits.FEED_BACKOFF_MAX_S
    renew_s: float = limits.FEED_RENEW_S
    overlap_s: float = limits.FEED_OVERLAP_S
    connect_s: float = limits.FEED_CONNECT_S


@dataclass
class _Link:
    """One connection.

    Attributes:
        number: its name.
        alive_s: when it was asked for, or last heard of.
        opened_s: since when it is open; None: not yet.
        frame_s: when the last frame came; before any, when it was opened.
        framed: whether a frame came.
        pinged: whether a sign of life was asked for since the last one.
        renew_s: when it is to be replaced, whatever comes.
    """

    number: int
    alive_s: float
    opened_s: float | None = None
    frame_s: float = math.inf
    framed: bool = False
    pinged: bool = False
    renew_s: float = math.inf


class Session:
    """Decides for one subscription.

    All times are seconds of one monotonic clock.

    Args:
        chance: seeded; gives the jitter.
        tuning: the times.

    Attributes:
        connects: connections asked for.
        reconnects: of these, how many followed one that was lost or refused.
        renewals: of these, how many were to replace one that was still open.
    """

    def __init__(self, chance: np.random.Generator, tuning: SessionTimes | None = None) -> None:
        self.connects = 0
        self.reconnects = 0
        self.renewals = 0
        self._chance = chance
        self._tuning = tuning or SessionTimes()
        self._phase: State | None = State.IDLE  # None: it connects or is connected
        self._current: _Link | None = None
        self._next: _Link | None = None  # to replace the current one; only while that is open
        self._retry_s = 0.0  # not before this: a connection where there is none, or a renewal
        self._failures = 0
        self._quiet_s = self._tuning.stale_s

    # --- what is known ----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state of the session as a whole."""
        if self._phase is not None:
            return self._phase
        if self._current is None:
            return State.WAITING
        if self._current.opened_s is None:
            return State.CONNECTING
        return State.LIVE if self._next is None else State.RENEWING

    @property
    def due_s(self) -> float | None:
        """When `tick` has something to do; None before the start, after the end and paused."""
        if self._phase is not None:
            return None
        if self._current is None:
            return self._retry_s
        times = [self._life_due(link) for link in self._links()]
        times.append(self._renewal_due() if self._next is None else self._overlap_over())
        return min(times)

    # --- what happens -----------------------------------------------------------------------------

    def start(self, now_s: float) -> list[SessionCommand]:
        """Begin; once."""
        assert self._phase is State.IDLE, "a session starts once"
        self._phase = None
        self._current, command = self._connect(now_s, "start")
        return [command]

    def opened(self, link: int, now_s: float) -> None:
        """Note that a requested connection is open and subscribed."""
        found = self._find(link)
        if found is not None and found.opened_s is None:
            found.opened_s = found.alive_s = found.frame_s = now_s
            found.renew_s = now_s + self._tuning.renew_s

    def received(self, link: int, now_s: float) -> None:
        """Note that frames came."""
        found = self._find(link)
        if found is not None and found.opened_s is not None:
            found.frame_s = found.alive_s = now_s
            found.framed, found.pinged = True, False
            self._quiet_s = self._tuning.stale_s

    def alive(self, link: int, now_s: float) -> None:
        """Note a sign of life that is not a frame."""
        found = self._find(link)
        if found is not None and found.opened_s is not None:
            found.alive_s, found.pinged = now_s, False

    def held_up(self, now_s: float) -> None:
        """Note that the feed is not reading: silence proves nothing until it reads again."""
        for link in self._links():
            self.alive(link.number, now_s)
        if self._next is not None and self._next.opened_s is not None:
            self._next.opened_s = now_s

    def shutdown_announced(self, link: int, now_s: float) -> None:
        """Note that the venue will close this connection soon."""
        if self._current is not None and self._current.number == link:
            self._current.renew_s = min(self._current.renew_s, now_s)

    def lost(self, link: int, now_s: float) -> None:
        """Note that a connection ended, or could not be opened."""
        found = self._find(link)
        if found is None:
            return
        if found is self._next:
            self._next = None
        else:
            self._current, self._next = self._next, None
        opened_s = math.inf if found.opened_s is None else found.opened_s
        self._back_off(now_s, healthy=now_s - opened_s >= self._tuning.backoff_max_s)

    def tick(self, now_s: float) -> list[SessionCommand]:
        """Do what is due."""
        if self._phase is not None:
            return []
        commands = self._give_up(now_s)
        if self._current is None:
            if now_s >= self._retry_s:
                self.reconnects += 1
                self._current, command = self._connect(now_s, "reconnect")
                commands.append(command)
            return commands
        if self._next is not None and now_s >= self._overlap_over():
            commands.append(self._end_overlap(now_s))
        if self._next is None and now_s >= self._renewal_due():
            commands.append(self._renew(now_s))
        return commands

    def pause(self) -> list[SessionCommand]:
        """Close what is open, and ask for nothing until `resume`; that is no failure."""
        assert self._phase is None, "a session is paused between its start and its end"
        return self._end(State.PAUSED, "paused")

    def resume(self, now_s: float) -> list[SessionCommand]:
        """Connect after a pause, unless an earlier failure demands to wait longer."""
        assert self._phase is State.PAUSED, "a session is resumed after a pause"
        self._phase = None
        if now_s < self._retry_s:
            return []
        self._current, command = self._connect(now_s, "resumed")
        return [command]

    def stop(self) -> list[SessionCommand]:
        """End: close what is open. Nothing is asked for afterwards."""
        return self._end(State.STOPPED, "stop")

    def _end(self, phase: State, reason: str) -> list[SessionCommand]:
        commands = [SessionCommand(Action.CLOSE, link.number, reason) for link in self._links()]
        self._phase, self._current, self._next = phase, None, None
        return commands

    # --- life -------------------------------------------------------------------------------------

    def _links(self) -> list[_Link]:
        return [link for link in (self._current, self._next) if link is not None]

    def _find(self, number: int) -> _Link | None:
        return next((link for link in self._links() if link.number == number), None)

    def _life_due(self, link: _Link) -> float:
        """When to give a connection up, or before that to ask it for a sign of life."""
        if link.opened_s is None:
            return link.alive_s + self._tuning.connect_s
        return link.alive_s + self._tuning.stale_s * (1.0 if link.pinged else 0.5)

    def _give_up(self, now_s: float) -> list[SessionCommand]:
        """Ping what is silent, close what stayed silent."""
        commands = []
        for link in self._links():
            if now_s < self._life_due(link):
                continue
            if link.opened_s is not None and not link.pinged:
                link.pinged = True
                commands.append(SessionCommand(Action.PING, link.number, "silent"))
            else:
                commands.append(SessionCommand(Action.CLOSE, link.number, "no sign of life"))
                self.lost(link.number, now_s)
        return commands

    def _back_off(self, now_s: float, *, healthy: bool) -> None:
        self._failures = 1 if healthy else min(self._failures + 1, _DOUBLINGS_MAX)
        longest = min(
            self._tuning.backoff_max_s, self._tuning.backoff_min_s * 2.0 ** (self._failures - 1)
        )
        self._retry_s = now_s + self._chance.uniform(longest / 2, longest)

    def _connect(self, now_s: float, reason: str) -> tuple[_Link, SessionCommand]:
        self.connects += 1
        return _Link(self.connects, now_s), SessionCommand(Action.CONNECT, self.connects, reason)

    # --- renewal ----------------------------------------------------------------------------------

    def _renewal_due(self) -> float:
        """When to replace the current connection; never while it is not open."""
        current = self._current
        if current is None or current.opened_s is None:
            return math.inf
        return max(self._retry_s, min(current.renew_s, current.frame_s + self._quiet_s))

    def _overlap_over(self) -> float:
        """When the new connection has been open beside the old one for long enough."""
        if self._next is None or self._next.opened_s is None:
            return math.inf
        return self._next.opened_s + self._tuning.overlap_s

    def _renew(self, now_s: float) -> SessionCommand:
        assert self._current is not None, "only an open connection is renewed"
        self.renewals += 1
        planned = now_s >= self._current.renew_s
        if not planned:
            self._quiet_s = min(2 * self._quiet_s, self._tuning.quiet_max_s)
        self._next, command = self._connect(now_s, "renewal" if planned else "no frames")
        return command

    def _end_overlap(self, now_s: float) -> SessionCommand:
        """Keep the new connection, unless it is silent and the old one is not."""
        old, new = self._current, self._next
        assert old is not None, "an overlap has two sides"
        assert new is not None, "an overlap has two sides"
        assert new.opened_s is not None, "an overlap begins when the new connection is open"
        if not new.framed and old.frame_s > new.opened_s:
            self._next = None
            self._back_off(now_s, healthy=False)
            return SessionCommand(Action.CLOSE, new.number, "silent beside the old connection")
        self._current, self._next = new, None
        return SessionCommand(Action.CLOSE, old.number, "replaced")
