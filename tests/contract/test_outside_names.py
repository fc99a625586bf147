"""Names that exist outside the Python source, and must stay when code is moved or renamed.

Each expected value is written out here as stored data, other processes and users' programs know it.
Never change one to follow the code. What only a running stack shows (every topic's records, all
answers of `k2 … --json`, the events of `k2 up`, the files of a data directory) is held by
`tests/integration/servers/local/test_earlier_data.py` against a list in `tests/golden`.
"""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from k2 import settings, tracing
from k2.clock import ManualClock
from k2.degrade.level import Level
from k2.degrade.signals import Signal
from k2.errors import (
    Data,
    Internal,
    Invalid,
    K2Error,
    NotFound,
    Overloaded,
    Reason,
    Unavailable,
)
from k2.feed.gaps.backfill_request import FillRequest
from k2.feed.publish.coverage_topic import CoverageTopic
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.lake.iceberg import snapshot
from k2.lake.iceberg.epochs import EpochHistory
from k2.lake.iceberg.snapshot import CommitSummary
from k2.lake.iceberg.tables import ensure_lake
from k2.market import schema
from k2.market.events import Fault, Label
from k2.market.fold import FoldState, fold, to_table
from k2.market.instrument import Instrument, Tier
from k2.market.ledger import Cause, GapEvent, GapState
from k2.market.offsets import OffsetVector, ReadToken
from k2.query.request import RequestClass
from k2.settings import Settings
from k2.tape import topics
from k2.tape.dead_letter_topic import DeadLetter, headers_of
from k2.tape.partition_map import PartitionMap
from k2.v1 import query_service_pb2
from k2cli import main
from k2client import client, flights
from k2client import trades as client_trades
from servers.__main__ import MODULES, exit_code
from servers.flight import flight_server, flight_stream
from servers.heartbeat import Heart, Sample
from servers.local.artifacts import Artifact, Artifacts
from servers.local.stack_config import StackConfig
from servers.local.stack_file import Journal, ProcessRecord, StackRecord
from servers.local.stamp import Stamp, read_stamp, write_stamp
from servers.processes import lake
from servers.services import interceptors, read_token
from servers.services.ticket import Signer, signing_key
from servers.venue.market.synthetic_market import Segment
from servers.venue.state_files import write_segments
from tests.fakes.k2_server import K2Server
from tests.fakes.tape import FakeTape
from tests.support.data_dir import DataDir
from tests.support.lake_world import LakeWorld
from tests.support.letter_desk import Desk
from tests.support.outside_names import paths
from tests.support.trades import columns
from tests.support.writer_world import message

BTC = Instrument("BINANCE", "BTCUSDT")
TOPIC = "market.crypto.trades.binance"


# --- the tape -------------------------------------------------------------------------------------


def test_topics_and_what_they_keep():
    found = {
        new.topic: new.config.get("cleanup.policy", "delete")
        for new in topics.layout(Settings().tape)
    }
    assert found == {
        TOPIC: "delete",
        "k2.partitions": "compact",
        "k2.heartbeats": "compact",
        "k2.high-water": "compact",
        "k2.backfills": "compact",
        "k2.replays": "compact",
        "k2.degradation": "compact",
        "k2.gaps": "delete",
        "k2.dead-letters": "delete",
        "k2.transitions": "delete",
    }
    assert topics.subject(TOPIC) == f"{TOPIC}-value"


def test_where_the_context_of_a_trace_is_kept():
    assert tracing.HEADER == "traceparent"  # of calls and of records
    assert snapshot.TRACEPARENTS == "k2.traceparent"  # of a snapshot's summary


def test_the_writers_group_and_instance():
    assert (lake.GROUP, lake.INSTANCE) == ("k2-lake", "k2-lake-0")


def test_a_placement():
    tape = FakeTape()
    PartitionMap(tape.board("k2.partitions"), "TOPIC_ID", 2).place(BTC)
    assert tape.board("k2.partitions").read_all() == {"TOPIC_ID/BINANCE:BTCUSDT": {"partition": 0}}


