from k2.market.instrument import Tier, split_symbol, tier_of
from servers.venue.market.instruments import LISTED, listing_of


def test_at_least_twelve_dollar_pairs_of_all_tiers_are_listed():
    assert len(LISTED) >= 12
    assert all(split_symbol(symbol)[1] == "USDT" for symbol in LISTED)
    assert {tier_of(symbol) for symbol in LISTED} == set(Tier)


def test_activity_follows_the_tiers():
    weights = {
        tier: [listing.weight for symbol, listing in LISTED.items() if tier_of(symbol) is tier]
        for tier in Tier
    }
    assert min(weights[Tier.CRITICAL]) > max(weights[Tier.HIGH])
    assert sum(weights[Tier.HIGH]) > sum(weights[Tier.LOW])


def test_steps_are_plausible():
    for listing in LISTED.values():
        assert listing.tick >= 1
        assert listing.lot >= 1
        assert 400 <= listing.price_ticks < 10**9, "a price has room to walk by its tick"
        assert listing.size_lots >= 1


def test_an_unlisted_symbol_trades_seldom_and_always_alike():
    assert listing_of("SEIUSDT") == listing_of("SEIUSDT") != listing_of("WIFUSDT")
    assert listing_of("PEPEUSDT").weight < 1
