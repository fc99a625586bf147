from k2 import limits
from k2.lake.commit.thinning import snapshots_to_expire

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
