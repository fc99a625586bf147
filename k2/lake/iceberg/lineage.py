"""The history of the main branch, as far as it is kept.

Snapshots are dropped from the middle of the history too (`thinning.py`), and then parents no longer
lead from the newest to the oldest: a child of a dropped snapshot has no parent any more. The
table's snapshot log goes on: it names whatever was ever the head of the main branch and is kept.
So where a parent is missing, history goes on with the newest head of before, by sequence number,
which never goes back (times may be equal to it only as far as clocks are right).
"""

from __future__ import annotations

from collections.abc import Iterator

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot


def ancestors_of(metadata: TableMetadata, snapshot: Snapshot | None) -> Iterator[Snapshot]:
    """A snapshot of the main branch and those kept before it, newest first."""
    if snapshot is None:
        return
    yield snapshot
    by_id = {one.snapshot_id: one for one in metadata.snapshots}
    heads = sorted(
        (by_id[one] for one in {entry.snapshot_id for entry in metadata.snapshot_log} & {*by_id}),
        key=_sequence,
        reverse=True,
    )
    while snapshot is not None:
        before = _sequence(snapshot)
        parent = by_id.get(snapshot.parent_snapshot_id or 0)
        snapshot = parent or next((one for one in heads if _sequence(one) < before), None)
        if snapshot is not None:
            yield snapshot


def _sequence(snapshot: Snapshot) -> int:
    return snapshot.sequence_number or 0
