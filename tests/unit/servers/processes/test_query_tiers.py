from k2.degrade.level import Level
from k2.degrade.platform import Levels
from k2.market.instrument import Instrument, Priorities
from servers.processes.query_tiers import TierPauses


class FakeTail:
    def __init__(self):
        self.paused = []

    def defer(self, partitions):
        self.paused = list(partitions)

    def deferred(self):
        return frozenset(self.paused)


def test_each_level_pauses_the_tiers_of_its_policy():
    tail = FakeTail()
    tiers = TierPauses(tail, dict, Priorities(), 2)
    seen = {}
    for level in Level:
        tiers.obey(Levels(platform=level))
        seen[level.name] = tail.paused
    assert seen == {
        "NORMAL": [],
        "SOFT": [],
        "GRACEFUL": [6, 7],
        "AGGRESSIVE": [2, 3, 4, 5, 6, 7],
        "CIRCUIT_BREAK": [2, 3, 4, 5, 6, 7],
    }
    assert tiers.counts() == {"critical": 0, "high": 2, "normal": 2, "low": 2}


def test_in_shadow_nothing_is_paused():
    tail = FakeTail()
    TierPauses(tail, dict, Priorities(), 2).obey(Levels(own=Level.AGGRESSIVE, shadow=True))
    assert tail.paused == []


def test_a_partition_with_a_critical_symbol_is_not_paused():
    tail, placed = FakeTail(), {}
    shib = Instrument("BINANCE", "SHIBUSDT")
    tiers = TierPauses(tail, lambda: placed, Priorities({shib.key: "critical"}), 1)
    tiers.obey(Levels(own=Level.AGGRESSIVE))
    assert tail.paused == [1, 2, 3]
    placed[shib] = 3
    tiers.refresh()
    assert tail.paused == [1, 2]
