"""Each level prescribes at least as much as the one below it."""

from itertools import pairwise

from k2.degrade.level import Level
from k2.degrade.policy import POLICIES, Admitted
from k2.market.instrument import Tier


def test_every_level_has_a_policy():
    assert list(POLICIES) == list(Level)


def test_a_higher_level_never_allows_more():
    for lower, higher in pairwise(POLICIES.values()):
        assert higher.tiers <= lower.tiers
        assert higher.queries >= lower.queries
        assert higher.enrichment <= lower.enrichment
        assert higher.maintenance <= lower.maintenance
        assert higher.feeding <= lower.feeding


def test_the_ends():
    assert POLICIES[Level.NORMAL].tiers == frozenset(Tier)
    assert POLICIES[Level.CIRCUIT_BREAK].queries is Admitted.NONE
