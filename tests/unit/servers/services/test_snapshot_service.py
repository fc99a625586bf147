"""SnapshotService over a real socket, on snapshots in memory."""

import threading

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from k2.errors import NotFound, Reason
from k2.v1 import snapshot_service_pb2 as pb
from k2.v1 import snapshot_service_pb2_grpc as rpc
from servers.services import snapshot_service
from servers.services.snapshot_service import SnapshotService
from tests.fakes.wire import lake_snapshot, reason_of, served


class MemorySnapshots:
    def __init__(self, *found):
        self.found = list(found)

    def list(self):
        return tuple(reversed(self.found))

    def current(self):
        return self.found[-1] if self.found else None

    def get(self, snapshot_id):
        for each in self.found:
            if each.snapshot_id == snapshot_id:
                return each
        raise NotFound(Reason.UNKNOWN_SNAPSHOT, "no")

    def as_of(self, time_us):
        for each in self.list():
            if each.committed_at_us <= time_us:
                return each
        raise NotFound(Reason.UNKNOWN_SNAPSHOT, "no")


@pytest.fixture
def lake():
    return MemorySnapshots(*map(lake_snapshot, range(1, 6)))


@pytest.fixture
def stub(lake):
    draining = threading.Event()
    service = SnapshotService(snapshots=lake, draining=draining)
    with served((snapshot_service.NAME, service.register)) as (_, channel):
        yield rpc.SnapshotServiceStub(channel)
        draining.set()


def ids(snapshots):
    return [each.snapshot_id - 2**62 for each in snapshots]


def test_pages_walk_the_history_newest_first(stub, lake):
    first = stub.ListSnapshots(pb.ListSnapshotsRequest(page_size=2))
    lake.found.append(lake_snapshot(6))
    second = stub.ListSnapshots(
        pb.ListSnapshotsRequest(page_size=9, page_token=first.next_page_token)
    )
    assert ids(first.snapshots) + ids(second.snapshots) == [5, 4, 3, 2, 1]
    assert second.next_page_token == ""


def test_a_snapshot_keeps_all_it_carries(stub):
    found = stub.GetSnapshot(pb.GetSnapshotRequest(snapshot_id=2**62 + 3)).snapshot
    assert found.snapshot_id == 2**62 + 3
    assert found.parent_id == 2**62 + 2
    assert found.commit_time.ToMicroseconds() == 1_700_000_000_000_003
    assert list(found.positions.offsets) == [3, 0]
    assert [each.accepted for each in found.counters] == [3, 0]
    assert (found.operation, found.commit_id, found.bytes_total) == ("append", "commit-3", 300)


def test_the_current_one_and_the_one_of_a_time(stub):
    assert ids([stub.GetSnapshot(pb.GetSnapshotRequest()).snapshot]) == [5]
    time = Timestamp(seconds=1_700_000_000, nanos=2_999)
    request = pb.GetSnapshotRequest(as_of_time=time)
    assert ids([stub.GetSnapshot(request).snapshot]) == [2]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.GetSnapshotRequest(snapshot_id=7), ("NOT_FOUND", "UNKNOWN_SNAPSHOT")),
        (pb.GetSnapshotRequest(as_of_time=Timestamp(seconds=1)), ("NOT_FOUND", "UNKNOWN_SNAPSHOT")),
        (
            pb.GetSnapshotRequest(as_of_time=Timestamp(seconds=2**60)),
            ("INVALID_ARGUMENT", "BAD_REQUEST"),
        ),
        (pb.ListSnapshotsRequest(page_token="?"), ("INVALID_ARGUMENT", "BAD_PAGE_TOKEN")),
        (pb.ListSnapshotsRequest(page_size=-1), ("INVALID_ARGUMENT", "BAD_REQUEST")),
    ],
)
def test_bad_requests_have_reasons(stub, request_, expected):
    listing = isinstance(request_, pb.ListSnapshotsRequest)
    with pytest.raises(grpc.RpcError) as caught:
        (stub.ListSnapshots if listing else stub.GetSnapshot)(request_)
    assert reason_of(caught.value) == expected


def test_an_empty_lake(stub, lake):
    lake.found.clear()
    assert not stub.ListSnapshots(pb.ListSnapshotsRequest()).snapshots
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetSnapshot(pb.GetSnapshotRequest())
    assert reason_of(caught.value) == ("NOT_FOUND", "UNKNOWN_SNAPSHOT")
    watch = stub.WatchSnapshots(pb.WatchSnapshotsRequest())
    assert not next(watch).HasField("snapshot")
    lake.found.append(lake_snapshot(1))
    assert ids([next(watch).snapshot]) == [1]


def test_a_watch_starts_with_the_current_and_misses_none(stub, lake):
    watch = stub.WatchSnapshots(pb.WatchSnapshotsRequest())
    assert ids([next(watch).snapshot]) == [5]
    lake.found.extend([lake_snapshot(6), lake_snapshot(7)])
    assert ids([next(watch).snapshot, next(watch).snapshot]) == [6, 7]


def test_a_watch_resumes(stub):
    watch = stub.WatchSnapshots(pb.WatchSnapshotsRequest(after_snapshot_id=2**62 + 2))
    assert ids([next(watch).snapshot for _ in range(3)]) == [3, 4, 5]
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.WatchSnapshots(pb.WatchSnapshotsRequest(after_snapshot_id=5)))
    assert reason_of(caught.value) == ("NOT_FOUND", "UNKNOWN_SNAPSHOT")


def test_a_watch_ends_when_the_server_drains(lake):
    draining = threading.Event()
    service = SnapshotService(snapshots=lake, draining=draining)
    with served((snapshot_service.NAME, service.register)) as (_, channel):
        watch = rpc.SnapshotServiceStub(channel).WatchSnapshots(pb.WatchSnapshotsRequest())
        next(watch)
        draining.set()
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
    assert reason_of(caught.value) == ("UNAVAILABLE", "DRAINING")
