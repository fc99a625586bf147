"""Batches are cut by partition; lost positions get their name. The rest is in the contract."""

import pytest
from confluent_kafka import Message, Producer

from k2.errors import Reason
from k2.settings import TapeSettings
from k2.tape.consumer import TapeReader, by_partition, lost_position
from tests.support.eventually import eventually
from tests.support.spans import recorded


def message(partition, offset, value):
    return Message(topic="t", partition=partition, offset=offset, value=value)


def test_one_partition_is_one_batch():
    (batch,) = by_partition([message(3, 5, b"a"), message(3, 7, None)])
    assert (batch.partition, batch.values, batch.next_offset) == (3, [b"a", None], 8)
    assert batch.offset.tolist() == [5, 7]
    assert len(batch) == 2


def test_partitions_that_take_turns_are_put_apart_in_order():
    turns = [message(n % 3, n // 3, b"%d" % n) for n in range(10)]
    batches = by_partition(turns)
    assert [batch.partition for batch in batches] == [0, 1, 2]
    assert batches[0].values == [b"0", b"3", b"6", b"9"]
    assert batches[2].offset.tolist() == [0, 1, 2]
    assert batches[1].next_offset == 3


def test_a_single_record_beside_others():
    batches = by_partition([message(0, 0, b"a"), message(1, 9, b"b"), message(0, 1, b"c")])
    assert [batch.values for batch in batches] == [[b"a", b"c"], [b"b"]]


def test_lost_positions_are_named():
    overtaken = lost_position(2, 10, 15, 90)
    assert overtaken.reason == Reason.RETENTION_OVERTOOK
    assert "5 records" in overtaken.message
    truncated = lost_position(2, 100, 15, 90)
    assert truncated.reason == Reason.TAPE_TRUNCATED
    assert truncated.metadata == {"partition": "2", "position": "100", "log_end": "90"}


@pytest.fixture
def bootstrap():
    """A broker of the client's own, in this process."""
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
    (broker,) = producer.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    producer.close()


def test_a_read_of_no_record_is_no_failure_where_traces_are_sent(bootstrap):
    reader = TapeReader.assigned(TapeSettings(bootstrap=bootstrap, topic="t"), {0: 0})
    with recorded():
        assert reader.read(10, 0.01) == []
    reader.close()


def test_a_pause_does_not_outlive_its_assignment(bootstrap):
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for number in range(20):
        producer.produce("t", value=b"%d" % number, partition=0)
    assert producer.flush(10) == 0
    reader = TapeReader.assigned(TapeSettings(bootstrap=bootstrap, topic="t"), {0: 0})
    eventually(lambda: reader.read(10, 0.1))
    reader.pause([0])
    reader._consumer.unassign()
    reader._assign({0: 5})
    assert eventually(lambda: reader.read(10, 0.1))[0].offset[0] == 5
    reader.close()
    producer.close()
