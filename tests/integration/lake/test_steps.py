"""The writer's process dies before and after each of the six steps of its loop, by name.

A life each: the process is killed where the name says, and the next one goes on from the lake. Then
lives in which the commit landed and the answer said otherwise.
"""

import subprocess
import sys

import pytest

from k2.lake.iceberg.tables import TRADES
from tests.integration.lake.test_writer_process import SYMBOLS, Site

LIFE = """
import functools, os, signal, sys, threading
from pyiceberg.exceptions import CommitFailedException
from sqlalchemy.exc import OperationalError
from k2 import settings
from k2.clock import SystemClock
from k2.lake.iceberg.catalog import SqlCatalog
from k2.lake.commit.committer import TradeStore
from k2.lake.ingest.trade_writer import LakeWriter
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import TapeReader
from k2.tape.dead_letter_topic import DeadLetterTopic
from servers.runtime import Runtime
from servers.processes import lake

STEPS = {
    "1 assign": (LakeWriter, "_assigned"),
    "2 decode": (Decoder, "decode"),
    "3 letters": (DeadLetterTopic, "publish"),
    "4 write": (TradeStore, "write"),
    "5 swing": (SqlCatalog, "commit_table"),
    "6 report": (TapeReader, "report"),
}
WRONG_ANSWERS = {
    "reply lost": OperationalError("UPDATE", {}, Exception("the connection is gone")),
    "landed and refused": CommitFailedException("a retried request found its own commit"),
}

def live(number, wanted):
    runtime = Runtime(SystemClock(), f"{number:032x}", out=sys.stderr)

    def reached(point):
        if point == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        if point == "after 6 report":
            runtime.stopping.set()  # where this life has not ended before, it ends well

    def around(step, owner, name):
        real = getattr(owner, name)

        @functools.wraps(real)
        def watched(*arguments, **more):
            ours = threading.current_thread() is threading.main_thread()  # the trades' writer
            if ours:
                reached(f"before {step}")
            result = real(*arguments, **more)
            if ours and step == "5 swing" and (wrong := WRONG_ANSWERS.pop(wanted, None)):
                raise wrong
            if ours:
                reached(f"after {step}")
            return result

        setattr(owner, name, watched)

    for step, place in STEPS.items():
        around(step, *place)
    return lake.run(settings.load(), runtime, [])

for number, line in enumerate(sys.stdin):  # a life each, in a process of its own
    child = os.fork()
    if child == 0:
        os._exit(live(number + 1, line.strip()))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
STEPS = ("1 assign", "2 decode", "3 letters", "4 write", "5 swing", "6 report")
POINTS = [f"{side} {step}" for step in STEPS for side in ("before", "after")]
WAVE = 20
LATE, AFTER_LETTERS = "ETHUSDC", "after 3 letters"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def site(tmp_path, broker, registry):
    site = Site(tmp_path, broker, registry)
    yield site
    site.close()


def rows(site):
    found = site.catalog.load_table(TRADES).scan().to_arrow()
    return sorted(zip(found["symbol"].to_pylist(), found["trade_id"].to_pylist(), strict=True))


def test_a_writer_that_dies_before_or_after_any_step_loses_and_doubles_nothing(site):
    """Each wave holds garbage, duplicates and trades of three symbols; see `Site.put`.

    To the life that dies between letters and commit, a trade is of a symbol that nobody has placed;
    to the next one it is good, and its letter is overruled.
    """
    with (site.folder / "lives.log").open("wb") as log:
        lives = subprocess.Popen(
            [sys.executable, "-c", LIFE], env=site.env, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    held, ends = {}, {}
    site.put_unplaced(LATE, 0)  # the very first, so that its letter is among the first
    try:
        for wave, point in enumerate([*POINTS, "reply lost", "landed and refused"]):
            site.put(wave * 100, WAVE)  # from a hundred on, so with one record of garbage
            lives.stdin.write(f"{point}\n")
            lives.stdin.flush()
            ends[point] = int(lives.stdout.readline())
            if point == AFTER_LETTERS:
                site.place(LATE)
            held[point] = rows(site)
            assert len(held[point]) == len(set(held[point])), point
    finally:
        lives.kill()
        lives.communicate()
    said = (site.folder / "lives.log").read_text()[-3000:]
    assert ends == dict.fromkeys(POINTS, -9) | {"reply lost": 0, "landed and refused": 0}, said

    before = [(), *held.values()]
    landed = {point: len(held[point]) > len(before[at]) for at, point in enumerate(held)}
    swung = {"after 5 swing", "before 6 report", "after 6 report"}
    assert {point for point, grew in landed.items() if grew} == swung | {*held} - {*POINTS}
    waves = range(len(held))
    numbers = [wave * 100 + one for wave in waves for one in range(WAVE)]
    trades = [(LATE, 0), *((symbol, number) for symbol in SYMBOLS for number in numbers)]
    assert held["landed and refused"] == sorted(trades)
    letters = [(row["origin_partition"], row["origin_offset"]) for row in site.letters()]
    assert len(letters) == len(set(letters))
    code, report = site.verified()
    assert (code, report["problems"], report["dead"]) == (0, [], len(waves))
    assert report["letters_overruled"] == 1
    counters = site.snapshots.current().counters.values()
    assert sum(duplicate for _, duplicate, _ in counters) == len(waves) * 2 * len(SYMBOLS)
