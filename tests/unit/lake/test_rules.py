"""A lake and a tape of rules 0: an epoch keeps the rules it began with.

`tests/golden/rules_0.zip` was written by the K2 of commit a559d1c: three trades of BTCUSDT (the
third with a receive time in the year 10000), a duplicate and a dead letter, one trade of ETHUSDT;
and on the tape, not committed, a trade, an id used again three hours later, and an event time in
the year 10000.
"""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from k2.errors import Data, Reason
from k2.lake.maintenance.relocation import Move, relocate
from k2.market.events import Fault
from k2.query.lake_snapshots import LakeSide
from tests.support.lake_answers import answer_of
from tests.support.writer_world import BTC, PumpWorld, begun, ended

ARCHIVE = Path(__file__).parents[2] / "golden" / "rules_0.zip"
WRITTEN_AT = "file:///tmp/k2-rules-0/lake/warehouse"


@pytest.fixture
def old(tmp_path):
    stage, lake = tmp_path / "stage", tmp_path / "data" / "lake"
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(stage)
    move = Move(WRITTEN_AT, f"file://{lake}/warehouse", stage / "warehouse")
    relocate(stage / "catalog.db", move)
    shutil.copytree(stage, lake)
    world = PumpWorld(tmp_path / "data")
    tape = json.loads((stage / "tape.json").read_text())
    for partition, values in enumerate(tape["logs"]):
        world.tape.append(partition, *map(bytes.fromhex, values))
    yield world
    world.close()


def refused(attempt):
    with pytest.raises(Data) as caught:
        attempt()
    assert "k2 tape new-epoch" in caught.value.message
    return caught.value.reason


def test_an_epoch_of_other_rules_does_not_go_on(old):
    assert old.snapshots.current().epochs.rules == 0
    assert refused(lambda: begun(old)) is Reason.RULES_CHANGED
    assert refused(old.pump().step) is Reason.RULES_CHANGED
    assert refused(old.verified) is Reason.RULES_CHANGED
    lake = LakeSide(old.snapshots, 8, old.tape.topic_id)
    assert refused(lake.refresh) is Reason.RULES_CHANGED


def test_the_next_epoch_goes_on_where_the_lake_stands_by_the_rules_of_today(old):
    stood = old.snapshots.current().positions.offsets
    ended(old, why=Reason.RULES_CHANGED)
    assert begun(old).epoch == 1
    head = old.snapshots.current()
    assert (head.epochs.rules, head.positions.offsets) == (1, stood)
    pump = old.pump("w2")
    pump.step()
    assert pump.commit()
    assert old.ids() == [1, 2, 3, 4], "nothing is lost, nothing is there twice"
    assert [letter.fault for letter in old.tape.letters] == [Fault.REUSED_ID, Fault.OUT_OF_RANGE]
    seen = old.snapshots.states(old.snapshots.current())[old.home[BTC]].seen[BTC]
    assert seen.reused_us is not None
    assert old.verified()["ok"]
    assert old.snapshots.current().epochs.rules == 1, "every later commit says so"


def test_the_rows_of_the_older_epoch_stay_as_they_were_judged(old):
    ended(old, why=Reason.RULES_CHANGED)
    begun(old)
    year_10000_us = 253_402_300_800_000_000
    times = old.table.scan().to_arrow().column("receive_time").cast("int64").to_pylist()
    assert max(times) == year_10000_us + 7


def test_files_of_before_and_of_now_are_one_answer(old):
    ended(old, why=Reason.RULES_CHANGED)
    begun(old)
    pump = old.pump("w2")
    pump.step()
    pump.commit()
    stats = old.snapshots.files(old.snapshots.current().snapshot_id)
    assert {stat.narrow for stat in stats} == {False, True}
    rows = answer_of(old, columns=("trade_id", "quantity"))
    assert sorted(rows["trade_id"].to_pylist()) == [1, 2, 3, 4, 5]
    stored = old.table.scan().to_arrow()["quantity"].to_pylist()
    assert sorted(rows["quantity"].to_pylist()) == sorted(stored)
