import json

import pytest
from websockets.protocol import State

from k2.clock import ManualClock
from k2.errors import Data, NotFound
from servers.venue import recorded_source
from servers.venue.hub import Hub
from servers.venue.recorded_source import RecordedSource
from servers.venue.stream_list import parse_path
from tests.fakes.venue import FakeConnection

START_MS = 1_610_064_000_000
BTC = "/stream?streams=btcusdt@trade"


def trade(number, symbol="BTCUSDT", after_ms=0):
    event = {"e": "trade", "s": symbol, "t": number, "p": "1.0", "q": "1.0", "m": True}
    event |= {"T": START_MS + after_ms}
    return json.dumps({"stream": f"{symbol.lower()}@trade", "data": event}, separators=(",", ":"))


class World:
    def __init__(self, tmp_path, lines, speed=0.0):
        self.path = tmp_path / "a.jsonl"
        self.path.write_text("\n".join(lines) + "\n")
        self.kept = tmp_path / "venue" / "position.json"
        self.clock = ManualClock()
        self.speed = speed
        self.restart()

    def restart(self):
        self.hub = Hub()
        self.programme = RecordedSource(
            path=self.path, kept=self.kept, speed=self.speed, hub=self.hub, clock=self.clock
        )

    def join(self, path=BTC):
        return self.hub.add(FakeConnection(), parse_path(path))

    def run(self, ticks=5, step_s=0.0):
        for _ in range(ticks):
            self.programme.tick()
            self.clock.advance(step_s)


def numbers(listener):
    return [json.loads(text)["data"]["t"] for text in listener.connection.texts]


@pytest.fixture
def taken(monkeypatch):
    """How many bytes the other side has acknowledged; all by default."""
    state = {"left": 0}

    def acknowledged(listener):
        return listener.written - state["left"]

    monkeypatch.setattr(recorded_source.Listener, "acknowledged", property(acknowledged))
    return state


def test_it_waits_for_a_subscription(tmp_path, taken):
    world = World(tmp_path, [trade(n) for n in range(5)])
    world.run()
    assert world.programme.position == 0
    world.join("/stream")
    world.run()
    assert world.programme.position == 0
    listener = world.join()
    world.run()
    assert numbers(listener) == [0, 1, 2, 3, 4]
    assert world.programme.ended


def test_at_speed_zero_it_plays_as_it_is_taken(tmp_path, taken, monkeypatch):
    monkeypatch.setattr(recorded_source, "_CHUNK_FRAMES", 10)
    monkeypatch.setattr(recorded_source, "_BACKLOG_BYTES", 1000)
    world = World(tmp_path, [trade(n) for n in range(100)])
    listener = world.join()
    listener.connection.transport.taken = 0
    world.run(50)
    assert len(numbers(listener)) == 10, "no more than the bound lies waiting"
    assert world.programme.tick() > 0
    listener.connection.transport.taken = len(listener.connection.transport.data)
    world.programme.tick()
    assert len(numbers(listener)) == 20
    listener.connection.transport.taken = None
    world.run(50)
    assert numbers(listener) == list(range(100))


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_at_a_speed_it_keeps_the_recorded_pace(tmp_path, taken, speed):
    world = World(tmp_path, [trade(n, after_ms=n * 100) for n in range(20)], speed)
    listener = world.join()
    for _ in range(400):
        pause_s = world.programme.tick()
        assert 0 < pause_s <= 0.05
        passed_s = world.clock.monotonic_s() - ManualClock().monotonic_s()
        assert len(numbers(listener)) == min(20, 1 + int(passed_s * speed * 10 + 1e-3))
        world.clock.advance(0.0103)


def test_a_pause_of_the_listeners_stops_the_time_too(tmp_path, taken):
    world = World(tmp_path, [trade(n, after_ms=n * 1000) for n in range(10)], 1.0)
    first = world.join()
    world.run(25, 0.1)
    assert numbers(first) == [0, 1, 2]
    world.hub.remove(first)
    world.run(100, 0.1)
    second = world.join()
    world.run(15, 0.1)
    assert numbers(second) == [3, 4]


def test_frames_without_a_time_do_not_hold_it_up(tmp_path, taken):
    lines = [trade(1), '{"stream":"x@depth","data":{}}', trade(2, after_ms=1000)]
    world = World(tmp_path, lines, 1.0)
    listener = world.join()
    world.run(2)
    assert len(listener.connection.texts) == 2


