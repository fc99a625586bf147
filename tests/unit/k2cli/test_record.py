import json

from k2cli.record import venue_of


def test_the_file_and_the_options_are_handed_on(k2, script, tmp_path):
    events = [{"event": "result", "message": "7 frames", "frames": 7}]
    directory = script("record", events)
    done = k2("record", "out.jsonl", "--symbols", "BTCUSDT", "--frames", 7, "--data-dir", directory)
    assert done.code == 0
    assert "7 frames" in done.stderr
    given = json.loads((directory / "record.given.json").read_text())["arguments"]
    assert given == [str(tmp_path / "out.jsonl"), "--symbols", "BTCUSDT", "--frames", "7"]
    found = k2("record", "out.jsonl", "--json", "--data-dir", directory).json
    assert found == {"message": "7 frames", "frames": 7}


def test_a_running_practice_venue_is_what_auto_means(k2, script, tmp_path):
    assert venue_of(tmp_path) == {}
    content = {"addresses": {"venue": "127.0.0.1:5"}, "symbols": ["BTCUSDT"]}
    directory = script("up", [{"event": "ready"}], stay=True, stack=content)
    k2("up", "-d", "--data-dir", directory)
    found = venue_of(directory)
    k2("down", "--data-dir", directory)
    assert found["K2_FEED__VENUE_URL"] == "ws://127.0.0.1:5"
    assert json.loads(found["K2_FEED__SYMBOLS"]) == ["BTCUSDT"]
