"""Arguments of `k2 up` on top of the settings."""

import pytest

from k2 import settings
from k2.errors import Invalid, Reason
from servers.local.stack_options import read_options


def read(*argv, **loaded):
    return read_options(settings.load(**loaded), list(argv))


def test_without_arguments_the_settings_hold(tmp_path):
    options = read(data_dir=tmp_path, feed={"symbols": ("A",)}, venue={"rate": 3})
    assert options.settings.data_dir == tmp_path
    assert options.settings.feed.symbols == ("A",)
    assert options.settings.venue.rate == 3
    assert options.ports == "fixed"
    assert not options.exchange_asked
    assert not options.ports_asked
    assert not options.observe
    assert not options.notebooks


def test_prometheus_and_fixed_ports_are_asked_for():
    options = read("--observe", "--ports", "fixed")
    assert (options.observe, options.ports, options.ports_asked) == (True, "fixed", True)
    assert read("--notebooks").notebooks


def test_arguments_go_before_settings(tmp_path):
    options = read(
        *("--data-dir", str(tmp_path / "x"), "--venue", "synthetic", "--rate", "2000"),
        *("--speed", "0", "--symbols", "BTCUSDT, ETHUSDT,BTCUSDT", "--exchange", "BINANCE_UM"),
        *("--ports", "free", "--feeds", "2"),
        data_dir=tmp_path,
        feed={"stale_s": 7.0, "exchange": "OTHER"},
    )
    config = options.settings
    assert config.data_dir == tmp_path / "x"
    assert (config.venue.rate, config.venue.speed) == (2000, 0)
    assert config.feed.symbols == ("BTCUSDT", "ETHUSDT")
    assert config.feed.exchange == "BINANCE_UM"
    assert config.feed.venue == "synthetic"
    assert config.feed.stale_s == 7.0
    assert config.feed.names == ("feed", "feed-2")
    assert options.ports == "free"
    assert options.exchange_asked


def test_the_data_directory_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read("--data-dir", "here").settings.data_dir == tmp_path / "here"


@pytest.mark.parametrize(
    "argv",
    [
        ["--ports", "some"],
        ["--rate", "fast"],
        ["--rate", "0"],
        ["--rate", "-5"],
        ["--rate", "inf"],
        ["--speed", "-1"],
        ["--speed", "nan"],
        ["--symbols", ","],
        ["--symbols", "BTC USDT"],
        ["--symbols", "a/b"],
        ["--feeds", "0"],
        ["--feeds", "5"],
        ["--exchange", "binance"],
        ["--nonsense"],
        ["extra"],
        ["--data"],
    ],
)
def test_wrong_arguments_are_refused(argv):
    with pytest.raises(Invalid):
        read(*argv)


@pytest.mark.parametrize("name", ["data_dir", "cache_dir"])
def test_a_user_without_a_home_is_named(tmp_path, name):
    paths = {"data_dir": tmp_path, "cache_dir": tmp_path} | {name: "~no-such-user/k2"}
    with pytest.raises(Invalid, match=f"no such home directory.*K2_{name.upper()}") as refused:
        read(**paths)
    assert refused.value.reason is Reason.BAD_SETTING
