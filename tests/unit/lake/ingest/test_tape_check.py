from types import SimpleNamespace

import numpy as np
import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.errors import Data, Reason
from k2.lake.commit.committer import TapeIdentity
from k2.lake.ingest.tape_check import check_tape, letters_of
from k2.market.events import Fault
from k2.market.fold import FoldState
from k2.market.offsets import OffsetVector
from k2.tape.acceptance import Acceptance
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import RawBatch
from k2.tape.topics import TopicDescription
from tests.support.writer_world import BTC, Schemas, message

IDENTITY = TapeIdentity("t", "id", "cluster", 0, 2)


def batch(*values, first=10):
    offsets = np.arange(first, first + len(values), dtype=np.int64)
    return RawBatch(1, offsets, list(values), first + len(values))


def judged(raw):
    placement = SimpleNamespace(refresh_for=lambda instruments: {BTC: 1})
    return Acceptance(Decoder(Schemas()), placement, ManualClock()).judge(raw, FoldState())


def test_letters_say_what_is_wrong():
    raw = batch(b"\x00\x00\x00\x00\x63xx", None, message(3, price=-1))
    letters = letters_of(judged(raw), IDENTITY, 77)
    assert [(one.offset, one.fault, one.schema_id) for one in letters] == [
        (10, Fault.UNKNOWN_SCHEMA, 0x63),
        (11, Fault.NULL_VALUE, None),
        (12, Fault.OUT_OF_RANGE, 7),
    ]
    assert all(one.error and one.at_us == 77 and one.partition == 1 for one in letters)


def test_a_record_beyond_the_bound_of_holes_gets_a_letter_and_a_duplicate_none(monkeypatch):
    monkeypatch.setattr(limits, "INTERVALS_PER_KEY_MAX", 2)
    raw = batch(message(1), message(3), message(5), message(3))
    letters = letters_of(judged(raw), IDENTITY, 77)
    assert [(one.offset, one.fault, one.value) for one in letters] == [
        (12, Fault.TOO_MANY_HOLES, message(5))
    ]


def facts(**changed):
    return TopicDescription(
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
