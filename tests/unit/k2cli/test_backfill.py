import json

import pytest

RESULT = {"event": "result", "message": "3 trades loaded", "loaded": 3, "refused": 1}
REFUSED = {"event": "refused", "place": "line 7", "error": "price is not a number"}


@pytest.fixture(autouse=True)
def _tape(monkeypatch):
    monkeypatch.setenv("K2_TAPE__BOOTSTRAP", "127.0.0.1:1")


def test_a_request_says_what_it_takes(k2, asked):
    done = k2("backfill", "BTCUSDT", "--from-id", 5, "--to-id", 2004)
    assert done.code == 0
    assert "BINANCE:BTCUSDT 5 to 2004: 2,000 ids in 3 requests, 90 s at the earliest" in done.stdout
    found = k2("backfill", "BTCUSDT", "--from-id", 5, "--to-id", 2**60, "--json").json
    assert (found["last_trade_id"], found["eta_s"]) == (str(2**60), 90.0)


@pytest.mark.parametrize(
    "arguments",
    [[], ["BTCUSDT"], ["BTCUSDT", "--from-id", "1"], ["--from-id", "1", "--to-id", "2"],
     ["X", "--from-id", "-1", "--to-id", "2"], ["--file", "none.zip"]],
)  # fmt: skip
def test_half_a_request_is_none(k2, arguments):
    done = k2("backfill", *arguments)
    assert done.code == 2
    assert done.stderr.startswith("k2: BAD_REQUEST: ")


def test_a_file_is_loaded_by_a_process_of_its_own(k2, script, tmp_path):
    directory = script("backfill", [REFUSED, RESULT], exit=1)
    file = tmp_path / "BTCUSDT-trades-2025-01-01.zip"
    file.touch()
    done = k2("backfill", "--file", file, "--data-dir", directory)
    assert (done.code, done.stdout) == (1, "3 trades loaded\n")
    assert "line 7: price is not a number" in done.stderr
    given = json.loads((directory / "backfill.given.json").read_text())
    assert given["arguments"] == [str(file.resolve())]
    done = k2("backfill", "BTCUSDT", "--file", file, "--json", "--data-dir", directory)
    assert done.json["loaded"] == 3
    both = k2("backfill", "--file", file, "--from-id", 1, "--data-dir", directory)
    assert both.code == 2