def test_trades_go_to_who_wants_them_and_the_rest_to_all(tmp_path, taken):
    odd = '{"stream":"ltcusdt@kline_1m","data":{"e":"kline"}}'
    world = World(tmp_path, [trade(1), trade(2, "ETHUSDT"), odd, trade(3)])
    btc = world.join()
    both = world.join("/stream?streams=btcusdt@trade/ethusdt@trade")
    raw = world.join("/ws/ethusdt@trade")
    world.run()
    assert btc.connection.texts == [trade(1), odd, trade(3)]
    assert both.connection.texts == [trade(1), trade(2, "ETHUSDT"), odd, trade(3)]
    assert [json.loads(text) for text in raw.connection.texts] == [
        json.loads(trade(2, "ETHUSDT"))["data"],
        {"e": "kline"},
    ]


def test_a_restarted_venue_goes_on_at_its_position(tmp_path, taken, monkeypatch):
    monkeypatch.setattr(recorded_source, "_CHUNK_FRAMES", 10)
    world = World(tmp_path, [trade(n) for n in range(100)])
    first = world.join()
    world.run(3)
    world.programme.finish()
    world.restart()
    second = world.join()
    world.run(20)
    assert numbers(first) + numbers(second) == list(range(100))
    world.programme.finish()
    world.restart()
    third = world.join()
    world.run()
    assert third.connection.texts == []
    assert world.programme.ended


def test_a_killed_venue_repeats_and_never_skips(tmp_path, taken, monkeypatch):
    monkeypatch.setattr(recorded_source, "_CHUNK_FRAMES", 10)
    world = World(tmp_path, [trade(n) for n in range(200)])
    got = []
    for kill in range(8):
        listener = world.join()
        taken["left"] = 700 + 300 * kill
        world.run(3 + kill, 0.03)
        data = listener.connection.transport.data
        listener.connection.transport.data = data[: len(data) - taken["left"]]
        text = listener.connection.transport.data.decode(errors="replace")
        got += [int(part.split(",")[0]) for part in text.split('"t":')[1:] if "," in part]
        world.restart()
    taken["left"] = 0
    listener = world.join()
    world.run(50, 0.03)
    got += numbers(listener)
    assert set(got) == set(range(200))


def test_what_the_last_listener_did_not_take_is_played_to_the_next(tmp_path, taken, monkeypatch):
    monkeypatch.setattr(recorded_source, "_CHUNK_FRAMES", 10)
    world = World(tmp_path, [trade(n) for n in range(50)])
    first = world.join()
    world.run(1)
    taken["left"] = 10**6
    world.run(2)
    assert world.programme.position == 30
    assert world.programme.safe_position <= 10
    safe = world.programme.safe_position
    first.connection.state = State.CLOSED
    world.hub.remove(first)
    taken["left"] = 0
    second = world.join()
    world.run(20)
    assert numbers(second) == list(range(safe, 50))


def test_a_slow_connection_holds_the_safe_position_back(tmp_path, taken):
    world = World(tmp_path, [trade(n) for n in range(50)])
    world.join()
    taken["left"] = 1
    world.run(3, 1.0)
    assert (world.programme.position, world.programme.safe_position) == (50, 0)
    taken["left"] = 0
    world.run(3, 1.0)
    assert world.programme.safe_position == 50
    assert json.loads(world.kept.read_text())["position"] == 50


def test_the_position_of_another_recording_is_refused(tmp_path, taken):
    world = World(tmp_path, [trade(1)])
    world.join()
    world.run()
    world.programme.finish()
    world.path.write_text(trade(2) + "\n")
    with pytest.raises(Data, match="another recording"):
        world.restart()


@pytest.mark.parametrize("position", [-1, "x", None])
def test_a_damaged_position_is_refused(tmp_path, taken, position):
    world = World(tmp_path, [trade(1)])
    world.programme.finish()
    document = json.loads(world.kept.read_text()) | {"position": position}
    world.kept.write_text(json.dumps(document))
    with pytest.raises(Data):
        world.restart()


def test_an_empty_recording_has_ended(tmp_path, taken):
    world = World(tmp_path, [""])
    world.join()
    world.run()
    assert world.programme.ended


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"gone\.jsonl"):
        RecordedSource(
            path=tmp_path / "gone.jsonl",
            kept=tmp_path / "position.json",
            speed=1.0,
            hub=Hub(),
            clock=ManualClock(),
        )
