"""One trade followed through a real stack: to its commit, and to the query that reads it."""

import subprocess
import urllib.request
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, TopicPartition

import k2client
from tests.chaos.stack import CLOCK
from tests.conftest import free_ports
from tests.integration.servers.local.test_up import up
from tests.support import tools
from tests.support.eventually import eventually
from tests.support.otlp import collector

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
QUIET_S = 1.5  # many reads of the tape that bring no record
TOPIC = "market.crypto.trades.binance"
WAY = ["frame", "publish", "fold", "commit"]
QUERY = ["plan", "tail", "lake", "execute", "stream"]
COLLECTOR = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
processors: {{batch: {{timeout: 200ms}}}}
exporters:
  debug: {{verbosity: detailed}}
  otlp_grpc: {{endpoint: "{onward}", tls: {{insecure: true}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [debug, otlp_grpc]}}
"""


def headers_of(bootstrap, partition, offset):
    """The headers of one record of the tape."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test"})
    consumer.assign([TopicPartition(TOPIC, partition, offset)])
    (message,) = consumer.consume(1, 30)
    consumer.close()
    assert message.offset() == offset
    return dict(message.headers())


def followed(k2, bootstrap, there):
    """A committed trade whose batch was traced to its commit; its row and that commit."""
    rows = k2.trades("BTCUSDT", consistency="committed").to_arrow().to_pylist()
    committed = {span.trace_id for span in there.named("commit")}
    for row in reversed(rows):
        headers = headers_of(bootstrap, row["tape_partition"], row["tape_offset"])
        trace_id = headers["traceparent"].decode().split("-")[1]
        if trace_id in committed:
            return row, next(s for s in there.named("commit") if s.trace_id == trace_id)
    return None


def queried(k2, row, commit, there):
    """The trace of a query of a trade, once the lake's side of it is read; links to its commit."""
    table = k2.trades("BTCUSDT", start=row["event_time"], limit=5).to_arrow()
    assert row["trade_id"] in table.column("trade_id").to_pylist()
    for plan in there.named("plan"):
        names = {span.name for span in there.spans if span.trace_id == plan.trace_id}
        if plan.links_to(commit) and {*QUERY} <= names:
            return plan.trace_id
    return None


def assert_quiet_ends_nothing(stack):
    """No process was restarted, and none is where the venue prints nothing for a while."""
    venue = stack.part("venue")["addresses"]["venue"]
    urllib.request.urlopen(f"http://{venue}/k2/rate?trades_per_s=0.001", timeout=10).close()
    CLOCK.sleep(QUIET_S)
    restarts = {one["name"]: one["restarts"] for one in stack.published()["processes"]}
    assert not any(restarts.values()), restarts


def assert_one_story(data_dir, there):
    """A trade is followed to its commit, and a query of that trade to the same commit."""
    with up(data_dir, "--venue", "synthetic", "--symbols", "BTCUSDT", "--rate", "4") as stack:
        stack.until("ready")
        bootstrap = stack.published()["addresses"]["broker"]
        with k2client.connect(data_dir=str(data_dir)) as k2:
            row, commit = eventually(lambda: followed(k2, bootstrap, there), 60, 1)
            trace_id = eventually(lambda: queried(k2, row, commit, there), 60, 1)
        assert_quiet_ends_nothing(stack)
        by_id, above, span = {span.span_id: span for span in there.spans}, [], commit
        while span is not None:
            above.append(span.name)
            span = by_id.get(span.parent_id)
        assert above[::-1] == WAY
        assert commit.attributes["k2.rows"] >= 1
        services = {span.service for span in there.spans if span.trace_id == trace_id}
        assert services == {"k2-control", "k2-query"}
    return commit.trace_id, trace_id


@pytest.fixture
def traced(monkeypatch):
    """Make a stack trace everything."""

    def point(endpoint):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("K2_TELEMETRY__TRACE_SAMPLE", "1.0")
        monkeypatch.setenv("K2_LAKE__COMMIT_INTERVAL_S", "1")
        monkeypatch.setenv("K2_QUERY__TAIL_RECENT_S", "0")  # what is committed is read there

    return point


@pytest.mark.slow
def test_one_trade_is_followed_to_the_query_that_reads_it(tmp_path, artifacts, traced):
    with collector() as there:
        traced(there.address)
        assert_one_story(tmp_path, there)


@contextmanager
def real_collector(folder, onward):
    """A real OpenTelemetry Collector that prints what it gets, and sends it on."""
    program = tools.tool("otelcol")
    (port,) = free_ports(1)
    settings = folder / "collector.yaml"
    settings.write_text(COLLECTOR.format(port=port, onward=onward))
    log = folder / "collector.log"
    with log.open("w") as output:
        running = subprocess.Popen([program, "--config", settings], stdout=output, stderr=output)
        try:
            eventually(lambda: "Everything is ready" in log.read_text(), 30)
            yield f"http://127.0.0.1:{port}", log
        finally:
            running.terminate()
            running.wait(30)


@pytest.mark.tools
def test_a_real_collector_gets_the_same_story(tmp_path, artifacts, traced):
    with collector() as there, real_collector(tmp_path, there.address) as (endpoint, log):
        traced(endpoint)
        trade, query = assert_one_story(tmp_path / "stack", there)
        printed = log.read_text()
    for trace_id, names in ((trade, WAY), (query, QUERY)):
        blocks = [block for block in printed.split("Span #") if trace_id in block]
        found = {line for block in blocks for line in block.splitlines() if "Name " in line}
        assert {*names} <= {line.partition(": ")[2] for line in found}
