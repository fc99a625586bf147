"""What is asked of a real cluster about topics beside what the contract holds."""

from dataclasses import dataclass, replace

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from k2 import limits
from k2.clock import SystemClock
from k2.settings import TapeSettings
from k2.tape import topics
from k2.tape.producer import TapeProducer

pytestmark = pytest.mark.integration


@dataclass
class Registry:
    """Registers anything."""

    def register(self, subject, schema):
        return 1


def config_of(bootstrap, topic):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    asked = ConfigResource(ResourceType.TOPIC, topic)
    found = admin.describe_configs([asked])[asked].result(10)
    return {name: entry.value for name, entry in found.items()}


def test_a_topic_of_before_follows_the_settings(broker):
    settings = TapeSettings(bootstrap=broker, topic="configured.a", retention_hours=1)
    topics.deploy(settings, Registry())
    assert config_of(broker, "configured.a")["retention.ms"] == str(3_600_000)
    changed = settings.model_copy(
        update={"retention_hours": 3, "retention_bytes_per_partition": 4 * limits.MIB}
    )
    topics.deploy(changed, Registry())
    found = config_of(broker, "configured.a")
    assert found["retention.ms"] == str(3 * 3_600_000)
    assert found["retention.bytes"] == found["segment.bytes"] == str(4 * limits.MIB)


def test_offsets_since_a_time(broker):
    settings = TapeSettings(bootstrap=broker, topic="configured.b")
    topics.deploy(settings, Registry())
    clock = SystemClock()
    before_us = clock.now_us()
    producer = TapeProducer(settings)
    for value in (b"a", b"b"):
        producer.send(b"X:Y", value, 2, None, lambda offset, error: None)
    assert producer.flush(10) == 0
    producer.close()
    admin = topics.TapeAdmin(broker)
    later_us = clock.now_us() + 60_000_000
    assert admin.offsets_since("configured.b", 8, before_us - 60_000_000) == (0,) * 8
    assert admin.offsets_since("configured.b", 8, later_us) == (0, 0, 2, 0, 0, 0, 0, 0)
    facts = admin.facts("configured.b")
    stale = replace(facts, log_start=(7,) * 8, log_end=(7,) * 8)
    assert admin.bounds(stale) == facts
    sizes = {size.topic: size for size in admin.sizes(settings)}
    assert sizes["configured.b"] == topics.TopicSize("configured.b", 8, 2, 2)
    assert sizes[topics.GAPS].partitions == 1
    admin.close()


@pytest.mark.parametrize("skew_s", [-7200, 7200])
def test_a_record_is_as_old_as_the_broker_says_not_as_its_writer_does(broker, skew_s):
    """Kafka refuses a record from more than an hour ahead, and retention would go by its time."""
    settings = TapeSettings(bootstrap=broker, topic="configured.c")
    topics.deploy(settings, Registry())
    admin, now_us = topics.TapeAdmin(broker), SystemClock().now_us()
    theirs_ms, refused = now_us // 1000 + skew_s * 1000, []
    producer = Producer({"bootstrap.servers": broker})
    names = [each.topic for each in topics.layout(settings)]

    def told(error, message):
        refused.extend([message.topic()] if error else [])

    for name in names:
        producer.produce(name, b"x", b"skewed", 0, timestamp=theirs_ms, on_delivery=told)
    assert producer.flush(10) == 0
    producer.close()
    assert refused == []
    for name in names:
        (end,) = admin.facts(name).log_end[:1]
        assert admin.offsets_since(name, 1, now_us - 60_000_000) < (end,)
        assert admin.offsets_since(name, 1, now_us + 60_000_000) == (end,)
