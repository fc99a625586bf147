from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from k2 import limits
from k2.errors import Data, Reason, Unavailable
from k2.lake.commit.committer import PartitionBatch, TapeIdentity
from k2.lake.commit.event_files import OpsStore, view_of
from k2.lake.iceberg.tables import DEAD_LETTERS_LAYOUT, ensure_table, ensure_tables
from k2.lake.ingest.event_rows import row_of
from k2.lake.verify.verify_letters import LetterSources
from k2.market.events import Fault
from k2.market.fold import FoldState, Verdict, fold
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState
from k2.tape import topics
from k2.tape.consumer import RawBatch
from k2.tape.dead_letter_topic import DeadLetter
from tests.support.messages import record, trade, written
from tests.support.tomorrow import AVRO, NEWER_ID, OPTIONAL, comes
from tests.support.trades import NOW_US, columns
from tests.support.writer_world import BTC, judged_alone, kinds, message, pumped

EMPTY = {field.name: None for field in OPTIONAL}


def meddled(world, change, *, state=None):
    """Commit what is on BTC's partition, with `change` made to the accepted rows."""
    partition = world.home[BTC]
    log = world.tape.logs[partition]
    raw = RawBatch(partition, np.arange(log.end, dtype=np.int64), log.values, log.end)
    columns = judged_alone(world, raw)
    after, verdicts, *_ = fold(FoldState(), columns)
    rows = change(columns.take(verdicts == Verdict.ACCEPTED))
    writer = world.committer("bad", tape=world.identity)
    writer.commit([PartitionBatch(partition, 0, log.end, rows, state or after)])


def test_a_lake_that_holds_what_the_tape_says_is_ok(world):
    partition = world.put(1, 2, 2, 5, vendor={"M": "true"})
    world.tape.append(partition, b"garbage")
    world.put(7, symbol="ETHUSDT")
    pumped(world)
    world.put(6)
    report = world.verified()
    assert report["ok"]
    assert report["problems"] == []
    assert (report["rows"], report["accepted"], report["duplicate"], report["dead"]) == (4, 4, 1, 1)
    assert report["uncommitted"] == 1
    assert report["snapshot_id"] == str(world.snapshots.current().snapshot_id)
    assert report["holes"] == [
        {"exchange": "BINANCE", "symbol": "BTCUSDT", "first_id": 3, "last_id": 4, "count": 2}
    ]
    by_symbol = {one["symbol"]: one for one in report["symbols"]}
    assert by_symbol["BTCUSDT"] == {
        "partition": partition,
        "exchange": "BINANCE",
        "symbol": "BTCUSDT",
        "accepted": 3,
        "rows_in_lake": 3,
        "first_id": 1,
        "last_id": 5,
        "holes": 1,
        "missing_ids": 2,
    }
    assert report["partitions"][partition] == {
        "partition": partition,
        "from_offset": 0,
        "to_offset": 5,
        "accepted": 3,
        "duplicate": 1,
        "dead": 1,
        "rows_in_lake": 3,
        "uncommitted": 1,
    }
    assert "each once" in report["message"]


def test_an_empty_lake_promised_nothing(world):
    world.put(1, 2)
    report = world.verified()
    assert (report["ok"], report["uncommitted"], report["snapshot_id"]) == (True, 2, None)


def test_a_lost_row_is_found(world):
    world.put(1, 2, 3)
    meddled(world, lambda rows: (rows.take(np.array([0, 2])),))
    report = world.verified()
    assert not report["ok"]
    assert kinds(report) == {("LOST", 1, (1,))}
    assert "LOST" in report["message"]


def test_a_doubled_row_is_found(world):
    world.put(1, 2, 3)
    meddled(world, lambda rows: (rows, rows.take(np.array([1]))))
    assert kinds(world.verified()) == {("DOUBLED", 1, (1,))}


def test_a_changed_value_is_found(world):
    world.put(1, 2, 3)

    def change(rows):
        rows.price[2] += 1
        return (rows,)

    meddled(world, change)
    assert kinds(world.verified()) == {("CHANGED", 1, (2,))}


