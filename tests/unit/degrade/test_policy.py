"""Each level prescribes something of its own."""

import itertools

from k2.degrade.level import Level
from k2.degrade.policy import POLICIES, batch_places, commit_scale
from k2.market.instrument import Tier


def test_every_level_has_a_policy_of_its_own():
    assert list(POLICIES) == list(Level)
    assert len(set(POLICIES.values())) == len(Level)


def test_a_higher_level_sheds_no_less():
    for lower, higher in itertools.pairwise(POLICIES.values()):
        assert higher.tiers <= lower.tiers
        assert higher.intake <= lower.intake
        assert higher.queries >= lower.queries
        assert higher.commit_scale >= lower.commit_scale
        assert higher.trace_scale <= lower.trace_scale
        assert (higher.enriches, higher.maintains) <= (lower.enriches, lower.maintains)


def test_critical_symbols_flow_until_the_feed_stops():
    flowing = [level for level, policy in POLICIES.items() if Tier.CRITICAL in policy.intake]
    assert flowing == [Level.NORMAL, Level.SOFT, Level.GRACEFUL, Level.AGGRESSIVE]
    assert all(Tier.CRITICAL in policy.tiers for policy in POLICIES.values())


def test_commits_grow_with_the_pressure_and_with_the_level():
    assert [commit_scale(Level.NORMAL, p) for p in (0.0, 0.25, 1.0)] == [1.0, 1.25, 2.0]
    assert commit_scale(Level.SOFT, 0.0) == 2.0


def test_batch_queries_have_fewer_places_under_pressure_and_always_one():
    assert [batch_places(8, p) for p in (0.0, 0.1, 0.5, 0.99, 1.0)] == [8, 8, 4, 1, 1]
