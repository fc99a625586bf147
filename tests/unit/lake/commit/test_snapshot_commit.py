from pathlib import Path

import pytest

from k2 import limits
from k2.lake.commit.snapshot_commit import find_commit, snapshots_to_expire
from k2.lake.iceberg.catalog import local_path
from tests.support.lake_world import FaultyCatalog, piece


def commits(lake, count, writer=None, start=0, state=None):
    """So many commits of one row each; the last outcome."""
    writer = writer or lake.committer()
    for number in range(start, start + count):
        outcome = writer.commit([piece(0, [number], start=number, state=state)])
        state = outcome.states[0]
    return outcome


def metadata_files(lake):
    return list(Path(local_path(lake.table.location()), "metadata").glob("*.metadata.json"))


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(limits, "MANIFESTS_TO_MERGE", 3)
    monkeypatch.setattr(limits, "SNAPSHOTS_KEPT_MAX", 5)
    monkeypatch.setattr(limits, "SNAPSHOTS_NEWEST_KEPT", 4)
    monkeypatch.setattr(limits, "MANIFEST_CLASSES", 2)


def test_manifests_are_merged_by_size(lake, few):
    writer, state, counts = lake.committer(), None, []
    for number in range(20):
        state = commits(lake, 1, writer, number, state).states[0]
        manifests = lake.table.current_snapshot().manifests(lake.table.io)
        counts.append(
            sorted((m.added_files_count or 0) + (m.existing_files_count or 0) for m in manifests)
        )
    assert counts[:5] == [[1], [1, 1], [3], [1, 3], [1, 1, 3]]
    assert all(sum(each) == number + 1 for number, each in enumerate(counts))
    assert max(map(len, counts)) <= 6
    assert len(lake.rows()) == 20
    assert len(lake.snapshots.files(lake.snapshots.current().snapshot_id)) == 20


def test_snapshots_are_bounded_and_the_newest_stay(lake, few):
    outcome = commits(lake, 9)
    kept = lake.snapshots.list()
    assert len(kept) == 5
    assert kept[0] == outcome.snapshot
    assert [one.positions[0] for one in kept] == [9, 8, 7, 6, 5]
    assert len(lake.table.metadata.snapshots) == 5


def test_a_tagged_snapshot_stays(lake, few):
    first = commits(lake, 1)
    with lake.table.manage_snapshots() as manage:
        manage.create_tag(first.snapshot.snapshot_id, "audit")
    commits(lake, 9, lake.committer("w2"), 1, first.states[0])
    ids = {one.snapshot_id for one in lake.table.metadata.snapshots}
    assert first.snapshot.snapshot_id in ids
    assert len(ids) == 6
    scan = lake.table.scan(snapshot_id=first.snapshot.snapshot_id)
    assert scan.to_arrow().num_rows == 1


def test_a_tag_made_while_a_commit_is_prepared_is_not_lost(lake, few):
    outcome = commits(lake, 1)

    def tag():
        with lake.table.manage_snapshots() as manage:
            manage.create_tag(outcome.snapshot.snapshot_id, "audit")

    latest = commits(lake, 4, lake.committer("w2"), 1, outcome.states[0])
    catalog = FaultyCatalog(lake.catalog, before=tag)
    commits(lake, 1, lake.committer("w3", catalog), 5, latest.states[0])  # it would drop the first
    assert catalog.commits == 2
    assert lake.table.metadata.refs["audit"].snapshot_id == outcome.snapshot.snapshot_id
    assert lake.table.scan(snapshot_id=outcome.snapshot.snapshot_id).to_arrow().num_rows == 1


def test_snapshots_are_found_though_the_middle_is_dropped(lake, monkeypatch):
    monkeypatch.setattr(limits, "SNAPSHOTS_NEWEST_KEPT", 2)
    monkeypatch.setattr(limits, "SNAPSHOTS_KEPT_MAX", 8)
    writer, state, made = lake.committer(), None, []
    for number in range(10):
        lake.clock.advance(61 if number < 6 else 1)
        state = (outcome := commits(lake, 1, writer, number, state)).states[0]
        made.append(outcome.snapshot)
    kept = [one.snapshot_id for one in lake.snapshots.list()]
    assert len(kept) == 8
    assert kept == [one.snapshot_id for one in made[::-1] if one.snapshot_id in kept]
    assert kept[-5:] == [one.snapshot_id for one in made[4::-1]]
    assert lake.snapshots.as_of(made[2].committed_at_us).commit_id == "w1-3"
    gone = next(one for one in made if one.snapshot_id not in kept)
    before = lake.snapshots.as_of(gone.committed_at_us)
    assert before.committed_at_us < gone.committed_at_us
    assert before.snapshot_id in kept
    assert find_commit(lake.table.metadata, "w1-2") is not None