def test_what_a_feed_has_had_acknowledged():
    tape, line = FakeTape(), InstrumentStream(BTC, 0, 90)
    line.sequence.observe(100)
    line.begun = False
    CoverageTopic(tape.board("k2.high-water"), "feed-2", "run").begin([line], 55, 1.0)
    assert tape.board("k2.high-water").read_all() == {
        "BINANCE:BTCUSDT@feed-2": {
            "began_after": 99,
            "trade_id": 99,
            "feed": "feed-2",
            "first_id": 100,
            "resumed_after": 90,
            "run_id": "run",
            "at_us": 55,
        }
    }


def test_a_heartbeat():
    tape = FakeTape()
    Heart(
        board=tape.board("k2.heartbeats"),
        clock=ManualClock(),
        process="lake",
        run_id="r",
        addresses={},
        sample=Sample,
    ).beat()
    (found,) = tape.board("k2.heartbeats").read_all().values()
    assert list(found) == [
        *("process", "pid", "run_id", "state", "level", "signals", "pressures", "injected"),
        *("addresses", "counters", "at_us"),
    ]
    assert [signal.value for signal in Signal] == [
        *("writer_lag_s", "producer_queue", "feed_queue", "rss_bytes", "commit_latency_s"),
        *("tail_bytes", "queries_running", "disk_free_bytes", "queries_queued", "oldest_work_s"),
        *("cgroup_bytes", "cpu_pressure", "memory_pressure", "io_pressure", "loop_lag_s"),
        "backlog_age_s",
    ]
    assert {level.name: level.value for level in Level} == {
        "NORMAL": 0, "SOFT": 1, "GRACEFUL": 2, "AGGRESSIVE": 3, "CIRCUIT_BREAK": 4,
    }  # fmt: skip


def test_a_request_to_backfill():
    request = FillRequest(BTC, 3, 9, 1_700_000_000_000_000)
    assert request.key == "BINANCE:BTCUSDT/3-9"
    assert request.document() == {
        "exchange": "BINANCE",
        "symbol": "BTCUSDT",
        "first_id": 3,
        "last_id": 9,
        "requested_us": 1_700_000_000_000_000,
    }


def test_a_dead_letter():
    letter = DeadLetter(TOPIC, 1, 2, 3, 7, Fault.TRUNCATED, "ends", 55, b"v")
    assert letter.name == f"{TOPIC}/1/2/3"
    assert headers_of(letter) == {
        "topic": TOPIC,
        "epoch": "1",
        "partition": "2",
        "offset": "3",
        "schema_id": "7",
        "fault": "TRUNCATED",
        "error": "ends",
        "at_us": "55",
    }


def test_a_replay(tmp_path):
    desk = Desk(tmp_path)
    name = desk.dead(message(1))
    done = desk.replayer.replay(name, None, again=False)
    ((_, key, _, headers),) = desk.sent
    assert (done.state, key) == ("SENT", b"BINANCE:BTCUSDT")
    assert headers == {"source": b"simulated", "k2-dead-letter": name.encode()}
    (document,) = desk.trades.board("k2.replays").read_all().values()
    assert list(document) == ["at_us", "partition", "offset"]
    desk.close()


def test_faults_and_their_numbers():
    assert {fault.name: fault.value for fault in Fault} == {
        "NONE": 0,
        "BAD_MAGIC": 1,
        "UNKNOWN_SCHEMA": 2,
        "TRUNCATED": 3,
        "TRAILING": 4,
        "BAD_VALUE": 5,
        "OUT_OF_RANGE": 6,
        "WRONG_PARTITION": 7,
        "OVERSIZE": 8,
        "NULL_VALUE": 9,
        "TOO_MANY_HOLES": 10,
        "REUSED_ID": 11,
        "INTERNAL": 12,
    }


def test_gap_events():
    assert [cause.value for cause in Cause] == [
        *("SEQUENCE", "DISCONNECT", "OUTAGE", "SHED", "REFUSED", "EPOCH", "REQUESTED"),
    ]
    assert [state.value for state in GapState] == ["OPEN", "FILLED", "UNFILLABLE", "VOID"]
    event = GapEvent(BTC, 1, 2, 3, Cause.SHED, GapState.OPEN, 4, "feed")
    assert event.values() == {
        "exchange": "BINANCE",
        "symbol": "BTCUSDT",
        "first_id": 1,
        "last_id": 2,
        "detected": 3,
        "cause": "SHED",
        "state": "OPEN",
        "recorded": 4,
        "filled_at": None,
        "reason": None,
        "feed": "feed",
    }


