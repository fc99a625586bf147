"""Lists every name that a running K2 shows outside its source, read through its edges alone.

It imports nothing of K2: topics and documents are read from Kafka, tables and states from their
files, answers from the `k2` command. So the list of one commit can be held against another's.
A name is one line of text; what differs from run to run (ids, ports, symbols) is written `*`.
"""

import json
import re
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

SYMBOLS = ("BTCUSDT", "ETHUSDT", "XRPUSDT")
_VARIES = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{12,}|\d{4}-\d\d-\d\d|(?<![A-Za-z0-9])\d+|"
    + "|".join(SYMBOLS)
)
_FOREIGN = ("kafka/", "registry/", "cluster", "__")  # folders whose contents are not K2's

_READER = "outside"  # the group of the collector itself


def pattern(text):
    """A name without what differs from run to run."""
    return _VARIES.sub("*", text)


def paths(value, prefix=""):
    """Where each value of a JSON document stands: `processes[].pid`."""
    if isinstance(value, dict):
        found = {prefix} if not value else set()
        for key, inner in value.items():
            found |= paths(inner, f"{prefix}.{pattern(key)}".removeprefix("."))
        return found
    if isinstance(value, list):
        return {prefix}.union(*(paths(inner, f"{prefix}[]") for inner in value)) - (
            {prefix} if any(isinstance(inner, dict) for inner in value) else set()
        )
    return {prefix}


def lacking(names, among):
    """Those of the names that are not among others, in order; an empty list or map hides nothing.

    What was empty may be filled now, and what was a filled list may be empty.
    """

    def is_there(name):
        filled = (f"{name}[", f"{name}.")
        return any(one.startswith(filled) or name.startswith(f"{one}[") for one in among)

    return sorted(name for name in names - among if not is_there(name))


class Command:
    """Runs `k2` on one data directory, in an environment."""

    def __init__(self, data_dir, environment):
        self.data_dir = Path(data_dir)
        self.environment = environment

    def __call__(self, *arguments, codes=(0,)):
        line = [sys.executable, "-m", "k2cli", *arguments, "--data-dir", str(self.data_dir)]
        done = subprocess.run(line, capture_output=True, env=self.environment, check=False)
        assert done.returncode in codes, f"{arguments}: {done.returncode} {done.stderr.decode()}"
        return done

    def json(self, *arguments, codes=(0,)):
        return json.loads(self(*arguments, "--json", codes=codes).stdout)


def of_answers(k2, *commands):
    """`k2 NAME --json: path` of each value of each answer; the answers by name."""
    found = set()
    for name, arguments in commands:
        answer = k2.json(*arguments, codes=(0, 1))
        found |= {f"k2 {name} --json: {path}" for path in paths(answer)}
    return found


def of_kafka(bootstrap, since_ms=0):
    """Topics, consumer groups and their members, and what records appended since are made of."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    listed = admin.list_consumer_groups().result().valid
    groups = [group.group_id for group in listed if group.group_id != _READER]
    found = {f"group {group}" for group in groups}
    for group, described in admin.describe_consumer_groups(groups).items():
        for member in described.result().members:
            found.add(f"group {group}: instance {member.group_instance_id}")
    for topic, about in admin.list_topics(timeout=20).topics.items():
        if not topic.startswith("__"):
            found.add(f"topic {topic}")
            for record in records(bootstrap, topic, about.partitions, since_ms):
                found |= _of_record(topic, *record)
    return found


def _of_record(topic, key, value, headers):
    # The key of a placement begins with the topic's id; of a letter with the topic's name.
    named = key.decode()
    if topic == "k2.partitions":
        named = "TOPIC_ID/" + named.split("/", 1)[1]
    found = {f"topic {topic}: key {pattern(named)}"}
    found |= {f"topic {topic}: header {name}" for name, _ in headers or ()}
    if value is not None and value[:1] == b"{":
        inside = f" of {named}" if topic == "k2.heartbeats" else ""
        found |= {f"topic {topic}: value{inside}: {one}" for one in paths(json.loads(value))}
    return found


def records(bootstrap, topic, partitions, since_ms=0):
    """Key, value and headers of the records of a topic that were appended since then."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": _READER, "enable.auto.commit": False}
    )
    try:
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p)) for p in partitions}
        full = {p: span for p, span in ends.items() if span[1] > span[0]}
        consumer.assign([TopicPartition(topic, p, start) for p, (start, _) in full.items()])
        left = {p: end for p, (_, end) in full.items()}
        while left:
            for message in consumer.consume(500, 2.0):
                if message.error() is None and message.timestamp()[1] >= since_ms:
                    yield message.key() or b"", message.value(), message.headers()
            for position in consumer.position([TopicPartition(topic, p) for p in left]):
                if position.offset >= left[position.partition]:
                    del left[position.partition]
    finally:
        consumer.close()


