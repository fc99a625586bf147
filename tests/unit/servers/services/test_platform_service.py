"""PlatformService over a real socket: status, masked settings, verification as a child."""

import json
import sys

import grpc
import pytest

from k2.clock import SystemClock
from k2.degrade.level import Level
from k2.settings import load
from k2.tape.topics import TopicSize
from k2.v1 import degradation_service_pb2, market_pb2
from k2.v1 import platform_service_pb2 as pb
from k2.v1 import platform_service_pb2_grpc as rpc
from servers.heartbeat import Heartbeats
from servers.local.stack_file import holding
from servers.services import platform_service
from servers.services.platform_service import Observed, PlatformService, Probe
from tests.fakes.wire import MemoryBoard, beat, reason_of, served
from tests.support.eventually import eventually

PROGRESS = {"event": "progress", "message": "folding", "done": 5, "total": 9}
RESULT = {"event": "result", "message": "all agree", "ok": True}


def child(*lines, code=0):
    """A command that prints `lines` and exits with `code`."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return [sys.executable, "-c", f"print({text!r}, end=''); raise SystemExit({code})"]


def service(command=(), board=None, alive=True, level=Level.NORMAL, **settings):
    board = board or MemoryBoard({"lake": beat(), "query": beat("query")})
    made = PlatformService(
        observed=Observed(
            heartbeats=Heartbeats(board, SystemClock()),
            level=lambda: level,
            probes=[Probe("broker", {"kafka": "127.0.0.1:9092"}, lambda: alive)],
            topics=lambda: [TopicSize("trades", 8, 900, 1500), TopicSize("gaps", 1, 3, 3)],
        ),
        settings=load(**{"feed": {"source": "simulated"}} | settings),
        version="1.2.3",
        clock=SystemClock(),
        command=command,
    )
    return platform_service.NAME, made.register


def status(**more):
    with served(service(**more)) as (_, channel):
        return rpc.PlatformServiceStub(channel).GetStatus(pb.GetStatusRequest())


def verified(verify):
    with served(service(verify)) as (_, channel):
        return list(rpc.PlatformServiceStub(channel).VerifyIntegrity(pb.VerifyIntegrityRequest()))


def test_status_has_every_component():
    found = status()
    assert found.state == pb.COMPONENT_STATE_SERVING
    assert (found.version, found.source) == ("1.2.3", market_pb2.DATA_SOURCE_SIMULATED)
    assert [each.name for each in found.components] == ["broker", "lake", "query"]
    assert found.components[0].addresses == {"kafka": "127.0.0.1:9092"}
    assert (found.components[1].pid, found.components[1].run_id) == (7, "r")


def test_status_has_the_level_that_holds():
    soft = degradation_service_pb2.DEGRADATION_LEVEL_SOFT
    assert status(level=Level.SOFT).level == soft


def test_status_is_that_of_the_worst():
    assert status(alive=False).state == pb.COMPONENT_STATE_LOST
    draining = MemoryBoard({"lake": beat(state="DRAINING"), "query": beat("query")})
    assert status(board=draining).state == pb.COMPONENT_STATE_DRAINING
    odd = MemoryBoard({"lake": beat(state="UNKNOWN")})
    assert status(board=odd).state == pb.COMPONENT_STATE_LOST


def test_a_part_that_its_supervisor_gave_up_is_failing(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    parts = [{"name": "broker", "state": "FAILING"}, {"name": "lake", "state": "SERVING"}]
    (folder / "stack.json").write_text(json.dumps({"processes": parts}))
    with holding(folder, SystemClock()):
        found = status(data_dir=tmp_path)
    states = {each.name: each.state for each in found.components}
    assert states["broker"] == found.state == pb.COMPONENT_STATE_FAILING
    assert states["lake"] == pb.COMPONENT_STATE_SERVING


def test_topics_have_their_sizes():
    with served(service()) as (_, channel):
        found = rpc.PlatformServiceStub(channel).ListTopics(pb.ListTopicsRequest())
    assert [(each.name, each.partitions) for each in found.topics] == [("trades", 8), ("gaps", 1)]
    assert (found.topics[0].messages, found.topics[0].messages_written) == (900, 1500)
    assert found.time.seconds > 0


def test_settings_are_listed_and_secrets_masked(tmp_path):
    with served(service(data_dir=tmp_path, ticket_key="hush" * 5)) as (_, channel):
        found = rpc.PlatformServiceStub(channel).GetSettings(pb.GetSettingsRequest()).settings
    values = {each.name: json.loads(each.value) for each in found}
    assert values["ticket_key"] == "********"
    assert values["lake.commit_interval_s"] == 10.0
    assert values["feed.symbols"][:3] == ["BTCUSDT", "ETHUSDT", "BNBUSDT"]
    assert values["data_dir"] == str(tmp_path)
    assert list(values) == sorted(values)
    assert "hush" not in str(found)


def test_verification_streams_progress_then_the_result():
    first, last = verified(child(PROGRESS, RESULT))
    assert (first.progress.message, first.progress.done, first.progress.total) == ("folding", 5, 9)
    assert last.result.ok
    assert json.loads(last.result.report_json) == RESULT


def test_disagreement_is_a_result():
    (last,) = verified(child(RESULT | {"message": "one row is lost"}, code=1))
    assert (last.result.ok, last.result.exit_code) == (False, 1)
    assert last.result.message == "one row is lost"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([{"event": "failed", "reason": "TAPE_UNAVAILABLE"}], ("UNAVAILABLE", "TAPE_UNAVAILABLE")),
        ([{"event": "failed", "reason": "LAKE_CORRUPT"}], ("DATA_LOSS", "LAKE_CORRUPT")),
        ([{"event": "failed", "reason": "?"}], ("INTERNAL", "INTERNAL")),
        ([PROGRESS, "no object"], ("INTERNAL", "INTERNAL")),
        ([], ("INTERNAL", "INTERNAL")),
    ],
)
def test_what_keeps_it_from_verifying_is_an_error(lines, expected):
    with pytest.raises(grpc.RpcError) as caught:
        verified(child(*lines, code=1))
    assert reason_of(caught.value) == expected


def endless(before=""):
    """A child that says that it works, and goes on until it is ended."""
    progress = json.dumps({"event": "progress"})
    script = (
        f"{before}import threading; print({progress!r}, flush=True); threading.Event().wait(99)"
    )
    return [sys.executable, "-c", script]


@pytest.mark.parametrize("deaf", ["", "import signal; signal.signal(15, signal.SIG_IGN); "])
def test_one_at_a_time_and_cancelling_ends_the_child(deaf):
    with served(service(endless(deaf))) as (_, channel):
        stub = rpc.PlatformServiceStub(channel)
        running = stub.VerifyIntegrity(pb.VerifyIntegrityRequest())
        next(running)
        with pytest.raises(grpc.RpcError) as second:
            list(stub.VerifyIntegrity(pb.VerifyIntegrityRequest()))
        assert reason_of(second.value) == ("RESOURCE_EXHAUSTED", "TOO_MANY_QUERIES")
        running.cancel()

        def free_again():
            again = stub.VerifyIntegrity(pb.VerifyIntegrityRequest())
            try:
                next(again)
            except grpc.RpcError:
                return False
            again.cancel()
            return True

        eventually(free_again)


# --- maintenance ---------------------------------------------------------------------------------

MERGING = {"event": "progress", "message": "merging files", "done": 1, "total": 2}
MERGED = {"event": "result", "message": "16 files became 2", "merges": 2, "bytes_total": 2**40}


def maintained(maintain, name, request):
    with served(service(maintain)) as (_, channel):
        return list(getattr(rpc.PlatformServiceStub(channel), name)(request))


def saying_its_task(**fields):
    """A command that answers with the arguments it was given."""
    script = (
        "import json, sys; print(json.dumps("
        f"{{'event': 'result', 'message': ' '.join(sys.argv[1:]), **{fields!r}}}))"
    )
    return [sys.executable, "-c", script]


def test_merging_streams_progress_then_the_result():
    first, last = maintained(child(MERGING, MERGED), "Compact", pb.CompactRequest())
    assert (first.progress.message, first.progress.done, first.progress.total) == (
        "merging files",
        1,
        2,
    )
    assert (last.result.merges, last.result.bytes_total) == (2, 2**40)
    assert last.result.message == "16 files became 2"


def test_expiry_hands_its_time_on():
    command = saying_its_task(snapshots_dropped=4, files_waiting=7)
    request = pb.ExpireSnapshotsRequest()
    (found,) = maintained(command, "ExpireSnapshots", request)
    assert found.result.message == "maintain expire"
    assert (found.result.snapshots_dropped, found.result.files_waiting) == (4, 7)
    request.older_than_time.FromMicroseconds(1_700_000_000_000_001)
    (found,) = maintained(command, "ExpireSnapshots", request)
    assert found.result.message == "maintain expire 1700000000000001"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("LAKE_UNAVAILABLE", ("UNAVAILABLE", "LAKE_UNAVAILABLE")),
        ("DISK_FULL", ("RESOURCE_EXHAUSTED", "DISK_FULL")),
        ("LAKE_CORRUPT", ("DATA_LOSS", "LAKE_CORRUPT")),
    ],
)
def test_what_keeps_maintenance_from_its_work_is_an_error(reason, expected):
    failed = child({"event": "failed", "reason": reason}, code=1)
    with pytest.raises(grpc.RpcError) as caught:
        maintained(failed, "Compact", pb.CompactRequest())
    assert reason_of(caught.value) == expected


def test_maintenance_runs_one_at_a_time():
    with served(service(endless())) as (_, channel):
        stub = rpc.PlatformServiceStub(channel)
        running = stub.Compact(pb.CompactRequest())
        next(running)
        with pytest.raises(grpc.RpcError) as second:
            list(stub.ExpireSnapshots(pb.ExpireSnapshotsRequest()))
        assert reason_of(second.value) == ("RESOURCE_EXHAUSTED", "TOO_MANY_QUERIES")
        running.cancel()