def test_events_on_the_tape_and_in_tables():
    found = {
        event.name: (
            [field.name for field in event.fields if field.on_tape],
            [field.name for field in event.fields if not field.on_tape],
        )
        for event in (schema.TRADE, schema.GAP, schema.DEAD_LETTER, schema.TRANSITION)
    }
    place = ["tape_epoch", "tape_partition", "tape_offset"]
    assert found == {
        "Trade": (
            [
                *("exchange", "symbol", "base", "quote", "asset_class", "source", "trade_id"),
                *("event_time", "receive_time", "price", "quantity", "side", "vendor_data"),
            ],
            place,
        ),
        "Gap": (
            [
                *("exchange", "symbol", "first_id", "last_id", "detected", "cause", "state"),
                *("recorded", "filled_at", "reason", "feed"),
            ],
            place,
        ),
        "DeadLetter": (
            [
                *("origin", "origin_epoch", "origin_partition", "origin_offset", "schema_id"),
                *("fault", "error", "judged", "value"),
            ],
            place,
        ),
        "Transition": (
            [
                *("changed", "from_level", "to_level", "cause", "process", "signal", "reading"),
                *("pressure", "threshold", "injected", "reason"),
            ],
            place,
        ),
    }
    assert schema.avro_schema(schema.TRADE)["namespace"] == "k2.market"
    assert Label._fields == ("exchange", "symbol", "base", "quote", "asset_class", "source")
    assert [tier.name for tier in Tier] == ["CRITICAL", "HIGH", "NORMAL", "LOW"]


# --- the lake -------------------------------------------------------------------------------------


def test_what_a_commit_says_of_itself():
    vector = OffsetVector(1, (5, 0))
    said = CommitSummary(
        positions=vector,
        counters={0: (3, 1, 1)},
        state_path="file:///s",
        epochs=EpochHistory(rules=1),
        topic="t",
        topic_id="i",
        cluster_id="c",
        writer_id="w",
        commit_id="x",
        retained_from_us=9,
    ).properties()
    assert said == {
        "k2.floor-time": "9",
        "k2.epoch": "1",
        "k2.positions": "1:5,0",
        "k2.counters": "3/1/1,0/0/0",
        "k2.state": "file:///s",
        "k2.topic": "t",
        "k2.topic-id": "i",
        "k2.cluster-id": "c",
        "k2.writer-id": "w",
        "k2.commit-id": "x",
        "k2.past-epochs": "",
        "k2.past-topics": "",
        "k2.epoch-start": "",
        "k2.epoch-state": "",
        "k2.epoch-ended": "",
        "k2.marks": "",
        "k2.rules": "1",
    }


def test_columns_of_a_state():
    state, *_ = fold(FoldState(), columns([1]))
    assert [(field.name, str(field.type)) for field in to_table({0: state}).schema] == [
        ("partition", "int32"),
        ("exchange", "string"),
        ("symbol", "string"),
        ("time_max_us", "int64"),
        ("first_id", "int64"),
        ("last_id", "int64"),
        ("reused_us", "int64"),
    ]


@pytest.fixture
def world(tmp_path):
    made = LakeWorld(tmp_path)
    ensure_lake(made.catalog)
    yield made
    made.close()


def test_tables_and_their_layout(world):
    found = {}
    for namespace in world.catalog.list_namespaces():
        for identifier in world.catalog.list_tables(namespace):
            table = world.catalog.load_table(identifier)
            names = {field.field_id: field.name for field in table.schema().fields}
            found[".".join(identifier)] = (
                [field.name for field in table.spec().fields],
                [names[field.source_id] for field in table.sort_order().fields],
            )
    assert found == {
        "market.trades": (["event_day", "exchange"], ["symbol", "event_time", "trade_id"]),
        "ops.gaps": (["recorded_day"], ["recorded", "tape_offset"]),
        "ops.dead_letters": (["judged_day"], ["judged", "tape_offset"]),
        "ops.transitions": (["changed_day"], ["changed", "tape_offset"]),
    }
    assert {
        name for name in world.table.properties if not name.startswith("write.metadata.metrics")
    } == {
        "commit.retry.num-retries",
        "commit.manifest-merge.enabled",
        "commit.manifest.min-count-to-merge",
        "commit.manifest.target-size-bytes",
        "write.metadata.delete-after-commit.enabled",
        "write.metadata.previous-versions-max",
        "write.parquet.compression-codec",
        "write.parquet.compression-level",
    }