def test_changed_vendor_data_is_found(world):
    world.put(1, 2, vendor={"M": "true"})

    def change(rows):
        keys = rows.vendor_data.keys
        other = type(rows.vendor_data).from_arrays(rows.vendor_data.offsets, keys, keys)
        return (type(rows)(**{**vars(rows), "vendor_data": other}),)

    meddled(world, change)
    assert kinds(world.verified()) == {("CHANGED", 2, (0, 1))}


def test_a_row_that_the_tape_has_as_a_duplicate_is_found(world):
    world.put(1, 1)

    def change(rows):
        twice = rows.take(np.array([0, 0]))
        twice.offset[1] = 1
        return (twice,)

    meddled(world, change)
    assert kinds(world.verified()) == {("UNDUE", 1, (1,))}


def test_a_state_that_disagrees_is_found(world):
    world.put(1, 2)
    wrong = FoldState({}, 2, 0, 0)
    meddled(world, lambda rows: (rows,), state=wrong)
    report = world.verified()
    assert kinds(report) == {("STATE", 1, ())}
    assert "BINANCE:BTCUSDT" in report["problems"][0]["message"]


def test_counters_that_disagree_are_found(world):
    world.put(1, 2)
    batch = fold(FoldState(), checked_all(world)).state
    meddled(world, lambda rows: (rows,), state=FoldState(batch.seen, 2, 1, 0))
    assert kinds(world.verified()) == {("COUNTERS", 1, ())}


def checked_all(world):
    log = world.tape.logs[world.home[BTC]]
    raw = RawBatch(world.home[BTC], np.arange(log.end, dtype=np.int64), log.values, log.end)
    return judged_alone(world, raw)


def test_a_missing_dead_letter_is_found(world):
    partition = world.put(1)
    world.tape.append(partition, b"garbage")
    pumped(world)
    world.tape.letters.clear()
    assert kinds(world.verified()) == {("LETTER_MISSING", 1, (1,))}


def test_a_dead_letter_of_a_good_record_is_found(world):
    partition = world.put(1)
    pumped(world)
    world.tape.letters.append(DeadLetter("trades", 0, partition, 0, 7, Fault.TRUNCATED, "", 0, b""))
    assert kinds(world.verified()) == {("LETTER_UNDUE", 1, (0,))}


def test_the_table_of_letters_is_part_of_the_report(world):
    partition = world.put(1)
    world.tape.append(partition, b"garbage")
    pumped(world)
    office = world.tape.office()
    report = world.verified(table=LetterSources(lambda: None, office.read_posted))
    assert (report["ok"], report["letter_rows"], report["letters_waiting"]) == (True, 0, 1)


def test_a_letter_that_left_its_topic_is_known_from_the_table(world):
    partition = world.put(1)
    world.tape.append(partition, b"garbage")
    pumped(world)
    ensure_table(world.catalog, DEAD_LETTERS_LAYOUT)
    rows = [
        row_of(one) | {"tape_epoch": 0, "tape_partition": 0, "tape_offset": offset}
        for offset, one in enumerate(world.tape.letters)
    ]
    table = pa.Table.from_pylist(rows, schema=DEAD_LETTERS_LAYOUT.columns)
    tape = TapeIdentity(topics.DEAD_LETTERS, "letters-1", "fake", 0, 1)
    writer = world.committer("ops", tape=tape, store=OpsStore(DEAD_LETTERS_LAYOUT))
    writer.commit([PartitionBatch(0, 0, len(rows), (table,), FoldState())])
    world.tape.letters.clear()
    office = world.tape.office()
    held = LetterSources(lambda: view_of(world.catalog, DEAD_LETTERS_LAYOUT), office.read_posted)
    assert world.verified(table=held)["ok"]


