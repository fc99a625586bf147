import json


def test_the_file_and_the_options_are_handed_on(k2, script, tmp_path):
    events = [{"event": "result", "message": "7 frames", "frames": 7}]
    directory = script("record", events)
    done = k2("record", "out.jsonl", "--symbols", "BTCUSDT", "--data-dir", directory)
    assert done.code == 0
    assert "7 frames" in done.stderr
    given = json.loads((directory / "record.given.json").read_text())["arguments"]
    assert given == [str(tmp_path / "out.jsonl"), "--symbols", "BTCUSDT"]
    found = k2("record", "out.jsonl", "--json", "--data-dir", directory).json
    assert found == {"message": "7 frames", "frames": 7}