def test_a_committed_state_lies_beside_the_metadata(world):
    world.commit_each([1])
    folder, _, name = world.snapshots.current().state_path.rpartition("/")
    assert folder.endswith("/lake/warehouse/market/trades/metadata")
    assert name.startswith("k2-state-")
    assert name.endswith(".arrow")


# --- folders and files ----------------------------------------------------------------------------


def test_where_a_data_directory_keeps_the_lake(tmp_path):
    loaded = Settings(data_dir=tmp_path)
    assert loaded.catalog_uri == f"sqlite:///{tmp_path}/lake/catalog.db"
    assert loaded.warehouse == f"file://{tmp_path}/lake/warehouse"
    assert signing_key(loaded, b"k" * 32) == b"k" * 32
    assert (tmp_path / "ticket.key").exists()


def test_the_stamp(tmp_path):
    path = tmp_path / "stamp.json"
    write_stamp(path, Stamp("simulated", "synthetic", "BINANCE"))
    stamp = '{"source": "simulated", "venue": "synthetic", "exchange": "BINANCE", "version": 1}\n'
    assert path.read_text() == stamp
    assert read_stamp(path) == Stamp("simulated", "synthetic", "BINANCE", 1)


def test_the_manifest_of_a_backup(tmp_path):
    made = DataDir(tmp_path / "k2")
    made.commit()
    made.back_up(tmp_path / "backup", "b1")
    made.close()
    manifest = json.loads((tmp_path / "backup" / "backup.json").read_text())
    assert list(manifest) == [
        *("made_at_us", "source", "exchange", "data_version", "warehouse", "tables", "files"),
        "version",
    ]
    assert list(manifest["files"][0]) == ["path", "to", "size", "sha256"]
    assert list(manifest["tables"][0]) == [
        *(
            "name",
            "uuid",
            "snapshot_id",
            "committed_at_us",
            "rows",
            "snapshots",
            "epoch",
            "positions",
        ),
        *("topic", "topic_id", "cluster_id"),
    ]
    assert {path.name for path in (tmp_path / "backup").iterdir()} == {
        *("backup.json", "backup.lock", "data", "state-b1"),
    }
    assert {entry["to"].split("/")[0] for entry in manifest["files"]} == {
        *("lake", "registry", "schemas", "stamp.json", "ticket.key"),
    }


def test_the_file_of_a_running_stack(tmp_path):
    record = StackRecord("r", 1, "/d", "live", "live", "BINANCE", ["BTCUSDT"], 5)
    record.processes.append(ProcessRecord("lake", "logs/lake.log"))
    Journal(tmp_path, record, ManualClock()).write()
    found = json.loads((tmp_path / "stack.json").read_text())
    assert list(found) == [
        *("run_id", "supervisor_pid", "data_dir", "source", "venue", "exchange", "symbols"),
        *("started_at_us", "state", "version", "updated_at_us", "addresses", "processes"),
        *("failure", "trusted_networks"),
    ]
    assert list(found["processes"][0]) == [
        *("name", "log", "pid", "state", "restarts", "addresses", "exit_code"),
    ]


def test_where_the_cache_keeps_what_was_fetched(tmp_path):
    lock = [
        Artifact("kafka", "group:name:1.2:jar", "a" * 64, 1),
        Artifact("registry", "group:other:1.2:all:zip", "b" * 64, 1),
    ]
    found = Artifacts(tmp_path, ManualClock(), lock)
    root = tmp_path / "artifacts"
    assert found.jars("kafka") == [root / ("a" * 64) / "name-1.2.jar"]
    assert found.unpacked("registry") == root / "unpacked" / ("b" * 64)


