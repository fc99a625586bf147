"""What a message holds, and keeping up. Publishing and reading are in the contract."""

import pytest

from k2 import limits
from k2.errors import Reason, Unavailable
from k2.market.events import Fault
from k2.market.schema import GAP, avro_schema
from k2.tape.avro.record_codec import RecordCodec
from k2.tape.gap_topic import GapLog, read_event
from tests.unit.market.test_ledger import OPEN

NOWHERE = "127.0.0.1:1"


class Registry:
    """Knows the schema, unless it is away."""

    away = False

    def schema(self, schema_id):
        if self.away:
            raise Unavailable(Reason.REGISTRY_UNAVAILABLE, "away")
        return avro_schema(GAP)


class Message:
    def __init__(self, offset, value):
        self._offset, self._value = offset, value

    def error(self):
        return None

    def offset(self):
        return self._offset

    def value(self):
        return self._value


class Records:
    """A consumer of some records."""

    def __init__(self, *values):
        self._left = [Message(at, value) for at, value in enumerate(values)]

    def consume(self, most, _timeout):
        given, self._left = self._left[:most], self._left[most:]
        return given


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def log(registry):
    made = GapLog(NOWHERE, registry)
    yield made
    made.close()


def encoded():
    return RecordCodec(GAP, Registry()).encode(OPEN.values(), 1)


def test_a_message_is_an_event_or_says_what_is_wrong():
    codec = RecordCodec(GAP, Registry())
    good = codec.encode(OPEN.values(), 1)
    assert read_event(codec, good) == OPEN
    assert read_event(codec, good[:-1]) is Fault.TRUNCATED
    assert read_event(codec, codec.encode(OPEN.values() | {"state": "LOST"}, 1)) is Fault.BAD_VALUE


def test_what_cannot_be_read_now_is_not_lost(log, registry):
    registry.away = True
    records = Records(encoded(), encoded())
    with pytest.raises(Unavailable):
        log._read(records)
    assert log._reached == 0
    registry.away = False
    log._read(records)
    assert (log._events, log._reached) == ([OPEN, OPEN], 2)


def test_what_is_no_event_is_passed_over(log):
    log._read(Records(b"", encoded(), None, b"\x00\x00\x00\x00\x01x"))
    assert (log._events, log._reached) == ([OPEN], 4)


def test_an_absent_broker_is_said(log, monkeypatch):
    monkeypatch.setattr(limits, "TAPE_REQUEST_S", 1.0)
    with pytest.raises(Unavailable) as caught:
        log.advance()
    assert caught.value.reason is Reason.TAPE_UNAVAILABLE