def of_registry(url):
    """Subjects, and the fields of their schemas."""
    found = set()
    for subject in _fetched(f"{url}/subjects"):
        schema = json.loads(_fetched(f"{url}/subjects/{subject}/versions/latest")["schema"])
        name = f"{schema['namespace']}.{schema['name']}"
        found.add(f"subject {subject}: {name}")
        for field in schema["fields"]:
            kind = json.dumps(field["type"], sort_keys=True)
            found.add(f"subject {subject}: field {field['name']}: {kind}")
    return found


def _fetched(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def of_lake(lake):
    """Tables, their columns, properties and layout, what summaries carry, columns of states."""
    found = set()
    with closing(sqlite3.connect(f"file:{lake}/catalog.db?mode=ro", uri=True)) as catalog:
        tables = catalog.execute(
            "SELECT catalog_name, table_namespace, table_name, metadata_location"
            " FROM iceberg_tables"
        ).fetchall()
    for name, namespace, table, location in tables:
        metadata = json.loads(Path(location.removeprefix("file://")).read_text())
        head = f"table {name}.{namespace}.{table}"
        found |= {f"{head}: {one}" for one in _of_metadata(metadata)}
    for state in Path(lake).rglob("k2-state-*.arrow"):
        schema = pa.ipc.open_file(state).schema
        found |= {f"state: {field.name}: {field.type}" for field in schema}
    return found


def _of_metadata(metadata):
    for name, value in metadata["properties"].items():
        yield f"property {name}" if name.startswith("k2.") else f"property {name}={value}"
    for snapshot in metadata["snapshots"]:
        summary = snapshot["summary"]
        yield from (f"summary {name}" for name in summary if name.startswith("k2."))
    for field in metadata["schemas"][-1]["fields"]:
        kind = json.dumps(field["type"], sort_keys=True)
        yield f"column {field['id']} {field['name']}: {kind}"
    for field in metadata["partition-specs"][-1]["fields"]:
        yield f"partitioned by {field['name']}: {field['transform']} of {field['source-id']}"
    for field in metadata["sort-orders"][-1]["fields"]:
        yield f"sorted by {field['source-id']}"


def of_files(folder, head):
    """Names of files and folders; those of Kafka and of the registry only as far as K2 chose."""
    found = set()
    for path in Path(folder).rglob("*"):
        inside = path.relative_to(folder).as_posix()
        if not inside.startswith(_FOREIGN) or inside.count("/") < 2:
            name = pattern(inside) + ("/" if path.is_dir() else "")
            if not re.search(r"\.(crc|avro|parquet)$|-journal$|\.new$|\.part$|-wal$|-shm$", name):
                found.add(f"{head}: {name}")
    return found


def of_events(lines, head):
    """What the lines of a process say: their events and fields."""
    found = set()
    for line in lines:
        event = json.loads(line)
        found |= {f"{head} says {event['event']}: {one}" for one in paths(event)}
    return found


def of_document(path, head):
    """The keys of a JSON file."""
    return {f"{head}: {one}" for one in paths(json.loads(Path(path).read_text()))}
