"""A producer without a broker: it takes what fits, then says so. The rest is in the contract."""

import re

import pytest
from confluent_kafka import Message
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics

from k2 import tracing
from k2.errors import Invalid, Overloaded, Reason, Unavailable
from k2.metrics import EVENTS
from k2.settings import TapeSettings
from k2.tape.producer import Delivery, Record, TapeProducer, producer_configuration
from tests.support.scraped import scraped
from tests.support.spans import recorded, trace_of

NOWHERE = TapeSettings(bootstrap="127.0.0.1:1", topic="t")


@pytest.fixture
def producer():
    return TapeProducer(NOWHERE, queue_max=3)


def test_records_are_never_dropped_by_a_timeout():
    made = producer_configuration("h:1")
    assert made["message.timeout.ms"] == 0
    assert made["enable.idempotence"] is True
    assert made["acks"] == "all"


def test_the_queue_is_bounded_and_outlives_an_absent_broker(producer):
    answers = []
    for number in range(3):
        producer.send(
            b"k", b"v", number, {"source": b"live"}, lambda *answer: answers.append(answer)
        )
    with pytest.raises(Overloaded) as caught:
        producer.send(b"k", b"v", 0)
    assert caught.value.reason == Reason.QUEUE_FULL
    assert producer.flush(0.05) == 3
    assert producer.depth() == 3
    assert answers == []


def test_what_is_left_at_the_end_is_reported(producer):
    answers = []
    producer.send(b"k", b"v", 0, None, lambda *answer: answers.append(answer))
    producer.close(drain_s=0.1)
    producer.close()
    ((offset, error),) = answers
    assert offset is None
    assert isinstance(error, Unavailable)


def test_large_records_are_refused(producer):
    with pytest.raises(Invalid):
        producer.send(b"k", bytes(2**20 + 1), 0)


def test_a_producer_that_failed_for_good_says_so(producer):
    class Fatal:
        """What librdkafka reports once a producer can go on no more."""

        def fatal(self):
            return True

        def code(self):
            return -150

        def str(self):
            return "out of order"

        def name(self):
            return "_FATAL"

    producer.note(Fatal())
    assert producer.failure is not None
    with pytest.raises(Unavailable):
        producer.send(b"k", b"v", 0)


def test_the_time_to_an_acknowledgement_has_the_trace_of_its_batch_as_its_exemplar(producer):
    with recorded() as spans:
        with tracing.begin("publish"):
            delivered = producer._delivery(lambda *_: None)
        with tracing.begin("another"):
            delivered(None, Message(topic="t", partition=0, offset=1))
    published, another = map(trace_of, spans())
    text = open_metrics(EVENTS).decode()
    assert re.search(rf'k2_produce_seconds_bucket.*trace_id="{published}"', text)
    assert another not in text


@pytest.fixture
def delivery():
    made = Delivery("127.0.0.1:1", "t", 1000)
    yield made
    made.close()


def test_nothing_is_sent_at_once(delivery):
    delivery.send([], 0)


def test_a_broker_that_is_away_ends_the_wait(delivery):
    with pytest.raises(Unavailable) as caught:
        delivery.send([Record("k", b"v")], 0.05)
    assert caught.value.retry_after_s


def test_a_record_that_is_too_large_is_refused(delivery):
    with pytest.raises(Invalid):
        delivery.send([Record("k", bytes(200_000))], 0.05)


def test_what_was_taken_and_given_up_is_counted(producer):
    producer.send(b"k", b"four", 0, None, lambda *answer: None)
    with pytest.raises(Invalid):
        producer.send(b"k", bytes(2**20 + 1), 0)
    found = scraped(producer.stats())
    assert found["k2_produce_records_total",] == 1
    assert found["k2_produce_queue_records",] >= 1
    assert found["k2_produce_bytes_total",] == 4
    assert found["k2_produce_errors_total",] == 0
    producer.close(drain_s=0.1)
    assert scraped(producer.stats())["k2_produce_errors_total",] == 1
