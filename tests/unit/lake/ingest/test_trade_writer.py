import pytest
from prometheus_client.openmetrics.exposition import generate_latest

from k2 import limits
from k2.errors import Data, Reason, Unavailable
from k2.lake.commit import committer as commit_module
from k2.lake.commit import trade_files as writer_module
from k2.lake.ingest.trade_writer import WriterStats
from k2.market.events import DAY_US, Fault
from k2.market.instrument import Instrument
from k2.metrics import EVENTS
from tests.support.eventually import eventually
from tests.support.lake_world import Crash, FaultyCatalog, piece
from tests.support.spans import links_of, parent_of, recorded, span_id_of, trace_of
from tests.support.writer_world import BTC, message


def test_nothing_is_committed_before_time_or_bytes_say_so(world):
    world.put(1, 2, 3)
    pump = world.pump()
    assert pump.step() == 3
    assert world.snapshots.current() is None
    assert pump.stats.pending_rows == 3
    world.clock.advance(9.9)
    pump.step()
    assert world.snapshots.current() is None
    world.clock.advance(0.1)
    pump.step()
    assert world.ids() == [1, 2, 3]
    assert (pump.stats.commits, pump.stats.rows, pump.stats.pending_rows) == (1, 3, 0)


def test_many_rows_are_committed_at_once(world, monkeypatch):
    monkeypatch.setattr(limits, "COMMIT_ROWS_MAX", 3)
    world.put(1, 2, 3)
    world.pump().step()
    assert world.ids() == [1, 2, 3]


def test_an_idle_writer_commits_nothing(world):
    world.put(1)
    pump = world.pump()
    for _ in range(3):
        pump.step()
        world.clock.advance(20)
    assert len(world.snapshots.list()) == 1


def test_duplicates_and_dead_letters_alone_move_the_positions(world):
    partition = world.put(1)
    pump = world.pump()
    pump.step()
    pump.commit()
    world.put(1)
    world.tape.append(partition, b"garbage", None)
    pump.step()
    pump.commit()
    snapshot = world.snapshots.current()
    assert snapshot.positions[partition] == 4
    assert snapshot.counters[partition] == (1, 1, 2)
    assert world.ids() == [1]
    assert [(one.offset, one.fault, one.value) for one in world.tape.letters] == [
        (2, Fault.BAD_MAGIC, b"garbage"),
        (3, Fault.NULL_VALUE, None),
    ]


def test_dead_letters_name_their_place_and_schema(world):
    partition = world.put(1)
    world.tape.append(partition, message(2) + b"x")
    world.pump().step()
    letter = world.tape.letters[0]
    assert (letter.topic, letter.epoch, letter.partition, letter.offset) == (
        "trades",
        0,
        partition,
        1,
    )
    assert (letter.schema_id, letter.fault) == (7, Fault.TRAILING)
    assert letter.at_us == world.clock.now_us()


def test_a_record_in_the_wrong_partition_is_a_dead_letter(world):
    wrong = (world.home[BTC] + 1) % 8
    world.tape.append(wrong, message(1))
    pump = world.pump()
    pump.step()
    assert world.tape.letters[0].fault is Fault.WRONG_PARTITION
    assert pump.stats.pending_rows == 0


def test_a_symbol_placed_after_the_writer_started_is_at_home(world):
    pump = world.pump()
    world.put(1)
    pump.step()
    sol = Instrument("BINANCE", "SOLUSDT")
    world.home[sol] = world.placement.place(sol)
    world.put(1, symbol="SOLUSDT")
    pump.step()
    pump.commit()
    assert world.ids("SOLUSDT") == [1]
    assert world.tape.letters == []


def test_dead_letters_are_acknowledged_before_a_commit_passes_them(world):
    partition = world.put(1)
    world.tape.append(partition, b"garbage")
    order = []
    office = world.tape.office()
    publish = office.publish

    class Office:
        def publish(self, letters, wait_s):
            order.append("letters")
            publish(letters, wait_s)

    catalog = FaultyCatalog(world.catalog, before=lambda: order.append("commit"))
    pump = world.pump(catalog=catalog, letters=Office())
    pump.step()
    pump.commit()
    assert order == ["letters", "commit"]


def test_the_group_gets_positions_only_after_the_commit(world):
    partition = world.put(1, 2)
    pump = world.pump()
    pump.step()
    assert world.tape.groups["lake"].reported == {}
    pump.commit()
    assert world.tape.groups["lake"].reported[partition] == 2


def test_a_writer_that_stops_commits_what_is_there(world):
    world.put(1, 2)
    pump = world.pump()
    pump.step()
    world.stopping.set()
    pump.run()
    assert world.ids() == [1, 2]


