"""SnapshotService: the lake's history, read straight from the catalog."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import grpc

from k2.errors import NotFound, Reason, Unavailable
from k2.lake.iceberg.snapshot import LakeSnapshot, SnapshotReader
from k2.v1 import snapshot_service_pb2 as pb
from k2.v1 import snapshot_service_pb2_grpc as rpc
from servers.services.paging import page
from servers.services.wire_values import time_to, time_us_from, vector_to

NAME: Final = pb.DESCRIPTOR.services_by_name["SnapshotService"].full_name
_POLL_S: Final = 0.5
_ALIKE: Final = (
    *("rows_total", "rows_added", "files_total", "bytes_total", "operation"),
    *("writer_id", "commit_id", "topic_id", "cluster_id"),
)


class SnapshotService(rpc.SnapshotServiceServicer):
    """Implements `protos/k2/v1/snapshot_service.proto`.

    Args:
        snapshots: of the lake.
        draining: set when the server shuts down.
    """

    def __init__(self, *, snapshots: SnapshotReader, draining: threading.Event) -> None:
        self._snapshots = snapshots
        self._draining = draining

    def register(self, server: grpc.Server) -> None:
        """Serve on `server`."""
        rpc.add_SnapshotServiceServicer_to_server(self, server)

    def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: grpc.ServicerContext
    ) -> pb.ListSnapshotsResponse:
        """List the snapshots that are kept, newest first."""
        snapshots, token = page(
            self._snapshots.list(),
            lambda snapshot: -snapshot.committed_at_us,
            request.page_size,
            request.page_token,
        )
        return pb.ListSnapshotsResponse(snapshots=map(_snapshot, snapshots), next_page_token=token)

    def GetSnapshot(
        self, request: pb.GetSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.GetSnapshotResponse:
        """Return one snapshot, by id or by time, or the newest."""
        return pb.GetSnapshotResponse(snapshot=_snapshot(self._selected(request)))

    def _selected(self, request: pb.GetSnapshotRequest) -> LakeSnapshot:
        match request.WhichOneof("selector"):
            case "snapshot_id":
                return self._snapshots.get(request.snapshot_id)
            case "as_of_time":
                return self._snapshots.as_of(time_us_from(request.as_of_time, "as_of_time"))
        current = self._snapshots.current()
        if current is None:
            raise NotFound(Reason.UNKNOWN_SNAPSHOT, "the lake has no snapshot yet")
        return current

    def WatchSnapshots(
        self, request: pb.WatchSnapshotsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchSnapshotsResponse]:
        """Stream the newest snapshot and each later one, or those after a given one."""
        seen_us = self._resumed_at(request.after_snapshot_id)
        if seen_us is None:
            current = self._snapshots.current()
            seen_us = current.committed_at_us if current else 0
            yield _response(current)
        while context.is_active():
            for snapshot in reversed(self._snapshots.list()):
                if snapshot.committed_at_us > seen_us:
                    seen_us = snapshot.committed_at_us
                    yield _response(snapshot)
            if self._draining.wait(_POLL_S):
                raise Unavailable(Reason.DRAINING, "the server is shutting down")

    def _resumed_at(self, after_snapshot_id: int) -> int | None:
        if not after_snapshot_id:
            return None
        return self._snapshots.get(after_snapshot_id).committed_at_us


def _response(snapshot: LakeSnapshot | None) -> pb.WatchSnapshotsResponse:
    found = _snapshot(snapshot) if snapshot else None
    return pb.WatchSnapshotsResponse(snapshot=found)


def _snapshot(snapshot: LakeSnapshot) -> pb.Snapshot:
    return pb.Snapshot(
        snapshot_id=snapshot.snapshot_id,
        parent_id=snapshot.parent_id or 0,
        commit_time=time_to(snapshot.committed_at_us),
        positions=vector_to(snapshot.positions),
        counters=[
            pb.PartitionCounters(
                partition=partition, accepted=accepted, duplicate=duplicate, dead=dead
            )
            for partition, (accepted, duplicate, dead) in sorted(snapshot.counters.items())
        ],
        **{name: getattr(snapshot, name) for name in _ALIKE},
    )