def test_the_segments_of_a_synthetic_market(tmp_path):
    path = tmp_path / "segments.json"
    segments = (Segment(5, {"BTCUSDT": 1}, {"BTCUSDT": 20}),)
    write_segments(path, 7, segments)
    assert json.loads(path.read_text()) == {
        "seed": 7,
        "segments": [{"from_time_us": 5, "from_id": {"BTCUSDT": 1}, "quota": {"BTCUSDT": 20}}],
    }


# --- settings and processes -----------------------------------------------------------------------

SETTINGS = {
    "K2_DATA_DIR": "d",
    "K2_CACHE_DIR": "c",
    "K2_TICKET_KEY": "k" * 32,
    "K2_LOG_LEVEL": "debug",
    "K2_TAPE__BOOTSTRAP": "b:1",
    "K2_TAPE__REGISTRY_URL": "http://r",
    "K2_TAPE__TOPIC": "t",
    "K2_TAPE__PARTITIONS_PER_TIER": "3",
    "K2_TAPE__RETENTION_HOURS": "4",
    "K2_TAPE__RETENTION_BYTES_PER_PARTITION": "2000000",
    "K2_LAKE__CATALOG_URI": "sqlite:///x",
    "K2_LAKE__WAREHOUSE": "file:///x",
    "K2_LAKE__COMMIT_INTERVAL_S": "3",
    "K2_LAKE__COMMIT_BYTES_MAX": "2000000",
    "K2_LAKE__RETENTION_HOURS": "5",
    "K2_LAKE__BYTES_MAX": "123456789",
    "K2_LAKE__LETTERS_BYTES_MAX": "123456789",
    "K2_LAKE__RETAIN_INTERVAL_S": "7",
    "K2_LAKE__MAINTAIN": "false",
    "K2_LAKE__MAINTAIN_INTERVAL_S": "8",
    "K2_LAKE__COMPACT_TARGET_BYTES": "2000000",
    "K2_LAKE__SWEEP_INTERVAL_S": "9",
    "K2_LAKE__SWEEP_GRACE_S": "99999",
    "K2_LAKE__ROWS_PER_S_MAX": "10",
    "K2_FEED__VENUE": "live",
    "K2_FEED__VENUE_URL": "ws://v",
    "K2_FEED__EXCHANGE": "X",
    "K2_FEED__SYMBOLS": "A,B",
    "K2_FEED__SOURCE": "recorded",
    "K2_FEED__STALE_S": "11",
    "K2_FEED__COPIES": "2",
    "K2_FEED__NAME": "feed-2",
    "K2_FEED__REST_URL": "http://v",
    "K2_FEED__REST_WEIGHT_PER_MINUTE": "12",
    "K2_VENUE__LISTEN": "127.0.0.1:1",
    "K2_VENUE__RATE": "13",
    "K2_VENUE__SPEED": "14",
    "K2_VENUE__SEED": "15",
    "K2_VENUE__CUT_S": "16",
    "K2_QUERY__LISTEN_FLIGHT": "127.0.0.1:2",
    "K2_QUERY__LISTEN_GRPC": "127.0.0.1:3",
    "K2_QUERY__TAIL_BYTES_MAX": "20000000",
    "K2_QUERY__TAIL_RECENT_S": "17",
    "K2_QUERY__STREAM_IDLE_S": "18",
    "K2_CONTROL__LISTEN": "127.0.0.1:4",
    "K2_CONTROL__QUERY_ADDRESS": "127.0.0.1:5",
    "K2_EDGE__LISTEN": "127.0.0.1:8",
    "K2_EDGE__CONTROL_ADDRESS": "127.0.0.1:9",
    "K2_EDGE__PROMETHEUS_URL": "http://127.0.0.1:10",
    "K2_ACCESS__TRUSTED_NETWORKS": "172.18.0.0/16",
    "K2_DEGRADE__CONFIRM_S": "18",
    "K2_DEGRADE__DWELL_S": "19",
    "K2_DEGRADE__SHADOW": "true",
    "K2_TELEMETRY__METRICS": "false",
    "K2_TELEMETRY__LISTEN": "127.0.0.1:6",
    "K2_TELEMETRY__OTLP_ENDPOINT": "127.0.0.1:7",
    "K2_TELEMETRY__TRACE_SAMPLE": "0.5",
    "K2_TELEMETRY__LOG_FILES": "true",
}


