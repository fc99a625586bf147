"""A record of the topic is a transition, or has a fault."""

import json

import pytest

from k2 import limits
from k2.degrade.level import Level
from k2.degrade.transition import Transition, TransitionCause
from k2.errors import Unavailable
from k2.market.events import Fault
from k2.tape.transition_topic import read_transition, read_transitions

MADE = Transition(5, Level.SOFT, Level.NORMAL, TransitionCause.CALM, "lake", "rss_bytes", 0.5)


def test_a_transition_is_read():
    assert read_transition(json.dumps(MADE.values()).encode()) == MADE


@pytest.mark.parametrize("value", [b"what?", b"\xff", b"[]", b"{}"])
def test_anything_else_is_a_bad_value(value):
    assert read_transition(value) is Fault.BAD_VALUE


def test_a_record_without_a_value_is_named():
    assert read_transition(None) is Fault.NULL_VALUE


def test_a_tape_that_is_away_is_said(monkeypatch):
    monkeypatch.setattr(limits, "TAPE_REQUEST_S", 1.0)
    with pytest.raises(Unavailable):
        next(read_transitions("127.0.0.1:1"))
