"""A process of a prepared data directory gets its venue from the stamp."""

import io
import sys

import pytest

from k2 import settings
from k2.clock import SystemClock
from k2.errors import Data, Invalid, NotFound
from servers.commands import join
from servers.local.stamp import Stamp, write_stamp
from servers.runtime import Runtime

LIVE = Stamp("live", "live", "BINANCE")
PRACTICE = Stamp("simulated", "synthetic", "BINANCE_UM")


def joined(tmp_path, *argv, **feed):
    """What this process would become: the program, its arguments and the settings that it adds."""
    became = []
    loaded = settings.load(data_dir=tmp_path, feed=feed)
    runtime = Runtime(SystemClock(), "7" * 32, out=io.StringIO())
    join.run(loaded, runtime, list(argv), lambda *program: became.append(program))
    ((path, arguments, environment),) = became
    assert path == arguments[0] == sys.executable
    return arguments[1:], {name: environment[name] for name in environment if "FEED" in name}


def test_a_feed_of_a_practice_stack_listens_to_the_practice_venue(tmp_path):
    write_stamp(tmp_path / "stamp.json", PRACTICE)
    arguments, named = joined(tmp_path, "feed", "--practice-url", "ws://venue:8090")
    assert arguments == ["-P", "-m", "servers", "feed"]
    assert named == {
        "K2_FEED__VENUE": "synthetic",
        "K2_FEED__VENUE_URL": "ws://venue:8090",
        "K2_FEED__SOURCE": "simulated",
        "K2_FEED__EXCHANGE": "BINANCE_UM",
    }
    with pytest.raises(Invalid, match="--practice-url"):
        joined(tmp_path, "feed")
    with pytest.raises(Data, match="holds simulated data"):
        joined(tmp_path, "feed", venue="live")


def test_a_feed_of_a_live_stack_listens_to_the_venue_of_its_settings(tmp_path):
    write_stamp(tmp_path / "stamp.json", LIVE)
    _, named = joined(tmp_path, "feed", "--practice-url", "ws://venue:8090")
    assert named["K2_FEED__VENUE_URL"].startswith("wss://stream.binance.com")
    assert named["K2_FEED__SOURCE"] == "live"


def test_a_directory_that_is_not_prepared_is_refused(tmp_path):
    with pytest.raises(NotFound, match="python -m servers deploy"):
        joined(tmp_path, "feed")


@pytest.mark.parametrize("argv", [(), ("nosuch",), ("feed", "--other")])
def test_wrong_arguments_are_refused(tmp_path, argv):
    with pytest.raises(Invalid, match="join"):
        joined(tmp_path, *argv)
