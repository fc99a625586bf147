"""`record` keeps what a venue sends, exactly, and ends as it was asked to."""

import io
import json
import threading

import pytest

from k2 import settings as k2_settings
from k2.clock import SystemClock
from k2.errors import Invalid
from k2.feed.recording import read_frames
from servers.commands.record import run
from servers.runtime import Runtime
from tests.fakes.scripted_venue import FakeVenue, frame
from tests.support.eventually import eventually


@pytest.fixture
def venue():
    with FakeVenue() as made:
        yield made


@pytest.fixture
def runtime():
    return Runtime(SystemClock(), "a" * 32, out=io.StringIO())


def record(runtime, *arguments, **settings):
    assert run(k2_settings.load(**settings), runtime, [str(each) for each in arguments]) == 0
    return json.loads(runtime.out.getvalue().splitlines()[-1])


@pytest.mark.parametrize("name", ["session.jsonl", "session.jsonl.zst"])
def test_frames_are_kept_as_they_came(venue, runtime, tmp_path, name):
    sent = [frame(1), "garbage \u20ac", frame(2, "ETHUSDT")]
    venue.greeting = sent
    path = tmp_path / name
    told = record(
        runtime, path, "--venue", venue.url, "--frames", 3, "--symbols", "btcusdt,ETHUSDT"
    )
    assert [each.text for each in read_frames(path)] == sent
    assert (told["event"], told["frames"], told["connections"]) == ("recorded", 3, 1)
    assert venue.connections[0].streams == ["btcusdt@trade", "ethusdt@trade"]


def test_lines_name_their_connection_and_time(venue, runtime, tmp_path):
    venue.greeting = [frame(1)]
    before_s = runtime.clock.now_us() / 1e6
    record(runtime, "--out", tmp_path / "f", "--url", venue.url, "--frames", "1")
    connect, recv = map(json.loads, (tmp_path / "f").read_text().splitlines())
    assert (connect["t"], connect["conn"], recv["t"]) == ("connect", "BINANCE.ws.1", "recv")
    assert before_s <= connect["ts"] <= recv["ts"] <= runtime.clock.now_us() / 1e6


def test_it_goes_on_after_a_lost_connection(venue, runtime, tmp_path):
    venue.greeting = [frame(1)]
    done = []
    worker = threading.Thread(
        target=lambda: done.append(
            record(runtime, tmp_path / "f", "--venue", venue.url, "--frames", 2)
        )
    )
    worker.start()
    venue.await_connection(1).cut()
    worker.join(20)
    assert done[0]["connections"] == 2


def test_it_ends_after_so_long(venue, runtime, tmp_path):
    told = record(runtime, tmp_path / "f", "--venue", venue.url, "--duration", "0.2s")
    assert (told["frames"], told["seconds"] < 10) == (0, True)


def test_a_silent_venue_is_left_after_the_time_that_is_set(venue, runtime, tmp_path):
    asked = (tmp_path / "f", "--venue", venue.url, "--duration", "1.5s")
    assert record(runtime, *asked, feed={"stale_s": 0.1})["connections"] > 1


def test_it_ends_when_asked_and_the_file_is_whole(venue, runtime, tmp_path):
    venue.greeting = [frame(each) for each in range(1, 101)]
    path = tmp_path / "f.zst"

    def stop():
        venue.await_connection(1)
        eventually(lambda: path.exists() and path.stat().st_size)
        runtime.stopping.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    told = record(runtime, path, "--venue", venue.url)
    stopper.join()
    assert told["frames"] == len(list(read_frames(path))) == 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which file"),
        (["a", "--out", "b"], "which file"),
        (["a", "--duration", "soon"], "not a duration"),
        (["a", "--duration", "0s"], "not a duration"),
        (["a", "--frames", "-1"], "frames"),
        (["a", "--frames", "0"], "frames"),
        (["a", "--symbols", ","], "no symbol"),
        (["a", "--venue", "http://x"], "ws://"),
        (["a", "--what"], "unrecognized"),
    ],
)
def test_wrong_arguments_are_refused(runtime, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Invalid, match=said):
        record(runtime, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_is_never_overwritten(venue, runtime, tmp_path):
    (tmp_path / "f").write_text("precious")
    with pytest.raises(Invalid, match="never overwritten"):
        record(runtime, tmp_path / "f", "--venue", venue.url, "--frames", 1)
    assert (tmp_path / "f").read_text() == "precious"
