"""Maintenance in processes of its own: beside a writer, beside its like, killed at any step."""

import json

import pytest

from k2.lake.iceberg.reachability import Reach
from tests.chaos.races import say, start
from tests.support.lake_world import LakeWorld

WRITER = """
import sys
from pathlib import Path
from tests.support.lake_world import LakeWorld

lake = LakeWorld(Path(sys.argv[1]))
writer = lake.committer("writer")
for line in sys.stdin:
    lake.commit_each([int(line)], writer)
    print("done", flush=True)
"""
KEEPER = """
import dataclasses, json, sys
from pathlib import Path
from k2.errors import Unavailable
from tests.support.lake_world import LakeWorld

lake = LakeWorld(Path(sys.argv[1]))
maintainer = lake.maintainer(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    maintainer.compact()
    maintainer.sweep()
    lake.clock.advance(lake.settings.lake.sweep_grace_s)
    print(json.dumps(dataclasses.asdict(maintainer.stats)), flush=True)
"""
MORTAL = """
import os, signal, sys
from pathlib import Path
from tests.support.lake_world import LakeWorld

def live(step, task):
    \"\"\"Maintain, and die when so many files and directories have been made durable.\"\"\"
    real, left = os.fsync, [step]

    def dying(descriptor):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        real(descriptor)

    lake = LakeWorld(Path(sys.argv[1]))
    maintainer = lake.maintainer(f"m-{task}-{step}")
    lake.clock.advance(3600)
    os.fsync = dying
    if task == "compact":
        maintainer.compact()
    else:
        maintainer.expire(lake.clock.now_us() - 1)
        maintainer.sweep()

for line in sys.stdin:  # a life each, in a process of its own
    step, task = line.split()
    child = os.fork()
    if child == 0:
        live(int(step), task)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

ROUNDS = 4

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def ids(world):
    return [row[3] for row in world.rows()]


@pytest.mark.parametrize("task", ["compact", pytest.param("expire", marks=pytest.mark.slow)])
def test_a_maintainer_killed_at_any_step_leaves_a_whole_lake(tmp_path, task):
    world = LakeWorld(tmp_path)
    world.commit_each(range(9))
    rows = world.table.scan().to_arrow().sort_by("tape_offset")
    state = world.snapshots.current().state_path
    lives, ends = start(MORTAL, tmp_path), []
    try:
        while 0 not in ends:
            say(lives, f"{len(ends)} {task}")
            ends.append(int(lives.stdout.readline()))
            assert world.table.scan().to_arrow().sort_by("tape_offset").equals(rows)
            assert world.snapshots.current().state_path == state
            assert world.snapshots.states(world.snapshots.current())[0].accepted == 9
    finally:
        lives.kill()
        lives.communicate()
    assert set(ends) == {0, -9}
    assert len(ends) > 6  # the file, manifest, list, metadata, and their directories
    for name in ("first", "second"):
        world.maintainer(name).sweep()
        world.clock.advance(world.settings.lake.sweep_grace_s)
    world.maintainer("last").sweep()
    assert world.on_disk() == Reach().of(world.table)
    assert world.table.scan().to_arrow().sort_by("tape_offset").equals(rows)
    world.close()


@pytest.mark.slow
def test_a_writer_and_two_maintainers_race_and_no_row_is_lost_or_doubled(tmp_path):
    world = LakeWorld(tmp_path)
    writer = start(WRITER, tmp_path)
    keepers = [start(KEEPER, tmp_path, name) for name in ("one", "two")]
    done = []
    try:
        assert [keeper.stdout.readline() for keeper in keepers] == ["ready\n"] * 2
        for number in range(0, ROUNDS * 8, 8):
            for process in keepers:  # both merge and sweep while eight commits are made
                say(process, "go")
            for one in range(number, number + 8):
                say(writer, one)
                assert writer.stdout.readline() == "done\n"
            done = [json.loads(process.stdout.readline()) for process in keepers]
            assert ids(world) == list(range(number + 8))
        assert world.snapshots.current().positions[0] == ROUNDS * 8
        assert sum(each["compactions"] for each in done) > 0
        assert sum(each["files_removed"] for each in done) > 0
        assert len(world.snapshots.files(world.snapshots.current().snapshot_id)) < ROUNDS * 4
    finally:
        for process in (writer, *keepers):
            process.kill()
            process.communicate()
        world.close()
