import numpy as np
import pytest

from k2 import limits
from k2.errors import Data, Reason
from k2.lake.commit import TapeIdentity
from k2.lake.intake import check_tape, from_offset, judge, letters_of
from k2.market.events import Fault
from k2.market.fold import FoldState, Verdict
from k2.market.offsets import OffsetVector
from k2.tape.codec import Decoder
from k2.tape.consumer import RawBatch
from k2.tape.topics import TapeFacts
from tests.pump_world import BTC, Schemas, message

IDENTITY = TapeIdentity("t", "id", "cluster", 0, 2)


class Map:
    """A partition map that counts how often it had to be read."""

    def __init__(self, known, later=None):
        self.known, self.later, self.asked = known, later or {}, []

    def covering(self, instruments):
        self.asked.append(set(instruments))
        if set(instruments) <= set(self.known):
            return self.known
        return self.known | self.later


def batch(*values, first=10):
    offsets = np.arange(first, first + len(values), dtype=np.int64)
    return RawBatch(1, offsets, list(values), first + len(values))


def test_a_batch_is_judged_record_by_record():
    raw = batch(message(1), b"bad", message(1), message(2))
    judged = judge(raw, FoldState(), Decoder(Schemas()), Map({BTC: 1}))
    names = [Verdict(one).name for one in judged.verdicts]
    assert names == ["ACCEPTED", "DEAD", "DUPLICATE", "ACCEPTED"]
    assert (judged.state.accepted, judged.state.duplicate, judged.state.dead) == (2, 1, 1)


def test_only_symbols_of_good_records_are_asked_for():
    places = Map({BTC: 1})
    judge(batch(message(1), b"bad"), FoldState(), Decoder(Schemas()), places)
    judge(batch(b"bad"), FoldState(), Decoder(Schemas()), places)
    assert places.asked == [{BTC}, set()]


def test_letters_say_what_is_wrong():
    raw = batch(b"\x00\x00\x00\x00\x63xx", None, message(3, price=-1))
    judged = judge(raw, FoldState(), Decoder(Schemas()), Map({BTC: 1}))
    letters = letters_of(raw, judged, IDENTITY, 77)
    assert [(one.offset, one.fault, one.schema_id) for one in letters] == [
        (10, Fault.UNKNOWN_SCHEMA, 0x63),
        (11, Fault.NULL_VALUE, None),
        (12, Fault.OUT_OF_RANGE, 7),
    ]
    assert all(one.error and one.at_us == 77 and one.partition == 1 for one in letters)


def test_a_record_beyond_the_bound_of_holes_gets_a_letter_and_a_duplicate_none(monkeypatch):
    monkeypatch.setattr(limits, "INTERVALS_PER_KEY_MAX", 2)
    raw = batch(message(1), message(3), message(5), message(3))
    judged = judge(raw, FoldState(), Decoder(Schemas()), Map({BTC: 1}))
    letters = letters_of(raw, judged, IDENTITY, 77)
    assert [(one.offset, one.fault, one.value) for one in letters] == [
        (12, Fault.TOO_MANY_HOLES, message(5))
    ]


def test_records_before_an_offset_are_left_out():
    raw = batch(b"a", b"b", b"c")
    assert from_offset(raw, 5) is raw
    rest = from_offset(raw, 12)
    assert (rest.offset.tolist(), rest.values, rest.next_offset) == ([12], [b"c"], 13)


def facts(**changed):
    return TapeFacts(
        **{
            "cluster_id": "cluster",
            "topic": "t",
            "topic_id": "id",
            "partitions": 2,
            "log_start": (0, 5),
            "log_end": (9, 9),
        }
        | changed
    )


def test_a_tape_that_fits_is_taken():
    check_tape(facts(), IDENTITY, OffsetVector(0, (9, 5)), [0, 1])
    check_tape(facts(), IDENTITY, OffsetVector(0, (9, 0)), [0])


@pytest.mark.parametrize(
    ("changed", "positions", "reason"),
    [
        ({"cluster_id": "x"}, (0, 5), Reason.CLUSTER_CHANGED),
        ({"topic_id": "x"}, (0, 5), Reason.TOPIC_RECREATED),
        ({"partitions": 3}, (0, 5), Reason.PARTITIONS_CHANGED),
        ({"partitions": 3, "topic_id": "x"}, (0, 5), Reason.PARTITIONS_CHANGED),
        ({}, (0, 4), Reason.RETENTION_OVERTOOK),
        ({}, (10, 5), Reason.TAPE_TRUNCATED),
    ],
)
def test_a_tape_that_does_not_fit_is_refused_by_name(changed, positions, reason):
    with pytest.raises(Data) as caught:
        check_tape(facts(**changed), IDENTITY, OffsetVector(0, positions), [0, 1])
    assert caught.value.reason is reason
