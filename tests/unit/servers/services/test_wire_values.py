"""Values of messages convert without loss."""

from google.protobuf import json_format

from k2.degrade.level import Level
from k2.market.events import TIME_MAX_US
from k2.market.offsets import OffsetVector
from k2.v1 import degradation_service_pb2
from servers.services import wire_values


def test_vectors_survive_the_wire():
    vector = OffsetVector(3, (1, 2**40, 0))
    assert wire_values.vector_from(wire_values.vector_to(vector)) == vector


def test_every_level_has_a_value_on_the_wire():
    numbers = [wire_values.level_to(level) for level in Level]
    assert numbers == [1, 2, 3, 4, 5]
    assert len(degradation_service_pb2.DegradationLevel.keys()) == 6


def test_every_source_has_a_value_on_the_wire():
    names = ["live", "recorded", "simulated", "", "?"]
    assert [wire_values.source_to(name) for name in names] == [1, 2, 3, 0, 0]


def test_a_time_beyond_the_year_9999_is_told_as_its_last_microsecond():
    late = wire_values.time_to(TIME_MAX_US + 1)
    assert late == wire_values.time_to(TIME_MAX_US)
    assert json_format.MessageToDict(late) == "9999-12-31T23:59:59.999999Z"
