"""What tests of the wire share: a board in memory, snapshots, a server on a free port."""

import contextlib
import threading

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from k2.clock import SystemClock
from k2.lake.iceberg.epochs import EpochHistory
from k2.lake.iceberg.snapshot import LakeSnapshot
from k2.market.offsets import OffsetVector
from servers.services.grpc_server import GrpcServer

LISTEN = "127.0.0.1:0"


class MemoryBoard:
    """A board that is a dictionary; what it begins with comes when somebody listens."""

    def __init__(self, notices=None):
        self._notices = dict(notices or {})
        self._listeners = []
        self._changed = threading.Condition()
        self._version = 0

    def put(self, key, value, wait_s=None):
        with self._changed:
            self._notices[key] = value
            if value is None:
                del self._notices[key]
            self._version += 1
            self._changed.notify_all()
        for told in self._listeners:
            told(key)

    def listen(self, told):
        self._listeners.append(told)
        for key in self._notices:
            told(key)

    def current(self):
        with self._changed:
            return dict(self._notices)

    @property
    def version(self):
        return self._version

    def wait_change(self, version, timeout_s):
        with self._changed:
            self._changed.wait_for(lambda: self._version > version, timeout_s)
            return self._version


def beat(process="lake", **more):
    """A heartbeat as it stands on the board."""
    return {
        "process": process,
        "pid": 7,
        "run_id": "r",
        "state": "SERVING",
        "level": "NORMAL",
        "signals": {"rss_bytes": 5.0},
        "pressures": {"rss_bytes": 0.0},
        "addresses": {"grpc": "127.0.0.1:1"},
        "counters": {},
        "at_us": SystemClock().now_us(),
    } | more


def lake_snapshot(number=1, committed_at_us=None):
    return LakeSnapshot(
        snapshot_id=2**62 + number,
        parent_id=2**62 + number - 1 if number > 1 else None,
        committed_at_us=committed_at_us or 1_700_000_000_000_000 + number,
        positions=OffsetVector(0, (number, 0)),
        counters={0: (number, 0, 0), 1: (0, 0, 0)},
        state_path="state",
        epochs=EpochHistory(),
        topic="market.trades",
        topic_id="topic",
        cluster_id="cluster",
        writer_id="writer",
        commit_id=f"commit-{number}",
        operation="append",
        rows_total=number,
        rows_added=1,
        files_total=number,
        bytes_total=100 * number,
    )


@contextlib.contextmanager
def served(*registrations, ready=True):
    """A server of (name, register) pairs on a free port, and a channel to it."""
    listener = GrpcServer(LISTEN, dict(registrations), SystemClock())
    listener.start()
    if ready:
        listener.ready()
    channel = grpc.insecure_channel(listener.address)
    try:
        yield listener, channel
    finally:
        channel.close()
        listener.drain()


def reason_of(error):
    """Code and reason of a failed call."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status is not None, error
    assert status.details[0].Unpack(info)
    assert info.domain == "k2"
    assert "Traceback" not in status.message
    return error.code().name, info.reason
