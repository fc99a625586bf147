"""The real tape behind the names of `tests.fakes.tape.FakeTape`, and how tests read either."""

from itertools import count

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from k2.errors import Data
from k2.market.schema import GAP, avro_schema
from k2.settings import TapeSettings
from k2.tape import topics
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import TapeReader
from k2.tape.dead_letter_topic import DeadLetterTopic
from k2.tape.gap_topic import GapLog
from k2.tape.producer import TapeProducer
from tests.support.eventually import eventually

_numbers = count()


class NoRegistry:
    """Deployment of topics alone; every id means a gap event."""

    def register(self, subject, schema):
        return 1

    def schema(self, schema_id):
        return avro_schema(GAP)


class RealTape:
    """The real parts behind the fake's names; each test has a topic of its own."""

    def __init__(self, bootstrap, **given):
        name = f"contract.{next(_numbers)}"
        self.settings = TapeSettings(bootstrap=bootstrap, topic=name, **given)
        self.topic = name
        self._opened = []
        topics.deploy(self.settings, NoRegistry())

    def producer(self, queue_max=100_000):
        return self.keep(TapeProducer(self.settings, queue_max))

    def reader(self, start):
        return self.keep(TapeReader.assigned(self.settings, start))

    def joined(self, group, instance_id, on_assign, on_revoke):
        group = f"{self.topic}.{group}"
        return self.keep(TapeReader.joined(self.settings, group, instance_id, on_assign, on_revoke))

    def admin(self):
        return self.keep(topics.TapeAdmin(self.settings.bootstrap))

    def board(self, topic):
        return self.keep(CompactedTopic(self.settings.bootstrap, topic))

    def office(self):
        return self.keep(DeadLetterTopic(self.settings.bootstrap))

    def gap_log(self):
        return self.keep(GapLog(self.settings.bootstrap, NoRegistry()))

    def remove_before(self, partition, offset):
        admin = AdminClient({"bootstrap.servers": self.settings.bootstrap})
        for future in admin.delete_records(
            [TopicPartition(self.topic, partition, offset)]
        ).values():
            future.result(10)

    def close(self):
        for part in reversed(self._opened):
            part.close()

    def keep(self, part):
        self._opened.append(part)
        return part


def send(tape, partition, *values):
    """Send and wait for the acknowledgements; the offsets."""
    producer = tape.producer()
    offsets = []
    for value in values:
        producer.send(b"X:Y", value, partition, None, lambda offset, error: offsets.append(offset))
    assert producer.flush(10) == 0
    producer.close()
    return offsets


def read(reader, total, timeout_s=10):
    """Values by partition, once `total` records came."""
    seen = {}

    def enough():
        for batch in reader.read(1000, 0.05):
            assert batch.offset.tolist() == sorted(batch.offset.tolist())
            assert batch.next_offset == batch.offset[-1] + 1
            seen.setdefault(batch.partition, []).extend(batch.values)
        return sum(map(len, seen.values())) >= total

    eventually(enough, timeout_s)
    return seen


def failure_of(reader):
    """The error that reading ends in."""

    def failed():
        try:
            reader.read(10, 0.05)
        except Data as error:
            return error
        return None

    return eventually(failed)
