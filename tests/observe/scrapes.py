"""What all processes of a stack export, as it was seen over time, and counts made without it."""

import json
import urllib.error
import urllib.request

from confluent_kafka import Consumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.faults import PARTITIONS, TOPIC
from tests.chaos.stack import CLOCK, until

QUIET_RATE = 0.001
QUIET_S = 3.0


class Scrapes:
    """Reads the metrics of every process of a stack.

    Attributes:
        kinds: of each metric that was exported at any time, by name.
        highest: the highest value of each of its series, a histogram's number of observations.
    """

    def __init__(self, stack):
        self._stack = stack
        self.kinds = {}
        self.highest = {}

    def read(self):
        """Every sample of this moment: its value by (name, exporting process, labels)."""
        found = {}
        for process, record in self._stack.recorded().items():
            address = record["addresses"].get("metrics")
            text = _get(f"http://{address}/metrics") if address else ""
            for family in text_string_to_metric_families(text):
                name = family.name + ("_total" if family.type == "counter" else "")
                self.kinds[name] = family.type
                for sample in family.samples:
                    labels = frozenset(sample.labels.items())
                    found[sample.name, process, labels] = sample.value
                    if sample.name in (name, f"{name}_count"):
                        before = self.highest.setdefault(name, {}).get((process, labels), 0.0)
                        self.highest[name][process, labels] = max(before, sample.value)
        return found

    def highest_of(self, name):
        """The highest value that any series of a metric had; 0 without one."""
        return max(self.highest.get(name, {}).values(), default=0)

    def total(self, name, **labels):
        """The sum of a metric's samples now, of those that have some labels."""
        return sum(
            value
            for (found, _, has), value in self.read().items()
            if found == name and labels.items() <= dict(has).items()
        )


def venue_json(stack, path):
    """An answer of the practice venue; waits for one that is just being restarted."""

    def answer():
        addresses = stack.recorded()["venue"]["addresses"]
        return _get(f"http://{addresses['venue']}{path}")

    return json.loads(until(answer, f"the venue answers {path}", 30))


def quieten(stack, scrapes, *, deferring=False):
    """Let the venue print no more, and wait until all that it printed is where it ends.

    Where a level defers, its records stay on the tape and their intervals OPEN.
    """
    venue_json(stack, f"/k2/rate?trades_per_s={QUIET_RATE}")
    names = "k2_feed_frames_total", "k2_lake_rows_total", "k2_dead_letters_total", "k2_gap_ids"
    names += ("k2_deferred_records",)

    def state():
        return [scrapes.total(name) for name in names]

    def rests():
        before = state()
        CLOCK.sleep(QUIET_S)
        waits = scrapes.total("k2_lake_pending_rows")
        if not deferring:
            waits += scrapes.total("k2_gaps", state="OPEN")
        return before == state() and not waits

    until(rests, "all is quiet")


def tape_records(stack):
    """Every record of the tape: its headers and its value."""
    settings = {
        "bootstrap.servers": str(stack.addresses["broker"]),
        "group.id": "of-a-test",
        "enable.auto.commit": False,
    }
    consumer = Consumer(settings)
    try:
        ends = log_ends(stack)
        consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
        found = []
        while len(found) < sum(ends):
            found += [
                (dict(message.headers() or ()), message.value())
                for message in consumer.consume(1000, 5.0)
                if message.error() is None
            ]
        return found
    finally:
        consumer.close()


def log_ends(stack):
    """Where each partition of the tape ends."""
    consumer = Consumer(
        {"bootstrap.servers": str(stack.addresses["broker"]), "group.id": "of-a-test"}
    )
    try:
        partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        return [consumer.get_watermark_offsets(one, timeout=10)[1] for one in partitions]
    finally:
        consumer.close()


def _get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as refused:
        raise AssertionError(f"{url}: {refused.code} {refused.read().decode()}") from refused
    except OSError:  # a process that is just being restarted
        return ""