def test_letters_of_other_tapes_and_of_what_is_not_committed_do_not_count(world):
    partition = world.put(1)
    pumped(world)
    for topic, epoch, offset in (("other", 0, 0), ("trades", 1, 0), ("trades", 0, 1)):
        world.tape.letters.append(
            DeadLetter(topic, epoch, partition, offset, 7, Fault.TRUNCATED, "", 0, b"")
        )
    assert world.verified()["ok"]


def test_what_nobody_had_placed_then_is_taken_as_the_writer_judged_it(world):
    sol = Instrument("BINANCE", "SOLUSDT")
    home = 2
    world.tape.append(home, message(1, "SOLUSDT"))
    pumped(world)
    assert world.tape.letters[0].fault is Fault.WRONG_PARTITION
    assert world.placement.place(sol) in (2, 3)
    world.home[sol] = world.placement.place(sol)
    world.put(2, symbol="SOLUSDT")
    pumped(world, "w2")
    assert world.verified()["ok"]


def test_where_retention_removed_the_beginning_the_lake_gives_the_state(world):
    partition = world.put(1, 2, 4)
    pumped(world)
    world.put(4, 5)
    pumped(world, "w2")
    world.tape.remove_before(partition, 3)
    report = world.verified()
    assert report["ok"]
    assert report["partitions"][partition]["from_offset"] == 3
    assert report["partitions"][partition]["rows_in_lake"] == 4
    assert report["holes_total"] == 1
    world.tape.remove_before(partition, 5)
    assert world.verified()["ok"]


def test_a_double_in_what_retention_removed_is_found(world):
    partition = world.put(1, 2)
    meddled(world, lambda rows: (rows, rows.take(np.array([0]))))
    world.tape.remove_before(partition, 2)
    assert ("DOUBLED", 1, ()) in kinds(world.verified())


def test_records_that_retention_removed_uncommitted_are_found(world):
    partition = world.put(1, 2)
    pumped(world)
    world.put(3, 4)
    world.tape.remove_before(partition, 3)
    assert kinds(world.verified()) == {("OVERTAKEN", 1, ())}


def test_rows_beyond_the_positions_are_found(world):
    world.put(1, 2)

    def change(rows):
        rows.offset[1] = 99
        return (rows,)

    meddled(world, change)
    assert kinds(world.verified()) == {("LOST", 1, (1,)), ("STRAY", 1, ())}


def test_many_problems_are_counted_and_some_are_listed(world, monkeypatch):
    monkeypatch.setattr(limits, "VERIFY_OFFSETS_LISTED", 3)
    world.put(*range(10))
    meddled(world, lambda rows: ())
    assert kinds(world.verified()) == {("LOST", 10, (0, 1, 2))}


def test_a_lake_of_another_tape_cannot_be_verified(world):
    world.put(1)
    pumped(world)
    world.tape.recreate()
    with pytest.raises(Data) as caught:
        world.verified()
    assert caught.value.reason is Reason.TOPIC_RECREATED


def test_a_tape_that_gives_nothing_is_not_waited_for_for_ever(world):
    world.put(1)
    pumped(world)

    class Silent:
        def read(self, max_records, timeout_s):
            world.clock.advance(timeout_s)
            return []

        def pause(self, partitions):
            pass

        def close(self):
            pass

    with pytest.raises(Unavailable) as caught:
        world.verified(replay=lambda start: Silent())
    assert caught.value.reason is Reason.TAPE_UNAVAILABLE


def test_the_same_answer_after_a_hundred_commits(world):
    pump = world.pump()
    hashes = {}
    for number in range(1, limits.SNAPSHOTS_KEPT_MAX - 15):
        world.put(number, at=NOW_US + number)
        pump.step()
        pump.commit()
        if number <= 2:
            hashes[world.snapshots.current().snapshot_id] = list(range(1, number + 1))
    assert len(world.snapshots.list()) > 100
    for snapshot_id, ids in hashes.items():
        rows = world.table.scan(snapshot_id=snapshot_id).to_arrow()
        assert sorted(rows["trade_id"].to_pylist()) == ids
        assert sum(file.rows for file in world.snapshots.files(snapshot_id)) == len(ids)
    assert world.verified()["ok"]


