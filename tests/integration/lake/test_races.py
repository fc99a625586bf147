"""Writers in processes of their own race for the same records, and die at every step."""

import json
import subprocess
import sys

import pytest

from tests.lake_world import LakeWorld

RACES = 12
RACER = """
import json, sys
from pathlib import Path
from k2.market.fold import FoldState
from tests.lake_world import LakeWorld, piece

lake, name = LakeWorld(Path(sys.argv[1])), sys.argv[2]
writer = lake.committer(name)
print("ready", flush=True)
for line in sys.stdin:
    start = int(line)
    positions, states, _ = writer.base()
    batch = piece(0, range(start, start + 50), start=start, state=states.get(0))
    print("set", flush=True)
    sys.stdin.readline()
    outcome = writer.commit([batch])
    print(json.dumps({"rows": outcome.rows}), flush=True)
"""
MORTAL = """
import os, signal, sys
from pathlib import Path
from tests.lake_world import LakeWorld, piece

def live(step):
    \"\"\"Commit ten rows, and die when so many files and directories have been made durable.\"\"\"
    real, left = os.fsync, [step]

    def dying(descriptor):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        real(descriptor)

    lake = LakeWorld(Path(sys.argv[1]))
    writer = lake.committer(f"w{step}")
    positions, states, _ = writer.base()
    at = positions[0]
    os.fsync = dying
    writer.commit([piece(0, range(at, at + 10), start=at, state=states.get(0))])

for line in sys.stdin:  # a life each, in a process of its own
    child = os.fork()
    if child == 0:
        live(int(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

pytestmark = pytest.mark.integration


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def say(process, line):
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def test_of_two_processes_with_the_same_records_one_wins_each_race(tmp_path):
    world = LakeWorld(tmp_path)
    racers = [start(RACER, tmp_path, name) for name in ("one", "two")]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 2
        for race in range(RACES):
            for racer in racers:
                say(racer, race * 50)
            assert [racer.stdout.readline() for racer in racers] == ["set\n"] * 2
            for racer in racers:
                say(racer, "go")
            rows = [json.loads(racer.stdout.readline())["rows"] for racer in racers]
            assert sorted(rows) == [0, 50]
        ids = [row[3] for row in world.rows()]
        assert ids == list(range(RACES * 50))
        assert len(world.snapshots.list()) == RACES
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
        world.close()


def test_a_writer_killed_at_any_step_leaves_a_whole_lake(tmp_path):
    world = LakeWorld(tmp_path)
    lives, ends = start(MORTAL, tmp_path), []
    try:
        while 0 not in ends:
            say(lives, len(ends))
            ends.append(int(lives.stdout.readline()))
            ids = [row[3] for row in world.rows()] if world.snapshots.current() else []
            assert ids == list(range(len(ids)))
            assert len(ids) % 10 == 0
    finally:
        lives.kill()
        lives.communicate()
        world.close()
    assert set(ends) == {0, -9}
    assert len(ends) > 8  # data, state, manifest, list, metadata, and their directories
