"""Which snapshots are dropped when there are too many: ever more of them the older they get. Pure.

A commit rewrites the metadata of all snapshots that are kept, so they are bounded; and whoever asks
"as of" a time wants answers close to it, the closer the more recent it is. So time is divided into
buckets that are the wider the longer ago they are, and of each the *last* snapshot has a place: as
of midnight is answered by the last commit before midnight. Whatever room is left is for the newest
of the others, so that for minutes every commit can be asked for.

A bucket counts as a whole: its width follows from the age of its end. Each width is a multiple of
the one before, so the last of a wide bucket was the last of every narrower one in it. Hence it does
not matter when or how often snapshots were dropped before: what has a place now always had one
(`tests/property/test_thin.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from k2 import limits

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

# Buckets that ended so long ago (seconds) are so wide (seconds).
TIERS = (
    (0, _MINUTE),
    (5 * _MINUTE, 5 * _MINUTE),
    (30 * _MINUTE, 15 * _MINUTE),
    (2 * _HOUR, _HOUR),
    (12 * _HOUR, 4 * _HOUR),
    (2 * _DAY, _DAY),
    (10 * _DAY, 5 * _DAY),
    (60 * _DAY, 30 * _DAY),
    (360 * _DAY, 360 * _DAY),
)
assert all(wide % narrow == 0 for (_, narrow), (_, wide) in pairwise(TIERS))


def snapshots_to_expire(commits: Mapping[int, int], now_us: int) -> list[int]:
    """The snapshots to drop, oldest first.

    Args:
        commits: commit time of each snapshot that may be dropped, microseconds, by its id; those
            that a tag or a branch names are not among them.
        now_us: the time.

    Returns:
        Ids. What is left are at most `limits.SNAPSHOTS_KEPT_MAX`, the newest
        `limits.SNAPSHOTS_NEWEST_KEPT` among them; where there is no other way, the oldest that
        have a place go too.
    """
    ordered = sorted(commits, key=lambda one: (commits[one], one))
    excess = max(0, len(ordered) - limits.SNAPSHOTS_KEPT_MAX)
    older = ordered[: -limits.SNAPSHOTS_NEWEST_KEPT]
    placed = {*{_bucket(commits[one], now_us): one for one in older}.values()}
    others = [one for one in older if one not in placed]
    going = {*[*others, *(one for one in older if one in placed)][:excess]}
    return [one for one in older if one in going]


def _bucket(time_us: int, now_us: int) -> tuple[int, int]:
    """Width and number of the bucket that a time lies in."""
    time_s, now_s = time_us // 1_000_000, now_us // 1_000_000
    width = TIERS[0][1]
    for age, wider in TIERS:
        end = (time_s // wider + 1) * wider
        if end + age <= now_s:
            width = wider
    return width, time_s // width
