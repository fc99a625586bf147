import pytest

from k2.errors import Invalid, Reason
from k2.market.instrument import (
    _TIERS,
    Instrument,
    Priorities,
    Tier,
    first_partition,
    is_symbol,
    parse_key,
    split_symbol,
    tier_of,
)
from k2.settings import FeedSettings


@pytest.mark.parametrize(
    ("symbol", "base", "quote"),
    [
        ("BTCUSDT", "BTC", "USDT"),
        ("BTCFDUSD", "BTC", "FDUSD"),
        ("ETHBTC", "ETH", "BTC"),
        ("1INCHUSDT", "1INCH", "USDT"),
        ("BTCAEUR", "BTC", "AEUR"),
        ("ETHAEUR", "ETH", "AEUR"),
        ("EURAEUR", "EUR", "AEUR"),
        ("AEURUSDT", "AEUR", "USDT"),
        ("ADAEUR", "ADA", "EUR"),
        ("GALAEUR", "GALA", "EUR"),
        ("BTCXUSD", "BTC", "XUSD"),
        ("XUSDUSDT", "XUSD", "USDT"),
        ("AVAXUSD", "AVAX", "USD"),
        ("SNXUSD", "SNX", "USD"),
        ("BNBUSD", "BNB", "USD"),
        ("BNBBUSD", "BNB", "BUSD"),
        ("PEPEBUSD", "PEPE", "BUSD"),
        ("XRPRLUSD", "XRP", "RLUSD"),
        ("BTCU", "BTC", "U"),
        ("UUSDT", "U", "USDT"),
        ("PEPEU", "PEPEU", ""),
        ("U", "U", ""),
        ("BTCEURI", "BTC", "EURI"),
        ("WLFIUSD1", "WLFI", "USD1"),
        ("USD1USDT", "USD1", "USDT"),
        ("BTCUSDT_250328", "BTCUSDT_250328", ""),
        ("USDT", "USDT", ""),
        ("币安人生", "币安人生", ""),
    ],
)
def test_base_and_quote(symbol, base, quote):
    assert split_symbol(symbol) == (base, quote)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTCUSDT_250328", "币安人生USDT", "1INCH", "A" * 64])
def test_what_a_venue_may_name(symbol):
    assert is_symbol(symbol)


@pytest.mark.parametrize(
    "odd", ["", "btcusdt", "A" * 65, "币" * 22, "A\udce5", "A\n", "A\x1b", "A\xa0"]
)
def test_what_is_no_symbol(odd):
    assert not is_symbol(odd)


@pytest.mark.parametrize("character", '@/&?#:,%"\\ \t\0')
def test_no_symbol_holds_a_character_that_parts_names(character):
    assert not is_symbol(f"A{character}B")


@pytest.mark.parametrize(
    ("symbol", "tier"),
    [
        ("BTCUSDT", Tier.CRITICAL),
        ("ETHUSDC", Tier.CRITICAL),
        ("BTCUSD1", Tier.CRITICAL),
        ("BTCAEUR", Tier.LOW),
        ("BNBUSDT", Tier.HIGH),
        ("DOGEUSDT", Tier.NORMAL),
        ("UNIUSDT", Tier.NORMAL),
        ("PEPEUSDT", Tier.LOW),
        ("NEWUSDT", Tier.LOW),
        ("ETHBTC", Tier.LOW),
    ],
)
def test_tiers(symbol, tier):
    assert tier_of(symbol) is tier


def test_a_symbol_starts_in_a_partition_of_its_tier():
    for symbol in ("BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT", "PEPEUSDT"):
        partition = first_partition(Instrument("BINANCE", symbol), 3)
        assert partition // 3 == tier_of(symbol)
    pepe = Instrument("BINANCE", "PEPEUSDT")
    assert first_partition(pepe, 3, Priorities({pepe.key: "critical"})) < 3


def test_at_least_fifty_symbols_are_ranked_and_none_twice():
    bases = [base for ranked in _TIERS.values() for base in ranked]
    assert len(set(bases)) == len(bases) >= 50
    assert all(tier_of(f"{base}USDT") is tier for tier in Tier for base in _TIERS[tier])


def test_the_default_symbols_have_two_of_each_tier():
    tiers = [tier_of(symbol) for symbol in FeedSettings().symbols]
    assert len(tiers) == 14
    assert all(tiers.count(tier) >= 2 for tier in Tier)


def test_an_operator_ranks_a_symbol_otherwise():
    priorities = Priorities({"BINANCE:SHIBUSDT": "critical"})
    assert priorities.tier(Instrument("BINANCE", "SHIBUSDT")) is Tier.CRITICAL
    assert priorities.tier(Instrument("BINANCE_UM", "SHIBUSDT")) is Tier.LOW


def test_a_partition_has_the_tier_of_its_most_critical_symbol():
    placed = {Instrument("BINANCE", "SHIBUSDT"): 3, Instrument("BINANCE", "PEPEUSDT"): 3}
    assert Priorities().of_partitions(placed, 1) == tuple(Tier)
    raised = Priorities({"BINANCE:SHIBUSDT": "high"})
    assert raised.of_partitions(placed, 1) == (*tuple(Tier)[:3], Tier.HIGH)


def test_symbols_in_a_partition_of_another_tier_are_named():
    pepe = Instrument("BINANCE", "PEPEUSDT")
    placed = {Instrument("BINANCE", "SHIBUSDT"): 7, pepe: 7, Instrument("BINANCE", "BTCUSDT"): 0}
    assert Priorities().misplaced(placed, 2) == ()
    raised = Priorities({"BINANCE:SHIBUSDT": "high"})
    assert raised.misplaced(placed, 2) == ((pepe, Tier.HIGH),)


def test_the_first_partition_is_stable():
    assert first_partition(Instrument("BINANCE", "BTCUSDT"), 2) == first_partition(
        Instrument("BINANCE", "BTCUSDT"), 2
    )


def test_keys_read_back():
    assert parse_key("BINANCE:BTCUSDT") == Instrument("BINANCE", "BTCUSDT")


@pytest.mark.parametrize("text", ["", "BINANCE", ":BTCUSDT", "BINANCE:"])
def test_other_keys_are_refused(text):
    with pytest.raises(Invalid) as caught:
        parse_key(text)
    assert caught.value.reason is Reason.BAD_REQUEST


def test_a_chosen_priority_replaces_the_default():
    chosen = Priorities({"BINANCE:PEPEUSDT": "critical"})
    assert chosen.tier(Instrument("BINANCE", "PEPEUSDT")) is Tier.CRITICAL
    assert chosen.tier(Instrument("OTHER", "PEPEUSDT")) is tier_of("PEPEUSDT")
    assert Priorities().tier(Instrument("BINANCE", "BTCUSDT")) is Tier.CRITICAL
    with pytest.raises(Invalid):
        Priorities({"PEPEUSDT": "critical"})


def test_a_chosen_priority_decides_the_tier_of_a_partition():
    priorities = Priorities({"X:A": "low", "X:B": "critical"})
    placed = {Instrument("X", "A"): 4, Instrument("X", "B"): 4, Instrument("X", "BTCUSDT"): 7}
    assert priorities.of_partitions({}, 2) == tuple(tier for tier in Tier for _ in range(2))
    assert priorities.of_partitions(placed, 2)[4:] == (
        *(Tier.CRITICAL, Tier.NORMAL, Tier.LOW, Tier.CRITICAL),
    )
