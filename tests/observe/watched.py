"""A whole stack that a real Prometheus scrapes each second, on a copy of the alert rules.

The copy is the rules of K2 with shorter times, so that a test sees an alert fire and clear: `for`
of at most 1 s, windows of 10 minutes made 10 s, and a lag of 3 s in place of a minute. Their
queries and conditions are otherwise those that operators have.
"""

import json
import re
import threading
import urllib.request
from contextlib import suppress

import grpc
import yaml
from confluent_kafka import Producer
from google.protobuf.duration_pb2 import Duration

import k2client
from k2.v1 import degradation_service_pb2, degradation_service_pb2_grpc
from k2client.errors import K2Error
from servers.local.child_process import Child
from servers.local.observe import prometheus
from tests.chaos.faults import TOPIC
from tests.chaos.stack import CLOCK, until
from tests.conftest import free_ports
from tests.observe import panels
from tests.support import tools

SHORTER = (
    (r"\[10m\]", "[10s]"),
    (r"offset 10m", "offset 10s"),
    (r"(k2_consumer_lag_seconds\)) > 60", r"\1 > 3"),
)
FOR_MAX_S = 1
QUIET_S = 0.1
_UNITS = {"s": 1, "m": 60, "h": 3600}


def shortened(rules):
    """The rules with times for a test."""
    copy = json.loads(json.dumps(rules))
    for rule in (rule for group in copy["groups"] for rule in group["rules"]):
        for pattern, instead in SHORTER:
            rule["expr"] = re.sub(pattern, instead, rule["expr"])
        if seconds(rule.get("for", "0s")) > FOR_MAX_S:
            rule["for"] = f"{FOR_MAX_S}s"
    return copy


def seconds(text):
    """A duration of Prometheus, such as 5m."""
    return int(text[:-1]) * _UNITS[text[-1]]


class Scraper:
    """A Prometheus of a test, while the `with` block runs.

    Attributes:
        began_s: when it began to scrape, Unix seconds.
    """

    def __init__(self, folder, targets):
        rules = folder / "rules.yaml"
        rules.write_text(yaml.safe_dump(shortened(yaml.safe_load(prometheus.RULES.read_text()))))
        config = json.loads(json.dumps(prometheus.configuration(targets, rules)))
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config["global"]["evaluation_interval"] = "1s"
        program = tools.tool("prometheus")
        self._server = prometheus.Prometheus(program, free_ports(1)[0])
        self._command = self._server.prepare(folder)
        (folder / "prometheus" / "prometheus.yml").write_text(json.dumps(config))
        self._log = folder / "prometheus.log"
        self.began_s = CLOCK.now_us() / 1e6

    def __enter__(self):
        self._child = Child(self._command, self._log)
        until(self._server.answers, "Prometheus answers", 30)
        return self

    def __exit__(self, *_):
        self._child.stop(5)

    def ask(self, path, **parameters):
        """The data of an answer of its HTTP API."""
        return panels.ask(self._server.url, path, **parameters)

    def firing(self, alert):
        """The labels of an alert that fires; none when it does not."""
        return [
            one["labels"]
            for one in self.ask("alerts")["alerts"]
            if one["labels"]["alertname"] == alert and one["state"] == "firing"
        ]

    def shown(self, board):
        """What a board shows since the begin."""
        return list(panels.shown(self._server.url, board, (self.began_s, CLOCK.now_us() / 1e6)))


class Traffic:
    """Clients that ask for trades of critical and other symbols until the `with` block ends.

    One of them asks the HTTP edge.
    """

    SYMBOLS = ("BTCUSDT", "SHIBUSDT")

    def __init__(self, stack):
        self._control = str(stack.addresses["control"])
        self._edge = str(stack.addresses["edge"])
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(one,), daemon=True) for one in self.SYMBOLS
        ]
        self._threads.append(threading.Thread(target=self._ask_edge, daemon=True))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, symbol):
        retry = k2client.Retry(attempts_max=1)
        with k2client.connect(self._control, deadline_s=5.0, retry=retry) as k2:
            while not self._stop.wait(QUIET_S):
                for question in ({"limit": 10, "order": "desc"}, {"last": "15m"}):
                    try:
                        k2.trades(symbol, **question).to_arrow()
                    except K2Error:
                        self._stop.wait(QUIET_S)

    def _ask_edge(self):
        while not self._stop.wait(QUIET_S):
            for path in ("/health", f"/v1/trades?symbol={self.SYMBOLS[0]}&limit=10"):
                with suppress(OSError):
                    urllib.request.urlopen(f"http://{self._edge}{path}", timeout=10).close()


def inject(stack, signal, pressure, lasts_s):
    """Press on a signal of every process."""
    asked = degradation_service_pb2.InjectPressureRequest(
        signal=signal, pressure=pressure, duration=Duration(seconds=lasts_s)
    )
    with grpc.insecure_channel(str(stack.addresses["control"])) as channel:
        stub = degradation_service_pb2_grpc.DegradationServiceStub(channel)
        stub.InjectPressure(asked, timeout=10)


def spoil(stack, count=5):
    """Put records on the tape that are no trades."""
    bootstrap = stack.addresses["broker"]
    producer = Producer({"bootstrap.servers": bootstrap})
    for partition in range(count):
        producer.produce(TOPIC, b"not a trade", partition=partition)
    assert producer.flush(20) == 0


def ask_venue(stack, path):
    """A request to the practice venue."""
    where = stack.recorded()["venue"]["addresses"]["venue"]
    urllib.request.urlopen(f"http://{where}{path}", timeout=10).close()
