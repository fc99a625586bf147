"""Two writers in processes of their own race for the same records, over and over.

    python -m tests.chaos.races --races 100

checks after each race that one of them committed its fifty rows and the other none, and at the end
that every row is there once, with one snapshot a race. `--peer` lets the same two processes append
with pyiceberg's own transaction, as it is by default, to show what the race is about.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from tests.chaos.command import asked, in_a_folder
from tests.support.lake_world import LakeWorld

ROWS = 50
RACER = """
import sys
from pathlib import Path
from k2.market.fold import FoldState
from tests.chaos.races import ROWS
from tests.support.lake_world import LakeWorld, piece

lake, name = LakeWorld(Path(sys.argv[1])), sys.argv[2]
writer = lake.committer(name)
print("ready", flush=True)
for line in sys.stdin:
    start = int(line)
    positions, states, _ = writer.base()
    batch = piece(0, range(start, start + ROWS), start=start, state=states.get(0))
    print("set", flush=True)
    sys.stdin.readline()
    outcome = writer.commit([batch])
    print(outcome.rows, flush=True)
"""
PEER = """
import sys
from pathlib import Path
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from tests.chaos.races import ROWS

folder = Path(sys.argv[1])
catalog = SqlCatalog("peer", uri=f"sqlite:///{folder}/peer.db?timeout=30", warehouse=f"{folder}")
print("ready", flush=True)
for line in sys.stdin:
    start = int(line)
    table = catalog.load_table("a.b")
    rows = pa.table({"id": range(start, start + ROWS)})
    print("set", flush=True)
    sys.stdin.readline()
    try:
        table.append(rows)
        print(ROWS, flush=True)
    except Exception:
        print(0, flush=True)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A script in a process of its own, spoken to line by line."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def say(process: Any, line: object) -> None:
    """Send a line."""
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def race(folder: Path, script: str, races: int) -> list[list[int]]:
    """Rows that each of two processes committed, race by race."""
    racers = [start(script, folder, name) for name in ("one", "two")]
    try:
        hear(racers, "ready")
        results = []
        for number in range(races):
            for racer in racers:
                say(racer, number * ROWS)
            hear(racers, "set")
            for racer in racers:
                say(racer, "go")
            results.append([int(racer.stdout.readline()) for racer in racers])
        return results
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


def hear(racers: Sequence[Any], word: str) -> None:
    """Wait until each has said the word."""
    heard = [racer.stdout.readline().strip() for racer in racers]
    assert heard == [word] * len(racers), heard


def faults_of(results: list[list[int]], ids: list[int], snapshots: int) -> list[str]:
    """What is wrong after the races, given what each process says and what the lake holds."""
    faults = [
        f"race {number}: {rows}" for number, rows in enumerate(results) if sorted(rows) != [0, ROWS]
    ]
    doubled = [one for one, count in Counter(ids).items() if count > 1]
    if doubled:
        faults.append(f"{len(doubled)} ids doubled: {doubled[:5]}")
    if missing := {*range(len(results) * ROWS)} - {*ids}:
        faults.append(f"{len(missing)} ids missing: {sorted(missing)[:5]}")
    if snapshots != len(results):
        faults.append(f"{snapshots} snapshots of {len(results)} races")
    return faults


def run(folder: Path, races: int) -> dict[str, Any]:
    """K2's writers: how many races had one winner, and what was wrong."""
    world = LakeWorld(folder)
    try:
        results = race(folder, RACER, races)
        ids = [row[3] for row in world.rows()]
        faults = faults_of(results, ids, len(world.snapshots.list()))
    finally:
        world.close()
    winners = sum(sorted(rows) == [0, ROWS] for rows in results)
    return {"races": races, "one_winner": winners, "faults": faults}


def peer(folder: Path, races: int) -> dict[str, Any]:
    """pyiceberg's own append in the same race: how many races doubled their rows."""
    catalog = SqlCatalog("peer", uri=f"sqlite:///{folder}/peer.db", warehouse=f"{folder}")
    catalog.create_namespace("a")
    table = catalog.create_table("a.b", pa.schema([("id", pa.int64())]))
    race(folder, PEER, races)
    held = Counter(table.refresh().scan().to_arrow()["id"].to_pylist())
    catalog.close()
    return {"races": races, "doubled": sum(held[number * ROWS] > 1 for number in range(races))}


def main() -> int:
    """The command; `--peer` takes pyiceberg's append instead of K2's."""
    arguments = asked(__doc__, races=100, peer=False)
    driver = peer if arguments.peer else run
    return in_a_folder(lambda folder: driver(folder, arguments.races))


if __name__ == "__main__":
    raise SystemExit(main())
