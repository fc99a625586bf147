import io
import json
import socket

import pytest

from k2.clock import ManualClock
from k2.errors import Data, Invalid, NotFound, Reason, Unavailable
from k2.settings import FeedSettings, Settings, VenueSettings
from servers.processes import venue
from servers.runtime import Runtime
from servers.venue.hub import Hub
from servers.venue.market.instruments import LISTED
from servers.venue.market.synthetic_market import Market
from servers.venue.recorded_source import RecordedSource
from servers.venue.state_files import read_segments
from servers.venue.synthetic_source import SyntheticSource

NOW = 1_795_000_000_000_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")


@pytest.fixture
def runtime():
    return Runtime(ManualClock(NOW), "0" * 32, out=io.StringIO())


def chosen(tmp_path, what="synthetic", symbols=SYMBOLS, **of_venue):
    return Settings(
        data_dir=tmp_path,
        feed=FeedSettings(venue=what, symbols=symbols),
        venue=VenueSettings(**of_venue),
    )


def recording_file(tmp_path):
    path = tmp_path / "a.jsonl"
    event = {"e": "trade", "s": "BTCUSDT", "t": 1, "T": 1610064000278}
    path.write_text(json.dumps({"stream": "btcusdt@trade", "data": event}) + "\n")
    return path


def test_the_synthetic_market_is_on(tmp_path, runtime):
    show = venue._show(chosen(tmp_path), runtime, Hub())
    assert isinstance(show.source, SyntheticSource)
    assert set(show.archive.symbols()) == set(LISTED)
    counters = show.counters()
    assert counters.rate == 130.0
    assert counters.ids.keys() == set(SYMBOLS)
    assert counters.until_us == NOW


def test_symbols_of_any_script_and_with_a_date_are_traded(tmp_path, runtime):
    symbols = ("BTCUSDT_250328", "币安人生USDT")
    show = venue._show(chosen(tmp_path, symbols=symbols), runtime, Hub())
    for symbol in symbols:
        (trade,) = show.archive.trades(symbol, None, 1)
        assert trade.id == show.counters().ids[symbol]


def test_a_recording_is_on(tmp_path, runtime):
    path = recording_file(tmp_path)
    show = venue._show(chosen(tmp_path, f"recording:{path}", speed=0), runtime, Hub())
    assert isinstance(show.source, RecordedSource)
    assert set(show.archive.symbols()) == {"BTCUSDT"}
    assert show.counters() == venue.RecordingCounters(
        speed=0, position=0, safe_position=0, ended=False
    )


def test_a_second_start_keeps_the_market_and_its_ids(tmp_path, runtime):
    kept = tmp_path / "venue" / "segments.json"
    for rate in (50.0, 50.0):
        venue._show(chosen(tmp_path, rate=rate), runtime, Hub())
        assert len(read_segments(kept, 7)) == 1
    before = Market(7, read_segments(kept, 7))
    runtime.clock.advance(60)
    venue._show(chosen(tmp_path, rate=900.0), runtime, Hub())
    after = Market(7, read_segments(kept, 7))
    assert len(after.segments) == 2
    now = runtime.clock.now_us()
    assert after.emitted("BTCUSDT", now) == before.emitted("BTCUSDT", now)
    venue._show(chosen(tmp_path, rate=900.0, symbols=("PEPEUSDT",)), runtime, Hub())
    assert len(read_segments(kept, 7)) == 3


def test_a_changed_rate_is_counted_and_kept(tmp_path, runtime):
    show = venue._show(chosen(tmp_path), runtime, Hub())
    show.rate.change(900.0)
    assert show.counters().rate == 900.0
    assert len(read_segments(tmp_path / "venue" / "segments.json", 7)) == 2


def test_another_seed_in_the_same_folder_is_refused(tmp_path, runtime):
    venue._show(chosen(tmp_path), runtime, Hub())
    with pytest.raises(Data, match="seed 7, not 8"):
        venue._show(chosen(tmp_path, seed=8), runtime, Hub())


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("auto", {}),
        ("live", {}),
        ("recording", {}),
        ("synthetic", {"rate": 100_001.0}),
        ("synthetic", {"symbols": ()}),
        ("synthetic", {"symbols": ("BTC/USDT",)}),
        ("synthetic", {"symbols": ("A" * 21,)}),
        ("synthetic", {"symbols": ("币" * 7,)}),
    ],
)
def test_wrong_settings_are_refused(tmp_path, runtime, what, changes):
    with pytest.raises(Invalid) as raised:
        venue._show(chosen(tmp_path, what, **changes), runtime, Hub())
    assert raised.value.reason is Reason.BAD_SETTING


def test_a_missing_recording_is_not_found(tmp_path, runtime):
    with pytest.raises(NotFound):
        venue._show(chosen(tmp_path, "recording:/no/such/file"), runtime, Hub())


def test_it_takes_no_arguments_and_only_loopback(tmp_path, runtime):
    with pytest.raises(Invalid, match="no arguments"):
        venue.run(chosen(tmp_path), runtime, ["--fast"])
    with pytest.raises(Invalid, match="loopback"):
        venue.run(chosen(tmp_path, listen="0.0.0.0:0"), runtime, [])


def test_a_port_in_use_is_said_before_anything_is_served(tmp_path, runtime):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable) as raised:
            venue.run(chosen(tmp_path, listen=listen), runtime, [])
    assert raised.value.reason is Reason.PORT_IN_USE
    assert runtime.out.getvalue() == ""
