"""What goes wrong while a stack runs: each fault is done to a real process, socket or file, and
undone after its time.

A fault is a function of (the stack, a generator of chance): it starts the trouble, and returns what
it did and how it is undone, if it has to be. Everything is done to processes and files of the given
stack alone.
"""

from __future__ import annotations

import os
import random  # noqa: TID251 the seed is an argument of the command
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil
from confluent_kafka import Producer

from k2.market.instrument import Tier
from k2.settings import TapeSettings
from tests.chaos.stack import Stack, until

TOPIC = TapeSettings().topic
PARTITIONS = len(Tier) * TapeSettings().partitions_per_tier
_NO_ID = 2**31 - 1  # a schema id that no registry has given
_POISON = (
    b"",  # nothing at all
    b"\x01\x00\x00\x00\x01abc",  # another magic byte
    b"\x00\x00\x00",  # a header cut short
    b"\x00" + _NO_ID.to_bytes(4, "big") + b"abc",  # a schema nobody knows
    b"\x00\x00\x00\x00\x01\x02",  # a record cut short
    b'{"e":"trade"}',  # not Avro
    None,  # a tombstone
)


@dataclass(frozen=True)
class Trouble:
    """A fault that was started.

    Attributes:
        name: which.
        detail: of what, how long, how often.
        lasts_s: until it is undone.
        undo: ends it.
        poison: records put on the tape that are no trades.
    """

    name: str
    detail: str
    lasts_s: float = 0.0
    undo: Callable[[], None] = lambda: None
    poison: int = 0


Fault = Callable[[Stack, random.Random], Trouble]


def kill(name: str) -> Fault:
    """`kill -9` a process."""

    def fault(stack: Stack, chance: random.Random) -> Trouble:
        with suppress(ProcessLookupError):
            stack.kill(name)
        return Trouble("kill", name)

    return fault


def pause(name: str, longest_s: float) -> Fault:
    """Stop a process in the middle of what it does, and let it go on later, unaware."""

    def fault(stack: Stack, chance: random.Random) -> Trouble:
        pid, lasts_s = stack.pid(name), chance.uniform(1.0, longest_s)

        def go_on() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        return Trouble("pause", f"{name} for {lasts_s:.1f} s", lasts_s, go_on)

    return fault


def venue(**faults: float) -> Fault:
    """Let the venue, or the way to it, do wrong for a while."""

    def fault(stack: Stack, chance: random.Random) -> Trouble:
        lasts_s = chance.uniform(1.0, 6.0)
        asked = "&".join(f"{name}={value}" for name, value in faults.items())
        ask_venue(stack, f"/k2/faults?{asked}&seed={chance.randrange(1000)}")
        detail = f"{asked} for {lasts_s:.1f} s"
        return Trouble("venue", detail, lasts_s, lambda: ask_venue(stack, "/k2/faults?clear="))

    return fault


def shut_venue(stack: Stack, chance: random.Random) -> Trouble:
    """Let the venue announce its end and cut all connections."""
    ask_venue(stack, "/k2/shutdown?lead_s=2")
    return Trouble("venue", "announces a shutdown")


def ask_venue(stack: Stack, path: str) -> None:
    """A request to the practice venue; one that is just being restarted is left alone."""
    where = stack.recorded()["venue"]["addresses"]["venue"]
    with suppress(OSError):
        urllib.request.urlopen(f"http://{where}{path}", timeout=5).close()


def poison(stack: Stack, chance: random.Random) -> Trouble:
    """Put records on the tape that are no trades."""
    producer = Producer(
        {
            "bootstrap.servers": str(stack.addresses["broker"]),
            "enable.idempotence": True,
            "log_level": 2,
        }
    )
    values = [chance.choice(_POISON) for _ in range(chance.randint(1, 20))]
    arrived: list[bool] = []
    for value in values:
        producer.produce(
            TOPIC,
            value,
            b"BINANCE:BTCUSDT",
            chance.randrange(PARTITIONS),
            on_delivery=lambda error, _message: arrived.append(error is None),
        )
    unknown = producer.flush(200)  # longer than the broker is ever away
    if unknown or not all(arrived):
        raise AssertionError(f"of {len(values)} poisoned records {sum(arrived)} are known to be on")
    return Trouble("poison", f"{len(values)} records", poison=len(values))


