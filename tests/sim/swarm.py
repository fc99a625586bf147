"""What a seed's world is like: its size, and which faults there are, how often.

Drawn anew for every seed, so that seeds differ in kind and not only in order (swarm testing): a
fault that is always on hides what only happens without it, such as two long-lived writers that
never crash and still share partitions. Each fault is off in about half of the worlds.
"""

import math
from dataclasses import dataclass

from tests.sim.maintainer import GRACE_MIN_S

# At each occasion, between these chances; the occasion is named by who asks (`World.happens`).
CHANCES = {
    "crash": (0.0003, 0.01),  # a process dies before or after touching anything outside itself
    "freeze": (0.0003, 0.005),  # it stands still for a while: then it is a zombie
    "store.error": (0.002, 0.3),
    "store.stall": (0.002, 0.05),
    "catalog.refused": (0.02, 0.4),  # a conflict is reported, and nothing landed
    "catalog.landed_refused": (0.02, 0.3),  # a conflict is reported, and it landed
    "catalog.reply_lost": (0.02, 0.3),
    "catalog.busy": (0.02, 0.4),
    "catalog.late": (0.02, 0.2),  # no reply, and it lands, or not, some time later
    "tape.silent": (0.02, 0.4),  # a fetch that returns nothing
    "tape.deaf": (0.3, 1.0),  # a writer does not hear that its partitions were given to another
    "tape.short": (0.05, 0.8),  # a fetch that returns few records
    "tape.ack_lost": (0.005, 0.1),  # the producer sends it again
    "tape.error": (0.01, 0.2),  # a request that fails
    "poison": (0.002, 0.1),  # beside a record, one that is none
    "garbage.schema": (0.002, 0.03),  # beside a record, some of schemas that no registry knows
    "times.absurd": (0.002, 0.05),  # beside a record, a trade of a time that cannot be
    "misplaced": (0.002, 0.05),  # a record on a partition that is not its symbol's
    "net.drop": (0.002, 0.1),
    "net.double": (0.002, 0.2),
    "net.late": (0.002, 0.2),
    "net.garbage": (0.002, 0.05),
    "net.cut": (0.002, 0.03),
    "rest.away": (0.02, 0.5),  # the venue's past does not answer
    "rest.busy": (0.02, 0.3),
    "rest.slow": (0.02, 0.3),
    "rest.behind": (0.1, 1.0),  # it has the newest trades later than the stream
    "registry.away": (0.1, 0.5),
    "tail.restart": (0.01, 0.1),
}
# Things that somebody does to the world every so many seconds.
EVERY_S = {
    "rebalance": (1.0, 30.0),
    "tape.away": (10.0, 60.0),
    "catalog.away": (10.0, 60.0),
    "registry.outage": (10.0, 60.0),
    "disk.full": (10.0, 60.0),
    "clock.jump": (5.0, 30.0),
    "retention": (3.0, 20.0),
    "power.loss": (15.0, 60.0),
    "maintenance": (3.0, 30.0),  # a person asks for some, in a process of its own
    "tag": (5.0, 30.0),  # a person names a snapshot
    "backfill": (2.0, 20.0),  # a person asks for ids again
    "letters": (2.0, 20.0),  # dead letters of long ago are published again
    "venue.reset": (5.0, 40.0),  # the venue begins the ids of a symbol again
    "writer.slow": (5.0, 30.0),  # writers read few records at a time
    "pressure": (5.0, 30.0),  # a person injects one
    "override": (8.0, 40.0),  # an operator sets the level
    "schema.newer": (5.0, 40.0),  # feeds write by a new schema, and the registry may go away
}
DISASTERS = ("truncated", "recreated", "overtaken")


