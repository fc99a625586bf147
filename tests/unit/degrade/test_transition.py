"""A change of the level survives as a document."""

import json
import math

import pytest

from k2.degrade.level import Level
from k2.degrade.transition import Transition, TransitionCause, transition_of
from k2.market import schema

RISE = Transition(
    at_us=1_700_000_000_000_001,
    before=Level.SOFT,
    after=Level.AGGRESSIVE,
    cause=TransitionCause.PRESSURE,
    process="lake",
    signal="writer_lag_s",
    reading=61.5,
    pressure=0.9,
    threshold=0.85,
    injected=True,
)
OVERRIDE = Transition(5, Level.SOFT, Level.NORMAL, TransitionCause.OVERRIDE, reason="a test")


@pytest.mark.parametrize("transition", [RISE, OVERRIDE])
def test_it_is_read_back_from_json(transition):
    assert transition_of(json.loads(json.dumps(transition.values()))) == transition


def test_a_message_carries_the_columns_of_the_table():
    fields = [field.name for field in schema.TRANSITION.fields if field.on_tape]
    assert list(RISE.values()) == fields


@pytest.mark.parametrize("reading", [math.nan, math.inf, None])
def test_what_is_no_number_was_not_readable(reading):
    values = Transition(5, Level.SOFT, Level.SOFT, TransitionCause.CALM, reading=reading).values()
    assert values["reading"] is None


@pytest.mark.parametrize(
    "changed",
    [
        {"changed": -1},
        {"changed": 2**70},
        {"changed": "soon"},
        {"from_level": "LOW"},
        {"cause": "MOOD"},
        {"pressure": None},
        {"reading": "much"},
    ],
)
def test_what_is_none_is_not_read(changed):
    assert transition_of(RISE.values() | changed) is None


@pytest.mark.parametrize("values", [None, 7, [], {}])
def test_what_is_no_document_is_none(values):
    assert transition_of(values) is None