@pytest.mark.parametrize("fault", ["crash before", "crash after"])
def test_a_writer_that_dies_at_the_commit_loses_and_doubles_nothing(world, fault):
    world.put(1, 2, 3)
    pump = world.pump(catalog=FaultyCatalog(world.catalog, fault))
    pump.step()
    with pytest.raises(Crash):
        pump.commit()
    world.put(3, 4)
    successor = world.pump("w2")
    successor.step()
    successor.commit()
    assert world.ids() == [1, 2, 3, 4]
    assert world.snapshots.current().counters[world.home[BTC]] == (4, 1, 0)


def test_a_writer_that_dies_after_its_dead_letters_publishes_them_again(world):
    partition = world.put(1)
    world.tape.append(partition, b"garbage")
    world.pump().step()
    successor = world.pump("w2")
    successor.step()
    successor.commit()
    assert [one.offset for one in world.tape.letters] == [1, 1]
    assert world.verified()["ok"]


def test_a_fenced_zombie_goes_on_from_what_the_other_committed(world):
    world.put(1, 2)
    zombie = world.pump("zombie", instance="a")
    zombie.step()
    world.tape.groups.clear()  # the group has forgotten it; it does not know yet
    successor = world.pump("next", instance="b")
    world.put(3)
    successor.step()
    successor.commit()
    zombie.commit()
    assert (zombie.stats.fenced, zombie.stats.commits) == (1, 0)
    world.put(4)
    zombie.step()
    zombie.commit()
    assert world.ids() == [1, 2, 3, 4]
    assert world.verified()["ok"]


def test_two_writers_share_the_partitions(world):
    world.put(1, 2)
    world.put(5, symbol="ETHUSDT")
    one = world.pump("one", instance="a")
    one.step()
    two = world.pump("two", instance="b")
    for _ in range(3):
        one.step()
        two.step()
        one.commit()
        two.commit()
    assert world.ids() == [1, 2]
    assert world.ids("ETHUSDT") == [5]
    assert world.verified()["ok"]


def test_what_another_writer_was_given_is_owed_no_more(world, monkeypatch):
    monkeypatch.setattr(limits, "COMMIT_DAYS_MAX", 1)
    world.put(1)
    world.put(2, at=world.clock.now_us() - DAY_US)
    one = world.pump("one", instance="b")
    one.step()
    assert one.commit()
    assert one._left
    world.pump("two", instance="a")  # gets the partition
    one.step()
    assert not one._left, "a drain would wait for that commit"
    world.clock.advance(100)
    assert one.stats.lag_s(world.clock.monotonic_s()) == 0


def test_a_lake_that_is_away_is_waited_for_and_reading_pauses_at_the_bound(world, monkeypatch):
    monkeypatch.setattr(limits, "COMMIT_ROWS_MAX", 2)
    catalog = FaultyCatalog(world.catalog, *["busy"] * 3)
    pump = world.pump(catalog=catalog)
    world.put(1, 2)
    pump.step()
    assert pump.stats.failures == 1
    pump.step()  # not again at once
    assert pump.stats.failures == 1
    world.put(3, 4)
    pump.step()
    world.put(5)
    assert pump.step() == 0  # at the bound
    for _ in range(5):
        world.clock.advance(limits.COMMIT_RETRY_MAX_S)
        pump.step()
    pump.commit()
    assert world.ids() == [1, 2, 3, 4, 5]
    assert pump.stats.failures == 3


def test_a_registry_that_is_away_is_waited_for(world):
    world.put(1)
    world.schemas.failure = Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")
    pump = world.pump()
    pump.step()
    pump.commit()
    assert world.ids() == []
    world.schemas.failure = None

    def committed_later():
        world.clock.advance(1)
        pump.step()
        pump.commit()
        return world.ids() == [1]

    eventually(committed_later)
    assert world.tape.letters == []


def test_stopping_while_something_is_away_leaves_it_to_the_next_writer(world):
    world.put(1)
    world.schemas.failure = Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")
    world.stopping.set()
    pump = world.pump()
    pump.run()
    world.stopping.clear()
    world.schemas.failure = None
    successor = world.pump("w2")
    successor.step()
    successor.commit()
    assert world.ids() == [1]


def committed(world, *ids):
    partition = world.put(*ids)
    pump = world.pump()
    pump.step()
    pump.commit()
    return partition


def refused(world, identity=None):
    with pytest.raises(Data) as caught:
        world.pump("w2", identity=identity).step()
    return caught.value.reason


def test_a_topic_that_was_made_again_is_refused_by_name(world):
    committed(world, 1)
    before = world.identity
    world.tape.recreate()
    assert refused(world) is Reason.TOPIC_RECREATED
    assert refused(world, before) is Reason.TOPIC_RECREATED


