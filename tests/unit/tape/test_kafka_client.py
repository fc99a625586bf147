"""Kafka's errors get the names that K2 reacts to."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from k2 import limits
from k2.errors import Data, Invalid, Overloaded, Reason, Unavailable
from k2.tape.kafka_client import configuration, retry_transient, translate


def test_names_are_dotted_but_for_callbacks():
    made = configuration("h:1", enable_idempotence=True, error_cb=print)
    assert made["bootstrap.servers"] == "h:1"
    assert made["enable.idempotence"] is True
    assert made["error_cb"] is print


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (KafkaError._ALL_BROKERS_DOWN, Unavailable, Reason.TAPE_UNAVAILABLE),
        (KafkaError.LEADER_NOT_AVAILABLE, Unavailable, Reason.TAPE_UNAVAILABLE),
        (KafkaError.NOT_LEADER_FOR_PARTITION, Unavailable, Reason.TAPE_UNAVAILABLE),
        (KafkaError._TRANSPORT, Unavailable, Reason.TAPE_UNAVAILABLE),
        (KafkaError._QUEUE_FULL, Overloaded, Reason.QUEUE_FULL),
        (KafkaError.OFFSET_OUT_OF_RANGE, Data, Reason.RETENTION_OVERTOOK),
        (KafkaError._LOG_TRUNCATION, Data, Reason.TAPE_TRUNCATED),
        (KafkaError.MSG_SIZE_TOO_LARGE, Invalid, Reason.LIMIT_OUT_OF_BOUNDS),
    ],
)
def test_errors_are_named(code, kind, reason):
    error = translate(KafkaException(KafkaError(code)), "cannot try")
    assert type(error) is kind
    assert error.reason == reason
    assert error.message.startswith("cannot try: ")
    assert (error.retry_after_s is None) == (kind in (Data, Invalid))


def test_what_is_not_ready_is_tried_again():
    answers = iter([not_ready(), not_ready(), "here"])
    assert retry_transient(lambda: answer(answers)) == "here"


def test_a_broker_that_is_silent_is_not_waited_for_twice():
    tries = []

    def attempt():
        tries.append(1)
        raise translate(KafkaError(KafkaError._TRANSPORT), "x")

    with pytest.raises(Unavailable):
        retry_transient(attempt)
    assert len(tries) == 1


def test_trying_ends():
    tries = []

    def attempt():
        tries.append(1)
        raise not_ready()

    with pytest.raises(Unavailable):
        retry_transient(attempt, pause_s=0.001)
    assert len(tries) == limits.TAPE_ATTEMPTS_MAX


def not_ready():
    return translate(KafkaError(KafkaError.LEADER_NOT_AVAILABLE), "x")


def answer(answers):
    found = next(answers)
    if isinstance(found, Exception):
        raise found
    return found
