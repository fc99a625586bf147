"""What a message of the ledger holds. Publishing and reading are in the contract."""

from k2.market.events import Fault
from k2.market.schema import GAP, avro_schema
from k2.tape.ledger import read_event
from k2.tape.records import RecordCodec
from tests.unit.market.test_gaps import OPEN


class Registry:
    def schema(self, schema_id):
        return avro_schema(GAP)


def test_a_message_is_an_event_or_says_what_is_wrong():
    codec = RecordCodec(GAP, Registry())
    good = codec.encode(OPEN.values(), 1)
    assert read_event(codec, good) == OPEN
    assert read_event(codec, good[:-1]) is Fault.TRUNCATED
    assert read_event(codec, codec.encode(OPEN.values() | {"state": "LOST"}, 1)) is Fault.BAD_VALUE
