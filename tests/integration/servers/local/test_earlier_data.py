"""A data directory, a backup and a read token of an earlier K2 are read by this one.

`tests/golden/earlier_data.zip` holds what commit dd5ca4d made in a minute of the synthetic market:
the data directory after `k2 down` (without the lake), the backup that `k2 backup` made of it a
little before, and a read token with its answer. `tests/golden/outside_names.txt` lists the names
that the same stack showed outside its source (`tests/support/outside_names.py`).
"""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka import Producer

import k2client
from k2 import settings
from k2.clock import SystemClock
from k2client.errors import K2Error
from tests.support import outside_names
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

GOLDEN = Path(__file__).parents[3] / "golden"
START_S = 300
POLL_S = 0.2
TOPIC = "market.crypto.trades.binance"
AGES_H = "876000"  # the records of the archive are as old as the archive
# The market of the archive has gone on since: a symbol of its own leaves no gap to fill.
OPTIONS = ("--venue", "synthetic", "--symbols", "XRPUSDT", "--rate", "20", "--ports", "free")


class Stack(outside_names.Command):
    """`servers up` on a data directory, and what it printed."""

    def __init__(self, data_dir):
        own = {n: v for n, v in settings.environment().items() if not n.startswith("K2_")}
        ages = {"K2_TAPE__RETENTION_HOURS": AGES_H, "K2_LAKE__COMMIT_INTERVAL_S": "1"}
        super().__init__(data_dir, own | ages)
        self._printed = self.data_dir.with_name("events")
        self._process = None
        self.started_ms = SystemClock().now_us() // 1000

    def start(self):
        argv = (sys.executable, "-m", "servers", "up", "--data-dir", str(self.data_dir), *OPTIONS)
        with self._printed.open("w") as out:
            self._process = subprocess.Popen(
                argv,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )
        eventually(self._decided, START_S)
        assert "ready" in self.said(), self.said().get("failed")

    def said(self):
        lines = map(json.loads, self._printed.read_text().splitlines())
        return {event["event"]: event for event in lines}

    def _decided(self):
        return {"ready", "failed"} & set(self.said())

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait(100)

    def names(self):
        return outside_names.of_events(self._printed.read_text().splitlines(), "up")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory, artifacts):
    folder = tmp_path_factory.mktemp("earlier")
    with zipfile.ZipFile(GOLDEN / "earlier_data.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def k2(earlier):
    """The stack on the tape of the archive, with the lake of its backup."""
    stack = Stack(earlier / "data")
    stack("restore", str(earlier / "backup"), "--keep-tape")
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def test_the_token_has_the_same_rows(k2, earlier):
    expected = (earlier / "answer.csv").read_text()
    columns, token = expected.splitlines()[0], (earlier / "token").read_text()
    asked = ("trades", "BTCUSDT,ETHUSDT", "--columns", columns, "--as-of", token)
    assert k2(*asked, "--format", "csv").stdout.decode() == expected
    assert expected.count("\n") > 500


def test_rows_of_after_the_backup_come_from_the_tape(k2, earlier):
    manifest = json.loads((earlier / "backup" / "backup.json").read_text())
    before = next(one for one in manifest["tables"] if one["name"] == "market.trades")["rows"]
    with client(k2) as asked:
        eventually(lambda: asked.snapshot().rows_total > before, 60, POLL_S)
    newest = k2.json("snapshots", "--limit", "1")["snapshots"][0]
    assert newest["rows_total"] > before
    assert newest["positions"]["epoch"] == 0
    ids = [int(row["trade_id"]) for row in k2.json("trades", "BTCUSDT", "--columns", "trade_id")]
    assert len(set(ids)) == len(ids)


def test_what_is_stored_is_proven(k2):
    report = k2.json("verify")
    assert report["ok"] is True
    assert report["problems"] == []


def test_names_outside_the_source_are_those_of_before(k2, tmp_path):
    found = names_of_answers(k2, tmp_path) | names_of_storage(k2, tmp_path)
    k2.stop()
    found |= k2.names() | outside_names.of_files(k2.data_dir, "data")
    new = outside_names.Command(tmp_path / "new", k2.environment)
    found |= outside_names.of_answers(new, ("restore", ("restore", str(tmp_path / "backup"))))
    found |= outside_names.of_answers(
        k2, ("status (stopped)", ("status",)), ("tape new-epoch", ("tape", "new-epoch"))
    )
    expected = set((GOLDEN / "outside_names.txt").read_text().splitlines())
    assert outside_names.lacking(expected, found) == [], "names that are gone"
    added = outside_names.lacking(found, expected)
    assert list(filter(is_stored, added)) == [], "names that the list lacks"


def is_stored(name):
    """Whether others read it later: such a name is added on purpose, in the list."""
    stored = ("topic", "group", "subject", "table", "state", "stamp", "backup.json", "run/")
    return name.startswith(stored) and not name.startswith("topic k2.heartbeats")


def names_of_answers(k2, folder):
    feed = next(one for one in stack_file(k2)["processes"] if one["name"] == "feed")
    os.kill(feed["pid"], signal.SIGKILL)
    eventually(lambda: "restarting" in k2.said(), 30)
    letter = dead_letter(k2)
    repaired = folder / "good"
    repaired.write_bytes(good_message(k2))
    with client(k2) as asked:
        eventually(lambda: rows_of(asked, "XRPUSDT") > 1, 60, POLL_S)
    ids = [row["trade_id"] for row in k2.json("trades", "XRPUSDT", "--limit", "2")]
    found = outside_names.of_answers(
        k2,
        ("backfill", ("backfill", "XRPUSDT", "--from-id", ids[0], "--to-id", ids[-1])),
        ("dlq show", ("dlq", "show", letter)),
        ("dlq replay", ("dlq", "replay", letter, "--value-file", str(repaired), "--again")),
    )
    with client(k2) as asked:
        eventually(lambda: "FILLED" in requested(asked), 60, POLL_S)
        rehearse(k2, asked)
    return found | outside_names.of_answers(
        k2,
        ("compact", ("compact",)),
        ("expire", ("expire", "--older-than", "1d")),
        ("record", ("record", str(folder / "frames"), "--frames", "5", "--duration", "20s")),
        ("trades", ("trades", "BTCUSDT", "--limit", "3")),
        ("dlq list", ("dlq", "list")),
        *((name, (name,)) for name in ("snapshots", "feeds", "gaps", "degradation", "status")),
        *((name, (name,)) for name in ("doctor", "verify")),
    )


def client(k2):
    """A client: what is only waited for costs no process."""
    return k2client.connect(address(k2, "control"))


def rehearse(k2, asked):
    """Have every kind of document of the level on the tape."""
    pressure = ("--signal", "feed_queue", "--pressure", "0.1", "--process", "feed")
    k2.json("degrade", "inject", *pressure, "--for", "1s")
    k2.json("degrade", "set", "NORMAL", "--for", "1h", "--reason", "names")

    def causes():
        return {each.cause for each in asked.transitions()}

    eventually(lambda: "OVERRIDE" in causes(), 60, POLL_S)
    k2.json("degrade", "clear")
    eventually(lambda: "OVERRIDE_ENDED" in causes(), 60, POLL_S)


def rows_of(asked, symbol):
    try:
        return asked.trades(symbol, limit=2).to_arrow().num_rows
    except K2Error:  # no trade of it yet, or a server that is busy with its start
        return 0


def requested(asked):
    return {gap.state for gap in asked.gaps("XRPUSDT") if gap.cause == "REQUESTED"}


def dead_letter(k2):
    """Put a record on the tape that is no trade; the name of its letter."""
    producer = Producer({"bootstrap.servers": address(k2, "broker")})
    producer.produce(TOPIC, b"no trade", b"key", 0)
    producer.flush(20)

    with client(k2) as asked:

        def found():
            letters = asked.dead_letters()
            return [one.name for one in letters if one.stored]

        return eventually(found, 60, POLL_S)[0]


def good_message(k2):
    records = outside_names.records(address(k2, "broker"), TOPIC, range(8))
    return next(value for _, value, _ in records if value[:1] == b"\0")


def stack_file(k2):
    return json.loads((k2.data_dir / "run" / "stack.json").read_text())


def address(k2, name):
    return stack_file(k2)["addresses"][name]


def names_of_storage(k2, folder):
    table = pa.ipc.open_stream(k2("trades", "XRPUSDT", "--format", "arrow").stdout).read_all()
    found = {f"arrow column {field.name}: {field.type}" for field in table.schema}
    for key, value in table.schema.metadata.items():
        paths = outside_names.paths(json.loads(value))
        found |= {f"arrow metadata {key.decode()}: {path}" for path in paths}
    return (
        found
        | outside_names.of_kafka(address(k2, "broker"), k2.started_ms)
        | outside_names.of_registry(address(k2, "registry"))
        | outside_names.of_answers(k2, ("backup", ("backup", str(folder / "backup"))))
        | outside_names.of_document(folder / "backup" / "backup.json", "backup.json")
        | outside_names.of_files(folder / "backup", "backup")
        | outside_names.of_document(k2.data_dir / "run" / "stack.json", "run/stack.json")
        | outside_names.of_document(k2.data_dir / "stamp.json", "stamp.json")
        | outside_names.of_lake(k2.data_dir / "lake")
    )