def test_old_metadata_files_are_removed(lake, monkeypatch):
    with lake.table.transaction() as transaction:
        transaction.set_properties({"write.metadata.previous-versions-max": "3"})
    commits(lake, 10)
    assert len(metadata_files(lake)) == 4


def test_metadata_that_is_gone_already_harms_no_one(lake):
    with lake.table.transaction() as transaction:
        transaction.set_properties({"write.metadata.previous-versions-max": "2"})
    outcome = commits(lake, 3)
    current = Path(local_path(lake.table.metadata_location))
    for path in metadata_files(lake):
        if path != current:
            path.unlink()
    assert commits(lake, 3, lake.committer("w2"), 3, outcome.states[0]).landed == {0}


def test_every_snapshot_reads_as_it_was(lake, few):
    writer, state, seen = lake.committer(), None, []
    for number in range(5):
        outcome = commits(lake, 1, writer, number, state)
        state = outcome.states[0]
        seen.append(outcome.snapshot.snapshot_id)
    for number, snapshot_id in enumerate(seen):
        rows = lake.table.scan(snapshot_id=snapshot_id).to_arrow()
        assert sorted(rows["trade_id"].to_pylist()) == list(range(number + 1))


def test_totals_add_up(lake):
    commits(lake, 3)
    snapshot = lake.snapshots.current()
    assert (snapshot.rows_total, snapshot.rows_added, snapshot.files_total) == (3, 1, 3)
    files = lake.snapshots.files(snapshot.snapshot_id)
    assert snapshot.bytes_total == sum(file.size_bytes for file in files)


def test_a_commit_is_found_by_its_id(lake):
    commits(lake, 3)
    metadata = lake.table.metadata
    assert find_commit(metadata, "w1-2").summary["k2.positions"] == "0:2,0,0,0"
    assert find_commit(metadata, "w1-4") is None


def test_pyiceberg_can_go_on_where_k2_wrote(lake):
    commits(lake, 2)
    extra = lake.table.scan().to_arrow().slice(0, 1)
    lake.table.append(extra)
    assert lake.table.scan().to_arrow().num_rows == 3
    assert lake.snapshots.current().positions.offsets == (2, 0, 0, 0)


SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = 1_790_000_000 * SECOND


def test_of_each_bucket_the_last_stays(monkeypatch):
    monkeypatch.setattr(limits, "SNAPSHOTS_KEPT_MAX", 80)
    midnight = NOW // DAY * DAY
    commits = {number: midnight - 20 * DAY + number * 600 * SECOND for number in range(20 * 144)}
    gone = set(snapshots_to_expire(commits, midnight))
    kept = [at for number, at in commits.items() if number not in gone]
    assert len(kept) == 80
    for days in range(3, 10):
        of_day = [at for at in kept if (midnight - at - 1) // DAY == days]
        assert of_day == [midnight - days * DAY - 600 * SECOND]


def test_the_oldest_go_where_buckets_alone_leave_too_many(monkeypatch):
    monkeypatch.setattr(limits, "SNAPSHOTS_KEPT_MAX", 25)
    commits = {number: NOW - (60 - number) * DAY for number in range(60)}
    gone = snapshots_to_expire(commits, NOW)
    kept = sorted(set(commits) - set(gone))
    assert len(kept) == 25
    assert kept[-20:] == list(range(40, 60))
    assert gone == sorted(gone)


def test_where_there_is_room_the_newest_fill_it():
    commits = {number: NOW - (300 - number) * 2 * SECOND for number in range(300)}
    gone = snapshots_to_expire(commits, NOW)
    kept = sorted(set(commits) - set(gone))
    assert len(kept) == limits.SNAPSHOTS_KEPT_MAX
    assert kept[-110:] == list(range(190, 300))


def test_few_all_stay():
    commits = {number: NOW - number for number in range(limits.SNAPSHOTS_KEPT_MAX)}
    assert snapshots_to_expire(commits, NOW) == []
    assert snapshots_to_expire({}, NOW) == []
