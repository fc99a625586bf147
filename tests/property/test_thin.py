"""Which snapshots stay: bounded, the newest, one of each bucket, and it never matters when."""

from hypothesis import given
from hypothesis import strategies as st

from k2 import limits
from k2.lake.commit.snapshot_commit import TIERS, snapshots_to_expire

SECOND = 1_000_000
NOW = 1_790_000_000 * SECOND

# Gaps between commits, from a second to some weeks, the short ones in runs.
gaps = st.lists(
    st.one_of(
        st.integers(1, 30),
        st.integers(60, 7200),
        st.integers(86_400, 3_000_000),
        st.lists(st.just(10), min_size=20, max_size=80),
    ),
    min_size=1,
    max_size=60,
)


def times(found):
    flat = [gap for each in found for gap in (each if isinstance(each, list) else [each])]
    at, result = NOW, []
    for gap in flat:
        at += gap * SECOND
        result.append(at)
    return result


def thinned(commits, now):
    gone = set(snapshots_to_expire(commits, now))
    return {one: at for one, at in commits.items() if one not in gone}


def history(found):
    """Commits by id, and what stayed when each commit dropped what it should."""
    everything, kept = {}, {}
    for number, at in enumerate(times(found)):
        everything[number] = kept[number] = at
        kept = thinned(kept, at)
        assert len(kept) <= limits.SNAPSHOTS_KEPT_MAX
    return everything, kept


def places(commits, now):
    """The last of each bucket and the newest, which have a place."""
    ordered = sorted(commits, key=commits.get)
    older = ordered[: -limits.SNAPSHOTS_NEWEST_KEPT]
    last = {}
    for one in older:
        width = TIERS[0][1] * SECOND
        for age, wide in TIERS:
            end = (commits[one] // (wide * SECOND) + 1) * wide * SECOND
            width = wide * SECOND if end + age * SECOND <= now else width
        last[width, commits[one] // width] = one
    return {*last.values(), *ordered[len(older) :]}


@given(gaps)
def test_what_has_a_place_is_there_whatever_was_dropped_before(found):
    everything, kept = history(found)
    assert places(everything, max(everything.values())) <= set(kept)


@given(gaps)
def test_dropping_twice_is_dropping_once(found):
    everything, kept = history(found)
    now = max(everything.values())
    assert thinned(kept, now) == kept
    once = thinned(everything, now)
    assert thinned(once, now) == once


@given(gaps, st.integers(0, 10**8))
def test_one_stays_soon_after_any_commit(found, later):
    _, kept = history(found)
    everything = dict(enumerate(times(found)))
    now = max(everything.values()) + later * SECOND
    kept = thinned(kept, now)
    for at in everything.values():
        width = max(wide for after, wide in TIERS if after * SECOND <= now - at)
        assert any(at <= one < at + width * SECOND for one in kept.values())


@given(st.integers(-(10**7), 10**7))
def test_a_clock_that_is_wrong_drops_no_more_than_it_may(skew):
    commits = {number: NOW + number * 10 * SECOND for number in range(200)}
    kept = thinned(commits, max(commits.values()) + skew * SECOND)
    assert limits.SNAPSHOTS_NEWEST_KEPT <= len(kept) <= limits.SNAPSHOTS_KEPT_MAX
    assert 199 in kept


def test_a_week_of_commits_is_bounded_and_can_be_asked_about():
    """A commit a minute; of each day, and each hour of the last, the last is there."""
    kept, everything = {}, {}
    for number in range(7 * 1440):
        at = NOW + number * 60 * SECOND
        everything[number] = kept[number] = at
        if gone := snapshots_to_expire(kept, at):
            for one in gone:
                del kept[one]
        assert len(kept) <= limits.SNAPSHOTS_KEPT_MAX
    end, times_kept = at, set(kept.values())
    day, hour = 86_400 * SECOND, 3600 * SECOND
    for midnight in range(NOW // day * day + day, end, day):
        assert max(one for one in everything.values() if one < midnight) in times_kept
    for full in range((end - 10 * hour) // hour * hour, end, hour):
        assert max(one for one in everything.values() if one < full) in times_kept