def test_rows_stored_before_a_column_was_known_are_no_disagreement(world, monkeypatch):
    def newer(trade_id, note):
        more = EMPTY | {"note": note}
        return written(record(trade(trade_id=trade_id)) | more, AVRO, NEWER_ID)

    world.schemas.known[NEWER_ID] = AVRO
    partition = world.put(1)
    world.tape.append(partition, newer(2, None), newer(3, "x"))
    pumped(world)
    comes(monkeypatch)
    ensure_tables(world.catalog)
    world.tape.append(partition, newer(4, "y"))
    pumped(world, "w2")
    report = world.verified()
    assert (report["ok"], report["rows"], report["problems"]) == (True, 4, [])
    rows = world.table.scan().to_arrow().sort_by("tape_offset")
    assert rows.column("note").to_pylist() == [None, None, None, "y"]


def told(world, first, last, state):
    settled = {
        GapState.OPEN: {},
        GapState.FILLED: {"filled_at_us": NOW_US},
        GapState.UNFILLABLE: {"reason": "never printed"},
        GapState.VOID: {},
    }[state]
    world.tape.gaps.append(
        GapEvent(BTC, first, last, NOW_US, Cause.SEQUENCE, state, NOW_US, "feed", **settled)
    )


def test_each_missing_id_is_what_the_ledger_says_of_it(world):
    world.put(1, 10, 20, 30)
    pumped(world)
    told(world, 2, 5, GapState.OPEN)
    told(world, 6, 9, GapState.UNFILLABLE)
    told(world, 10, 10, GapState.FILLED)
    told(world, 11, 13, GapState.VOID)
    report = world.verified(gaps=lambda: world.tape.gaps)
    assert report["ok"]
    assert report["missing"] == {"OPEN": 4, "UNFILLABLE": 4, "FILLED": 0, "VOID": 3, "UNTOLD": 15}


def test_what_is_called_filled_must_be_there(world):
    partition = world.put(1, 10)
    pumped(world)
    told(world, 4, 6, GapState.FILLED)
    told(world, 8, 8, GapState.FILLED)
    report = world.verified(gaps=lambda: world.tape.gaps)
    assert kinds(report) == {("GAP_UNTRUE", 4, (4, 8))}
    assert report["missing"]["FILLED"] == 4
    world.put(4, 5, 6, 8)
    waiting = world.verified(gaps=lambda: world.tape.gaps)
    assert waiting["ok"], f"partition {partition} has records that wait to be committed"
    pumped(world, "w2")
    report = world.verified(gaps=lambda: world.tape.gaps)
    assert report["ok"]
    assert report["missing"]["FILLED"] == 0


HOUR_US = 3_600_000_000


def test_ids_used_again_are_known_where_retention_removed_their_records(world):
    partition = world.put(1, 2)
    world.put(1, at=NOW_US + 2 * HOUR_US)
    pumped(world)
    world.put(2, at=NOW_US + 3 * HOUR_US)
    world.put(3)
    pumped(world, "w2")
    (seen,) = world.snapshots.states(world.snapshots.current())[partition].seen.values()
    assert seen.reused_us == NOW_US + 2 * HOUR_US
    for start in (0, 2, 3, 4, 5):
        world.tape.remove_before(partition, start)
        report = world.verified()
        assert report["ok"], report["problems"]


def test_a_state_that_forgot_that_ids_were_used_again_is_found(world):
    partition = world.put(1, 2)
    world.put(1, at=NOW_US + 2 * HOUR_US)
    state = FoldState({BTC: fold(FoldState(), columns([1, 2])).state.seen[BTC]}, 2, 0, 1)
    pump = world.pump()
    pump.step()
    pieces = pump._reading.slices[partition].pieces
    pieces[-1] = replace(pieces[-1], state=state)
    pump.commit()
    assert kinds(world.verified()) == {("STATE", 1, ())}
