"""A member of a group takes partitions of its own topic alone, whatever the group gives it."""

import pytest

from k2.tape.consumer import TapeReader
from tests.contract.real_tape import RealTape, read, send
from tests.fakes.tape import FakeTape
from tests.support.eventually import eventually

GROUP, MEMBER = "shared", "writer-1"


class FakeTopics:
    """Two topics of one cluster, and who shares them."""

    def __init__(self):
        self.before, self.now = FakeTape(partitions=8), FakeTape("other", partitions=4)
        self.now.groups = self.before.groups

    def joined(self, tape, on_assign, on_revoke):
        return tape.joined(GROUP, MEMBER, on_assign, on_revoke)

    def close(self):
        pass


class RealTopics:
    """The same on a real Kafka."""

    def __init__(self, bootstrap):
        self.before, self.now = RealTape(bootstrap), RealTape(bootstrap, partitions_per_tier=1)
        self._group = f"{self.before.topic}.{GROUP}"

    def joined(self, tape, on_assign, on_revoke):
        return tape.keep(
            TapeReader.joined(tape.settings, self._group, MEMBER, on_assign, on_revoke)
        )

    def close(self):
        self.now.close()
        self.before.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def two(request):
    made = (
        FakeTopics() if request.param == "fake" else RealTopics(request.getfixturevalue("broker"))
    )
    yield made
    made.close()


def test_partitions_of_another_topic_are_not_taken(two):
    """A static member that comes back in time is given what it had, though it asks for another."""
    send(two.before, 7, b"a")
    first = two.joined(two.before, lambda given: dict.fromkeys(given, 0), lambda taken: None)
    assert read(first, 1) == {7: [b"a"]}
    first.close()

    told = []

    def given(partitions):
        told.append(("given", partitions))
        return dict.fromkeys(partitions, 0)

    second = two.joined(two.now, given, lambda taken: told.append(("taken", taken)))
    eventually(lambda: second.read(10, 0.05) == [] and told)
    second.close()
    named = {partition for _, partitions in told for partition in partitions}
    assert named <= set(range(4)), "the other topic has eight"
