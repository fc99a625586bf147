import pytest

from k2.errors import NotFound, Reason
from k2.market.instrument import Instrument
from k2.query.request import TradesRequest
from k2.query.scope import Scope, scope_of

BTC, ETH = Instrument("BINANCE", "BTCUSDT"), Instrument("BINANCE", "ETHUSDT")
BTC_UM = Instrument("BINANCE_UM", "BTCUSDT")


class Homes:
    """A partition map that was read before `later` came."""

    def __init__(self, homes, later=()):
        self._homes, self._later = dict(homes), dict(later)
        self.reads = 0

    def known(self):
        return dict(self._homes)

    def refresh(self):
        self.reads += 1
        self._homes |= self._later
        return self.known()


class Read:
    """A tail of which only the instruments matter."""

    def __init__(self, *instruments):
        self._instruments = instruments

    def instruments(self):
        return set(self._instruments)


def asked(homes, *read, **fields):
    return scope_of(TradesRequest(**fields), homes, Read(*read), 4)


def test_without_names_all_partitions_are_asked():
    assert asked(Homes({})) == Scope(None, frozenset(range(4)))


def test_names_are_looked_up_without_a_read():
    homes = Homes({BTC: 0, BTC_UM: 3, ETH: 1})
    assert asked(homes, symbols=("BTCUSDT",)) == Scope(frozenset({BTC, BTC_UM}), frozenset({0, 3}))
    assert asked(homes, exchanges=("BINANCE",)).partitions == {0, 1}
    assert homes.reads == 0


def test_the_map_is_read_again_for_a_new_name_or_a_new_exchange_of_an_old_one():
    homes = Homes({BTC: 0}, later={ETH: 1})
    assert asked(homes, symbols=("ETHUSDT",)).partitions == {1}
    homes = Homes({BTC: 0}, later={BTC_UM: 3})
    assert asked(homes, BTC_UM, symbols=("BTCUSDT",)).partitions == {0, 3}


def test_an_unknown_symbol_or_exchange_is_named():
    homes = Homes({BTC: 0})
    for fields in ({"symbols": ("BTCUSDT", "NOPE")}, {"exchanges": ("NOPE",)}):
        with pytest.raises(NotFound) as caught:
            asked(homes, **fields)
        assert caught.value.reason is Reason.UNKNOWN_SYMBOL
        assert caught.value.metadata == {"unknown": "NOPE"}


ADA = Instrument("OTHER", "ADAUSDT")


@pytest.mark.parametrize(
    ("symbols", "exchanges", "said", "unknown"),
    [
        (("BTCUSDT",), ("COINBASE",), "no trade on COINBASE was ever seen", "COINBASE"),
        (("NOPE",), ("BINANCE",), "no trade of NOPE was ever seen", "NOPE"),
        (("NOPE",), ("COINBASE",), "no trade of NOPE on COINBASE was ever seen", "NOPE,COINBASE"),
        (("BTCUSDT",), ("OTHER",), "no trade of BTCUSDT on OTHER was ever seen", "BTCUSDT,OTHER"),
        (("BTCUSDT", "ADAUSDT"), ("BINANCE",), "no trade of ADAUSDT on BINANCE was ever seen",
         "ADAUSDT"),
        (("BTCUSDT",), ("BINANCE", "OTHER"), "no trade of BTCUSDT on OTHER was ever seen", "OTHER"),
    ],
)  # fmt: skip
def test_only_what_is_unknown_is_named(symbols, exchanges, said, unknown):
    with pytest.raises(NotFound) as caught:
        asked(Homes({BTC: 0, ADA: 2}), symbols=symbols, exchanges=exchanges)
    assert (str(caught.value), caught.value.metadata) == (said, {"unknown": unknown})


def test_of_many_unknown_names_a_few_are_named_and_the_rest_counted():
    names = tuple(f"N{number}" for number in range(100))
    with pytest.raises(NotFound) as caught:
        asked(Homes({BTC: 0}), symbols=names)
    assert str(caught.value) == "no trade of N0, N1, N2, N3, N4 and 95 more was ever seen"
    assert caught.value.metadata == {"unknown": "N0,N1,N2,N3,N4"}
