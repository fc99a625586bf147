"""Each level prescribes something of its own."""

from k2.degrade.level import Level
from k2.degrade.policy import POLICIES


def test_every_level_has_a_policy_of_its_own():
    assert list(POLICIES) == list(Level)
    assert len(set(POLICIES.values())) == len(Level)