@dataclass(frozen=True)
class Swarm:
    """One world.

    Attributes:
        seconds: of the unsafe part of its history.
        symbols, feeds, writers, servers, maintainers, retainers, ops_writers: how many.
        rate: trades a second, of all symbols.
        commit_interval_s, tail_bytes_max, tail_recent_s, maintain_interval_s, sweep_interval_s,
            sweep_grace_s, retain_interval_s, retention_hours, bytes_max: settings of K2.
        writer_rate: records a second that a writer takes at most, as a multiple of `rate`.
        latency_s: of an access to anything outside a process, about.
        chances, every_s: faults that are on.
        disaster: what the tape loses for good, if anything.
    """

    seconds: float
    symbols: int
    feeds: int
    writers: int
    servers: int
    maintainers: int
    retainers: int
    ops_writers: int
    rate: float
    commit_interval_s: float
    tail_bytes_max: int
    tail_recent_s: float
    maintain_interval_s: float
    sweep_interval_s: float
    sweep_grace_s: float
    retain_interval_s: float
    retention_hours: int | None
    bytes_max: int
    writer_rate: float | None
    latency_s: float
    chances: dict
    every_s: dict
    disaster: str | None

    def __str__(self):
        chances = ", ".join(f"{name} {chance:.3g}" for name, chance in self.chances.items())
        every = ", ".join(f"{name} every {seconds:.0f} s" for name, seconds in self.every_s.items())
        return (
            f"{self.seconds:.0f} s, {self.rate:.0f} trades/s of {self.symbols} symbols;"
            f" {self.feeds} feeds, {self.writers} writers, {self.servers} query servers;"
            f" commit every {self.commit_interval_s:.1f} s, tail of {self.tail_bytes_max} bytes"
            f" and {self.tail_recent_s:.0f} s, latency {self.latency_s * 1000:.1f} ms;"
            f" {self.maintainers} maintainers merge every {self.maintain_interval_s:.1f} s, sweep"
            f" every {self.sweep_interval_s:.1f} s, grace {self.sweep_grace_s:.0f} s;"
            f" {self.retainers} retainers keep {self.bytes_max} bytes and {self.retention_hours}"
            f" hours, every {self.retain_interval_s:.1f} s;"
            f" {self.ops_writers} ops writers; writers take {self.writer_rate} times the rate;"
            f" disaster: {self.disaster}\n  {chances}\n  {every}"
        )


def drawn(chance):
    """A swarm of a seed's generator."""

    def between(low, high):
        return math.exp(chance.uniform(math.log(low), math.log(high)))

    def some(of):
        share = chance.choice([0.1, 0.5, 0.5, 0.8])
        return {name: between(*span) for name, span in of.items() if chance.random() < share}

    chances, every_s = some(CHANCES), some(EVERY_S)
    if "venue.reset" in every_s:
        every_s.pop("schema.newer", None)  # the oracle could not tell why a record is dead
    return Swarm(
        seconds=between(15, 60),
        symbols=int(chance.integers(1, 6)),
        feeds=int(chance.integers(1, 3)),
        writers=int(chance.integers(1, 4)),
        servers=int(chance.integers(1, 3)),
        rate=between(3, 40),
        commit_interval_s=between(0.5, 6),
        tail_bytes_max=int(chance.choice([12_000, 40_000, 1 << 30, 1 << 30])),
        tail_recent_s=float(chance.choice([0, 5, 60])),
        maintainers=int(chance.choice([0, 0, 1, 2])),
        ops_writers=int(chance.choice([0, 0, 1, 2])),
        maintain_interval_s=between(0.5, 8),
        sweep_interval_s=between(2, 10),
        sweep_grace_s=between(GRACE_MIN_S, 20),
        retainers=int(chance.choice([0, 0, 1, 2])),
        retain_interval_s=between(0.5, 8),
        retention_hours=0 if chance.random() < 0.3 else None,  # then a day is kept until it ends
        bytes_max=int(between(20_000, 400_000)),
        writer_rate=between(0.6, 3) if chance.random() < 0.4 else None,
        latency_s=between(0.0005, 0.02),
        chances=chances,
        every_s=every_s,
        disaster=str(chance.choice(DISASTERS)) if chance.random() < 0.08 else None,
    )
