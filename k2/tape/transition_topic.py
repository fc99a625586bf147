"""The topic of the level's changes: a JSON document of each, in order; not compacted.

Control appends to it (`CompactedTopic.put`); the lake stores each as a row of `ops.transitions`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from k2.degrade.transition import Transition, transition_of
from k2.market.events import Fault
from k2.tape import topics
from k2.tape.topic_reader import read_topic


def read_transitions(bootstrap: str, start: int = 0) -> Iterator[tuple[int, Transition]]:
    """Read the transitions from an offset on, with their offsets, up to the end at the call.

    A record that is none is passed over: it is a dead letter of the topic.

    Raises:
        Unavailable: TAPE_UNAVAILABLE.
    """
    for message in read_topic(bootstrap, topics.TRANSITIONS, start):
        transition = read_transition(message.value())
        if isinstance(transition, Transition):
            yield message.offset() or 0, transition


def read_transition(value: bytes | None) -> Transition | Fault:
    """Read the transition that a message holds, or what is wrong with it."""
    if value is None:
        return Fault.NULL_VALUE
    try:
        document = json.loads(value)
    except ValueError:
        return Fault.BAD_VALUE
    return transition_of(document) or Fault.BAD_VALUE