def test_another_cluster_is_refused_by_name(world):
    committed(world, 1)
    before = world.identity
    world.tape.cluster_id = "another"
    assert refused(world) is Reason.CLUSTER_CHANGED
    assert refused(world, before) is Reason.CLUSTER_CHANGED


def test_nothing_is_committed_of_a_topic_that_was_made_again_under_a_running_writer(world):
    world.put(1, 2)
    pump = world.pump()
    pump.step()
    pump.commit()
    world.tape.recreate()
    world.find_homes()
    world.put(7, 8, 9, 10)  # the reader goes on at offset 2, in another topic
    assert pump.step() == 2
    with pytest.raises(Data) as caught:
        pump.commit()
    assert caught.value.reason is Reason.TOPIC_RECREATED
    assert world.ids() == [1, 2]


def test_a_position_that_was_lost_with_its_topic_is_refused_by_that_name(world):
    world.put(1, 2)
    pump = world.pump()
    pump.step()
    pump.commit()
    world.tape.recreate()  # it ends before the reader's position
    with pytest.raises(Data) as caught:
        pump.step()
    assert caught.value.reason is Reason.TOPIC_RECREATED


def test_what_was_read_is_committed_while_the_tape_is_away(world):
    world.put(1, 2)
    pump = world.pump()
    pump.step()
    world.tape.away = True
    assert pump.commit()
    assert world.ids() == [1, 2]


def test_a_truncated_tape_is_refused_by_name(world):
    partition = committed(world, 1, 2, 3)
    world.tape.truncate(partition, 2)
    assert refused(world) is Reason.TAPE_TRUNCATED


def test_a_tape_whose_retention_overtook_the_lake_is_refused_by_name(world):
    partition = committed(world, 1, 2)
    world.put(3, 4, 5)
    world.tape.remove_before(partition, 3)
    assert refused(world) is Reason.RETENTION_OVERTOOK


def test_retention_of_what_is_committed_is_fine(world):
    partition = committed(world, 1, 2)
    world.put(3)
    world.tape.remove_before(partition, 2)
    pump = world.pump("w2")
    pump.step()
    pump.commit()
    assert world.ids() == [1, 2, 3]


@pytest.mark.parametrize("look", [1, 2])
def test_a_commit_between_the_looks_at_lake_and_tape_is_no_contradiction(world, look):
    partition = committed(world, 1)

    def meanwhile():
        world.put(2, 3)
        other = world.committer("other", tape=world.identity)
        other.commit([piece(partition, [2, 3], start=1, state=other.base()[1][partition])])
        world.tape.remove_before(partition, 3)

    class Busy(FaultyCatalog):
        looks = 0

        def load_table(self, identifier):
            self.looks += 1
            if self.looks == look:
                meanwhile()
            return super().load_table(identifier)

    pump = world.pump("w2", catalog=Busy(world.catalog))
    pump.step()
    assert pump.stats.positions[partition] == 3


def test_lag_is_the_age_of_what_is_not_committed():
    assert WriterStats().lag_s(100.0) == 0.0
    assert WriterStats(oldest_pending_s=90.0).lag_s(100.0) == 10.0
    assert WriterStats(oldest_pending_s=90.0, behind_since_s=40.0).lag_s(100.0) == 60.0


def test_the_writer_knows_that_it_is_behind(world):
    pump = world.pump(commit_interval_s=100)
    pump.step()
    world.put(1, 2)
    world.clock.advance(limits.LAG_LOOK_S)
    pump.step()  # sees the end of the tape
    world.clock.advance(5)
    world.put(3, 4)
    pump.step()
    assert pump.stats.lag_s(world.clock.monotonic_s()) == pytest.approx(5)
    assert pump.commit()
    pump.step()
    assert pump.stats.behind_since_s is None


def failing_parquet(monkeypatch, *trade_ids):
    """Rows with these ids cannot become a file."""
    real = writer_module._parquet

    def parquet(rows):
        if set(trade_ids) & set(rows.column("trade_id").to_pylist()):
            raise OverflowError("nobody foresaw this")
        return real(rows)

    monkeypatch.setattr(writer_module, "_parquet", parquet)


def test_a_row_that_cannot_become_a_file_is_a_letter_and_its_neighbours_are_rows(
    world, monkeypatch
):
    failing_parquet(monkeypatch, 3)
    world.put(1, 2, 3, 4)
    world.put(1, 2, symbol="ETHUSDT")
    pump = world.pump()
    pump.step()
    assert not pump.commit()
    for _ in range(3):
        pump.step()
        pump.commit()
    assert (world.ids(), world.ids("ETHUSDT")) == ([1, 2, 4], [1, 2])
    assert [(one.offset, one.fault) for one in world.tape.letters] == [(2, Fault.INTERNAL)]
    assert world.tape.letters[0].value == message(3)
    assert world.verified()["ok"], "the letter is taken at its word"


