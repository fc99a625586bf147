"""Writers in processes of their own race for the same records, and die at every step."""

import pytest

from tests.chaos import races
from tests.chaos.races import say, start
from tests.support.lake_world import LakeWorld

RACES = 12
MORTAL = """
import os, signal, sys
from pathlib import Path
from tests.support.lake_world import LakeWorld, piece

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


def test_of_two_processes_with_the_same_records_one_wins_each_race(tmp_path):
    assert races.run(tmp_path, RACES) == {"races": RACES, "one_winner": RACES, "faults": []}


def test_the_judge_of_races_sees_what_is_wrong():
    assert races.faults_of([[0, 50], [50, 0]], [*range(100)], snapshots=2) == []
    assert "race 1: [50, 50]" in races.faults_of([[0, 50], [50, 50]], [*range(100)], 2)[0]
    assert "doubled" in races.faults_of([[0, 50]], [*range(50), 7], 1)[0]
    assert "missing" in races.faults_of([[0, 50]], [*range(49)], 1)[0]
    assert "2 snapshots" in races.faults_of([[0, 50]], [*range(50)], 2)[0]


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
