"""What every venue promises, whatever it speaks; a new venue joins by a line in `VENUES`."""

import pytest

from k2.feed.venues.binance import BinanceSource
from k2.feed.venues.source import Malformed, ShutdownAnnounced, Skipped
from k2.market.instrument import Instrument
from tests.fakes.scripted_venue import frame

NOW_US = 1_760_000_000_000_000
VENUES = {
    exchange: BinanceSource(
        url="wss://venue", exchange=exchange, symbols=["BTCUSDT", "ETHUSDT"], source="live"
    )
    for exchange in ("BINANCE", "BINANCE_UM")
}


@pytest.fixture(params=VENUES)
def source(request):
    return VENUES[request.param]


def test_it_has_a_name_and_says_what_it_listens_to(source):
    assert source.name
    assert source.instruments
    assert all(isinstance(each, Instrument) for each in source.instruments)
    assert len(set(source.instruments)) == len(source.instruments)


def test_its_addresses_are_websockets(source):
    assert source.addresses()
    assert all(address.startswith(("ws://", "wss://")) for address in source.addresses())


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", b"[1]", b'{"e":"other"}'])
def test_it_answers_whatever_it_is_given(source, raw):
    assert isinstance(source.decode(raw, NOW_US), tuple | Skipped | Malformed | ShutdownAnnounced)


def test_its_trades_are_of_its_instruments(source):
    (trade,) = source.decode(frame(1, "ETHUSDT").encode(), NOW_US)
    assert trade.label.instrument in source.instruments
    assert trade.receive_time_us == NOW_US