def lock_catalog(stack: Stack, chance: random.Random) -> Trouble:
    """Hold the catalog's database for oneself."""
    lasts_s = chance.uniform(1.0, 8.0)
    path = stack.data_dir / "lake" / "catalog.db"
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")

    def release() -> None:
        connection.execute("ROLLBACK")
        connection.close()

    return Trouble("catalog", f"locked for {lasts_s:.1f} s", lasts_s, release)


def store_away(stack: Stack, chance: random.Random) -> Trouble:
    """Take the warehouse away: what is there cannot be read, and nothing can be written."""
    lasts_s = chance.uniform(0.5, 6.0)
    warehouse = stack.data_dir / "lake" / "warehouse"
    aside = warehouse.with_name("aside")
    warehouse.rename(aside)
    warehouse.touch()  # so that nobody makes another

    def bring_back() -> None:
        warehouse.unlink()
        aside.rename(warehouse)

    return Trouble("store", f"away for {lasts_s:.1f} s", lasts_s, bring_back)


def no_room(stack: Stack, chance: random.Random) -> Trouble:
    """Let no file grow that the lake process writes: table, catalog, log."""
    lasts_s = chance.uniform(1.0, 8.0)
    try:
        process = psutil.Process(stack.pid("lake"))
        _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (0, hard))
    except psutil.NoSuchProcess:
        return Trouble("no room", "the lake was just being restarted")

    def give_room() -> None:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))

    return Trouble("no room", f"for the lake for {lasts_s:.1f} s", lasts_s, give_room)


def second_writer(stack: Stack, chance: random.Random) -> Trouble:
    """Start another lake writer over the same lake and tape: both believe they are the one."""
    lasts_s = chance.uniform(4.0, 12.0)
    with (stack.data_dir / "second-writer.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "servers", "lake"],
            env=stack.environment_of("lake"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def end() -> None:
        process.kill()
        process.wait(30)

    return Trouble("second writer", f"for {lasts_s:.1f} s", lasts_s, end)


def command(*arguments: str) -> Fault:
    """Run a `k2` command that works on the lake or the feed meanwhile; its failure is told."""

    def fault(stack: Stack, chance: random.Random) -> Trouble:
        done = stack.k2(*arguments, check=False)
        said = "" if done.returncode == 0 else f": exit {done.returncode} {done.stderr[-200:]}"
        return Trouble("command", f"k2 {' '.join(arguments)}{said}")

    return fault


def backfill_again(stack: Stack, chance: random.Random) -> Trouble:
    """Ask for trades that are there already."""
    symbol = chance.choice(["BTCUSDT", "ETHUSDT", "BNBUSDT"])
    until(lambda: _acknowledged(stack, symbol) > 0, f"a feed has sent {symbol}")
    newest = _acknowledged(stack, symbol)
    first = max(0, newest - chance.randint(100, 3000))
    ids = ("--from-id", str(first), "--to-id", str(newest - 50))
    return command("backfill", symbol, *ids, "--json")(stack, chance)


def _acknowledged(stack: Stack, symbol: str) -> int:
    """The newest id on the tape, by what the feed says; 0 while it says nothing."""
    of_symbol = (one for feed in stack.json("feeds")["feeds"] for one in feed["symbols"])
    ids = (one.get("acknowledged_trade_id") for one in of_symbol if one["symbol"] == symbol)
    return max((int(one) for one in ids if one), default=0)


def restarts(stack: Stack) -> dict[str, int]:
    """How often each process was restarted."""
    return {name: int(one["restarts"]) for name, one in stack.recorded().items()}
