"""A data directory is prepared for processes that are started one by one."""

import io

import pytest

from k2 import settings
from k2.clock import SystemClock
from k2.errors import Data, Invalid
from servers.commands import deploy
from servers.local.embedded_stack import check_writable
from servers.local.stamp import Stamp, read_stamp, write_stamp
from servers.runtime import Runtime


@pytest.fixture
def runtime():
    return Runtime(SystemClock(), "7" * 32, out=io.StringIO())


def config(tmp_path, venue="auto", **more):
    feed = {"venue": venue, "venue_url": "ws://127.0.0.1:9", "exchange": "BINANCE_UM"}
    return settings.load(data_dir=tmp_path, feed=feed, **more)


def test_a_new_directory_is_stamped_once(tmp_path, runtime):
    check_writable(tmp_path)
    stamped = deploy.stamp_directory(config(tmp_path), runtime)
    assert stamped == Stamp("simulated", "synthetic", "BINANCE_UM"), "the live venue is away"
    assert deploy.stamp_directory(config(tmp_path), runtime) == stamped
    with pytest.raises(Data, match="holds simulated data"):
        deploy.stamp_directory(config(tmp_path, "live"), runtime)


def test_what_it_was_made_for_stays(tmp_path, runtime):
    write_stamp(tmp_path / "stamp.json", Stamp("live", "live", "BINANCE"))
    assert deploy.stamp_directory(config(tmp_path), runtime).exchange == "BINANCE"
    assert read_stamp(tmp_path / "stamp.json").venue == "live"


def test_it_takes_no_arguments(tmp_path, runtime):
    with pytest.raises(Invalid, match="no arguments"):
        deploy.run(config(tmp_path), runtime, ["now"])


def test_asked_to_stop_it_waits_for_no_broker(tmp_path, runtime):
    runtime.stopping.set()
    assert deploy.run(config(tmp_path), runtime, []) == 1
