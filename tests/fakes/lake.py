"""A lake in memory, for those that only look at snapshots."""

from k2.errors import NotFound, Reason
from k2.lake.iceberg.epochs import EpochHistory
from k2.lake.iceberg.snapshot import LakeSnapshot
from k2.market.fold import RULES


def lake_snapshot(snapshot_id, positions, committed_at_us=0, retained_from_us=None, topic_id="1"):
    """A snapshot of which only these facts matter."""
    return LakeSnapshot(
        snapshot_id=snapshot_id,
        parent_id=None,
        committed_at_us=committed_at_us,
        positions=positions,
        counters={},
        state_path="",
        topic="t",
        topic_id=topic_id,
        cluster_id="",
        writer_id="",
        commit_id="",
        operation="append",
        rows_total=0,
        rows_added=0,
        files_total=0,
        bytes_total=0,
        retained_from_us=retained_from_us,
        epochs=EpochHistory(rules=RULES),
    )


class FakeSnapshots:
    """`SnapshotReader` over a list; `failure`, when set, is what every call raises."""

    def __init__(self):
        self._kept = []
        self.failure = None
        self.reads = 0
        self.traced = ()  # the traceparents of the commits that wrote any file

    def commit(self, snapshot, files, states):
        self._kept.append((snapshot, tuple(files), dict(states)))

    def expire(self, snapshot_id):
        self._kept = [kept for kept in self._kept if kept[0].snapshot_id != snapshot_id]

    def current(self):
        self._look()
        return self._kept[-1][0] if self._kept else None

    def get(self, snapshot_id):
        return self._find(snapshot_id)[0]

    def as_of(self, time_us):
        self._look()
        for snapshot, _, _ in reversed(self._kept):
            if snapshot.committed_at_us <= time_us:
                return snapshot
        raise NotFound(Reason.UNKNOWN_SNAPSHOT, "none that old")

    def covering(self, positions):
        self._look()
        kept = [one for one, _, _ in self._kept if one.positions.covers(positions)]
        return kept[0] if kept else None

    def files(self, snapshot_id):
        return self._find(snapshot_id)[1]

    def states(self, snapshot):
        return self._find(snapshot.snapshot_id)[2]

    def traces(self, paths):
        return self.traced if list(paths) else ()

    def _find(self, snapshot_id):
        self._look()
        for kept in self._kept:
            if kept[0].snapshot_id == snapshot_id:
                return kept
        raise NotFound(Reason.UNKNOWN_SNAPSHOT, f"no snapshot {snapshot_id}")

    def _look(self):
        self.reads += 1
        if self.failure:
            raise self.failure