def flat(value, prefix="K2_"):
    """Settings by the variable that sets them."""
    found = {}
    for name, inner in value.items():
        key = f"{prefix}{name.upper()}"
        found |= flat(inner, f"{key}__") if isinstance(inner, dict) else {key: inner}
    return found


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """An environment without settings, in a folder without `k2.toml`."""
    for name in settings.environment():
        if name.startswith("K2_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_every_setting_has_its_variable(bare):
    before = flat(settings.load().model_dump())
    for name, value in SETTINGS.items():
        bare.setenv(name, value)
    after = flat(settings.load().model_dump())
    assert list(after) == list(SETTINGS)
    assert [name for name in SETTINGS if before[name] == after[name]] == []


def test_the_priority_of_symbols_is_a_table(bare):
    bare.setenv("K2_SYMBOLS__PRIORITY", '{"BINANCE:PEPEUSDT": "critical"}')
    assert settings.load().symbols.priority == {"BINANCE:PEPEUSDT": "critical"}


def test_what_a_process_can_be_started_as():
    assert set(MODULES) == {
        *("feed", "lake", "query", "control", "edge", "venue", "up", "doctor", "record", "verify"),
        *("backup", "restore", "backfill", "maintain", "new-epoch", "deploy", "join"),
    }


def test_a_process_says_why_it_fails(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "servers", "nothing"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = json.loads(done.stdout)
    assert done.returncode == 2
    assert list(said) == ["event", "reason", "message", "metadata"]
    assert (said["event"], said["reason"]) == ("failed", "BAD_REQUEST")


def test_the_processes_of_a_stack(tmp_path):
    names = ("control", "flight", "query", "venue", "broker", "registry", "edge")
    more = ("broker_controller", "registry_management")
    ports = {name: number for number, name in enumerate((*names, *more), 1)}
    config = StackConfig(
        settings=settings.load(data_dir=tmp_path, feed={"copies": 2}),
        ports=ports,
        venue="synthetic",
        exchange="BINANCE",
        run_id="5" * 32,
        artifacts=Artifacts(tmp_path, ManualClock(), []),
        environment={},
    )
    found = {part.name: list(part.addresses) for part in config.parts()}
    assert found == {
        "broker": ["broker"],
        "registry": ["registry"],
        "venue": ["venue"],
        "feed": [],
        "feed-2": [],
        "lake": [],
        "query": ["flight", "query"],
        "control": ["control"],
        "edge": ["edge"],
    }
    feed = next(part for part in config.parts() if part.name == "feed-2").prepare()
    assert feed.argv[-3:] == ("-m", "servers", "feed")
    assert {name for name in feed.env if name.startswith("K2_")} - set(SETTINGS) == {"K2_RUN_ID"}


REASONS = [
    *("BAD_REQUEST", "RANGE_REVERSED", "LIMIT_OUT_OF_BOUNDS", "UNKNOWN_COLUMN"),
    *("BAD_PAGE_TOKEN", "BAD_TICKET", "TICKET_EXPIRED", "BAD_SETTING", "NOT_LOCAL"),
    *("BAD_TOKEN", "OTHER_PROCESS", "UNKNOWN_SYMBOL", "UNKNOWN_SNAPSHOT", "STACK_NOT_RUNNING"),
    *("UNKNOWN_TOKEN", "OUT_OF_RANGE", "UNKNOWN_DEAD_LETTER", "STARTING", "DRAINING"),
    *("TAPE_UNAVAILABLE", "TAIL_BEHIND", "LAKE_UNAVAILABLE", "REGISTRY_UNAVAILABLE"),
    *("VENUE_UNAVAILABLE", "PEER_UNAVAILABLE", "ANSWER_CHANGED", "TOO_MANY_QUERIES"),
    *("TOO_MANY_CALLS", "TAIL_FULL", "QUEUE_FULL", "STREAM_IDLE", "DEADLINE_EXCEEDED"),
    *("DISK_FULL", "STAMP_MISMATCH", "TOPIC_RECREATED", "CLUSTER_CHANGED"),
    *("PARTITIONS_CHANGED", "TAPE_TRUNCATED", "RETENTION_OVERTOOK", "SCHEMA_CONFLICT"),
    *("CHECKSUM_MISMATCH", "WRITER_FENCED", "LAKE_CORRUPT", "BACKUP_INVALID"),
    *("RESTORE_UNFINISHED", "DATA_DIR_NEWER", "EPOCH_ENDED", "RULES_CHANGED", "PORT_IN_USE"),
    "VALUE_TOO_LARGE",
    *("NOT_WRITABLE", "ALREADY_RUNNING", "PROCESS_DIED", "NOT_EMPTY", "INTERNAL"),
]
CODES = {
    "PORT_IN_USE": 3, "DISK_FULL": 4, "NOT_WRITABLE": 5, "ALREADY_RUNNING": 7, "PROCESS_DIED": 8,
}  # fmt: skip
KINDS = {Invalid: 2, NotFound: 1, Unavailable: 1, Overloaded: 1, Data: 6, Internal: 1, K2Error: 1}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_exit_codes_by_reason_and_kind(kind):
    assert set(REASONS) <= {reason.value for reason in Reason}, "values may be added, not renamed"
    for name in REASONS:
        assert exit_code(kind(Reason(name), "")) == CODES.get(name, KINDS[kind])


# --- tickets, tokens, answers ---------------------------------------------------------------------

TOKEN = "k2t1.ChZBYkNkRWZHaElqS2xNbk9wUXJTdFV2EIGAgICAgICAQBoNCAMSCQARgICAgIAgBfScP4w"
TICKET = (
    "0a440a1e0a1c0a07425443555344542a0874726164655f69642a0570726963653007108180808080808080401a0d08"
    "0312090011808080808020052a090880e2cfaa0610e8071220d5060cd6e9b4773f2e063381a25c5e7d50c265437401"
    "45488c56ff1a3c65b490"
)
END = (0, 17, 2**40, 5)


def test_a_read_token_is_this_text():
    token = ReadToken("AbCdEfGhIjKlMnOpQrStUv", OffsetVector(3, END), 2**62 + 1)
    assert read_token.to_text(token) == TOKEN
    assert read_token.from_text(TOKEN) == token


def test_a_ticket_that_was_signed_before_opens():
    ticket = Signer(b"k" * 32).open(bytes.fromhex(TICKET), 1_700_000_000_000_000)
    trades = ticket.request.trades
    assert isinstance(ticket, query_service_pb2.QueryTicket)
    assert (list(trades.symbols), trades.limit) == (["BTCUSDT"], 7)
    assert list(trades.columns) == ["trade_id", "price"]
    assert (ticket.snapshot_id, ticket.end_positions.epoch) == (2**62 + 1, 3)
    assert tuple(ticket.end_positions.offsets) == END
    assert ticket.expire_time.ToDatetime(UTC) == datetime(2023, 11, 14, 22, 13, 20, 1, UTC)
    assert Signer(b"k" * 32).sign(ticket).hex() == TICKET


def test_keys_of_flights_metadata():
    assert flight_stream.PROVENANCE_KEY == client_trades.PROVENANCE_KEY == b"k2.provenance"
    assert flight_server.RESUME_HEADER == "k2-resume-after"
    assert flights.RESUME_HEADER == b"k2-resume-after"
    assert interceptors.CLASS_HEADER == client.CLASS_HEADER == "k2-class"
    assert interceptors.CLIENT_HEADER == client.CLIENT_HEADER == "k2-client-id"
    assert {one.value for one in RequestClass} == set(client.CLASSES)


# --- answers of the command -----------------------------------------------------------------------

LETTER = [
    *("name", "origin", "origin_epoch", "origin_partition", "origin_offset", "schema_id", "fault"),
    *("error", "judged_time", "letter_offset", "stored", "replay_time", "overruled"),
]
DEGRADATION = [
    *("level", "summary", "time", "override", "injected", "shadow", "processes[].process"),
    *("processes[].state", "processes[].level", "processes[].report_time"),
    *("processes[].pressures[].signal", "processes[].pressures[].reading"),
    *("processes[].pressures[].pressure", "processes[].pressures[].injected"),
]
ANSWERS = {
    "snapshots": [
        *("snapshots[].snapshot_id", "snapshots[].parent_id", "snapshots[].commit_time"),
        *("snapshots[].positions.epoch", "snapshots[].positions.offsets"),
        *("snapshots[].positions.offsets[]", "snapshots[].counters[].partition"),
        *("snapshots[].counters[].accepted", "snapshots[].counters[].duplicate"),
        *("snapshots[].counters[].dead", "snapshots[].operation", "snapshots[].rows_added"),
        *("snapshots[].rows_total", "snapshots[].files_total", "snapshots[].bytes_total"),
        *("snapshots[].topic_id", "snapshots[].cluster_id", "snapshots[].writer_id"),
        "snapshots[].commit_id",
    ],
    "feeds": [
        *("feeds[].name", "feeds[].state", "feeds[].exchange", "feeds[].source"),
        *("feeds[].venue_url", "feeds[].connected", "feeds[].trades_acknowledged"),
        *("feeds[].frames_skipped", "feeds[].frames_malformed", "feeds[].reconnects"),
        *("feeds[].report_time", "feeds[].counters.queue", "feeds[].symbols[].symbol"),
        *("feeds[].symbols[].acknowledged_trade_id", "feeds[].symbols[].gaps"),
        *("feeds[].symbols[].ids_missing", "feeds[].symbols[].duplicates"),
        *("feeds[].symbols[].reordered", "feeds[].symbols[].resets"),
    ],
    "tape topics": [f"topics[].{name}" for name in ("topic", "partitions", "messages", "rate")],
    "gaps": [
        *("gaps[].exchange", "gaps[].symbol", "gaps[].first_trade_id", "gaps[].last_trade_id"),
        *("gaps[].state", "gaps[].cause", "gaps[].detect_time", "gaps[].record_time"),
        *("gaps[].fill_time", "gaps[].reason", "gaps[].feed"),
    ],
    "degradation": DEGRADATION,
    "degrade": DEGRADATION,
    "degrade set SOFT --for 10m --reason r": [
        *("override.level", "override.reason", "override.set_time", "override.expire_time"),
    ],
    "degrade clear": ["ended"],
    "degrade inject --signal rss_bytes --pressure 1 --for 9": ["expire_time"],
    "degrade history": [
        *("transitions[].time", "transitions[].from_level", "transitions[].to_level"),
        *("transitions[].cause", "transitions[].process", "transitions[].signal"),
        *("transitions[].reading", "transitions[].pressure", "transitions[].threshold"),
        *("transitions[].injected", "transitions[].reason"),
    ],
    "backfill BTCUSDT --from-id 1 --to-id 2": [
        *("exchange", "symbol", "first_trade_id", "last_trade_id", "requests", "eta_s"),
    ],
    "dlq list": [f"letters[].{name}" for name in LETTER],
    "dlq show trades/0/3/0": [
        *(f"letter.{name}" for name in LETTER),
        *("value", "value_bytes", "fault_now", "trade.exchange", "trade.symbol", "trade.base"),
        *("trade.quote", "trade.asset_class", "trade.source", "trade.trade_id"),
        *("trade.event_time", "trade.receive_time", "trade.price", "trade.quantity"),
        *("trade.side", "trade.vendor_data"),
    ],
    "dlq replay trades/0/3/0": [
        *("outcomes[].name", "outcomes[].state", "outcomes[].fault", "outcomes[].message"),
        *("outcomes[].partition", "outcomes[].offset"),
    ],
}


@pytest.mark.parametrize("command", ANSWERS)
def test_keys_of_answers(bare, command):
    with K2Server() as server:
        bare.setenv("K2_ADDRESS", server.address)
        done = CliRunner().invoke(main.k2, [*command.split(), "--json"])
    assert done.exit_code == 0, done.output
    assert paths(json.loads(done.stdout)) == set(ANSWERS[command])


def test_exit_codes_of_the_command(bare, capfd):
    assert main.run(["trades", "BTCUSDT"]) == 1  # no stack
    assert main.run(["trades"]) == 2
    assert main.run(["nosuch"]) == 2
    assert [line.split(":")[1] for line in capfd.readouterr().err.splitlines()] == [
        *(" STACK_NOT_RUNNING", " BAD_REQUEST", " BAD_REQUEST"),
    ]
