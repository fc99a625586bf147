"""Each port is a part of the class it names, and of the fake that stands in for it."""

import inspect

import pytest

from k2.tape import ports
from k2.tape.compacted_topic import CompactedTopic, LogReader
from k2.tape.consumer import TapeReader
from k2.tape.dead_letter_topic import DeadLetterTopic
from k2.tape.gap_topic import GapLog
from k2.tape.partition_map import PartitionMap
from k2.tape.producer import TapeProducer
from k2.tape.schema_registry import SchemaStore
from tests.fakes import tape as fakes

PAIRS = [
    (ports.BatchReader, TapeReader, fakes.FakeReader),
    (ports.RecordSender, TapeProducer, fakes.FakeProducer),
    (ports.DocumentTopic, CompactedTopic, fakes.FakeBoard),
    (ports.DocumentLogReader, LogReader, fakes.FakeLogReader),
    (ports.GapEventLog, GapLog, fakes.FakeGapLog),
    (ports.LetterSink, DeadLetterTopic, fakes.FakeOffice),
    (ports.Placement, PartitionMap, None),
    (ports.Schemas, SchemaStore, None),
]


def members_of(port):
    return [name for name in vars(port) if not name.startswith("_")]


def parameters_of(owner, name):
    member = inspect.getattr_static(owner, name)
    return list(inspect.signature(member).parameters) if inspect.isfunction(member) else None


@pytest.mark.parametrize(
    ("port", "real", "fake"), PAIRS, ids=lambda given: getattr(given, "__name__", "")
)
def test_a_port_restates_its_class_and_the_fake_follows_it(port, real, fake):
    for name in members_of(port):
        wanted = parameters_of(port, name)
        for owner in filter(None, (real, fake)):
            given = parameters_of(owner, name)
            assert given is None or given[: len(wanted)] == wanted, (owner, name)


def test_every_port_is_checked():
    defined = {
        port for port in vars(ports).values() if getattr(port, "__module__", "") == ports.__name__
    }
    assert defined == {port for port, _, _ in PAIRS}