def test_what_no_row_is_to_blame_for_ends_the_writer(world, monkeypatch):
    def swing(*_):
        raise OverflowError("not while rows become files")

    pump = world.pump()
    world.put(1, 2)
    pump.step()
    monkeypatch.setattr(commit_module, "append", swing)
    with pytest.raises(OverflowError):
        pump.commit()
    assert world.tape.letters == []


# --- days ---------------------------------------------------------------------------------------


def test_a_commit_takes_rows_of_so_many_days_and_the_next_the_rest(world, monkeypatch):
    monkeypatch.setattr(limits, "COMMIT_DAYS_MAX", 3)
    now_us = world.clock.now_us() // DAY_US * DAY_US
    for number in range(8):
        world.put(number, at=now_us - number * DAY_US)
        world.put(number, symbol="ETHUSDT", at=now_us - number * DAY_US)
    pump = world.pump()
    pump.step()
    days, left = [], True
    while left:
        before = {path for path in world.on_disk() if path.endswith(".parquet")}
        assert pump.commit()
        days.append(len({path for path in world.on_disk() if path.endswith(".parquet")} - before))
        left = pump._left
        assert not left or pump._due(), "the rest follows at once"
    assert max(days) <= 3
    assert len(days) >= 3
    assert world.ids() == world.ids("ETHUSDT") == list(range(8))
    assert world.verified()["ok"]


def test_rows_of_ever_new_days_do_not_keep_other_partitions_from_their_commit(world, monkeypatch):
    monkeypatch.setattr(limits, "COMMIT_DAYS_MAX", 3)
    now_us = world.clock.now_us() // DAY_US * DAY_US
    for number in range(12):
        many = world.put(number, at=now_us - (12 - number) * DAY_US)
    few = world.put(1, symbol="ETHUSDT", at=now_us)
    assert few > many, "it would come last"
    pump = world.pump()
    pump.step()
    pump.commit()
    assert world.snapshots.current().positions[few] == 0
    pump.commit()
    assert world.snapshots.current().positions[few] == 1
    while pump._left:
        pump.commit()
    assert world.ids() == list(range(12))
    assert world.verified()["ok"]


def test_a_traced_batch_is_followed_to_its_snapshot(world):
    published = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2)]
    with recorded() as spans:
        for trade_id, traceparent in enumerate(published, 1):
            headers = {"traceparent": traceparent.encode()}
            world.tape.append(world.home[BTC], message(trade_id), headers=headers)
        world.put(3)
        pump = world.pump()
        pump.step()
        pump.commit()
        world.put(4)
        pump.step()
        pump.commit()  # of nothing that was traced
    fold, other_fold, commit, other_commit = spans()
    assert [span.name for span in spans()] == ["fold", "fold", "commit", "commit"]
    assert trace_of(fold) == trace_of(commit) == f"{1:032x}"
    assert trace_of(other_fold) == trace_of(other_commit) == f"{2:032x}"
    assert (parent_of(fold), parent_of(commit)) == (f"{1:016x}", span_id_of(fold))
    assert links_of(other_commit) == [span_id_of(commit)]
    assert fold.attributes["messaging.batch.message_count"] == 3
    newest, traced = world.snapshots.list()
    assert commit.attributes["k2.rows"] == 3
    assert commit.attributes["k2.positions"] == traced.positions.encode()
    assert commit.attributes["k2.snapshot_id"] == str(traced.snapshot_id)
    expected = [f"00-{trace_of(each)}-{span_id_of(each)}-01" for each in (commit, other_commit)]
    assert (traced.traceparents.split(","), newest.traceparents) == (expected, "")
    assert f'trace_id="{trace_of(commit)}"' in generate_latest(EVENTS).decode()
    assert "k2.traceparent" not in world.table.properties
    paths = [stat.path for stat in world.snapshots.files(newest.snapshot_id)]
    assert len(paths) == 2
    assert list(world.snapshots.traces(paths)) == expected
    assert world.snapshots.traces(paths[:0]) == ()


def test_a_batch_is_cut_with_its_traces(world):
    for trade_id in (1, 2):
        headers = {"traceparent": b"%d" % trade_id}
        world.tape.append(0, message(trade_id), headers=headers)
    batch = world.tape.batch(0, 0, 9)
    assert batch.traces == ((0, "1"), (1, "2"))
    assert batch.between(0, 1).traces == ((0, "1"),)
    assert batch.from_offset(1).traces == ((1, "2"),)
