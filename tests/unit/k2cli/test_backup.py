import pytest

RESULT = {
    "event": "result",
    "message": "10 rows in 5 files",
    "tables": [{"name": "market.trades", "snapshot_id": "12", "rows": 10, "positions": "0:1,2"}],
}


@pytest.mark.parametrize("name", ["backup", "restore"])
def test_what_was_done_is_shown(k2, script, tmp_path, name):
    events = [{"event": "progress", "message": "data files", "done": 1, "total": 2}, RESULT]
    done = k2(name, tmp_path / "b", "--data-dir", script(name, events))
    assert done.code == 0
    assert done.stdout.startswith("10 rows in 5 files")
    assert "market.trades" in done.stdout
    assert f"{name}: data files" in done.stderr


def test_one_document_for_programs(k2, script, tmp_path):
    done = k2("backup", "b", "--json", "--data-dir", script("backup", [RESULT]))
    assert done.json["tables"][0]["snapshot_id"] == "12"


def test_a_refusal_is_one_line(k2, script):
    failed = {"event": "failed", "reason": "NOT_EMPTY", "message": "holds data"}
    done = k2("restore", "b", "--keep-tape", "--data-dir", script("restore", [failed], exit=2))
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == "k2: NOT_EMPTY: holds data\n"


def test_stopped_it_says_what_that_means(k2, script):
    stopped = {"event": "stopped", "message": "stopped; nothing was restored"}
    done = k2("restore", "b", "--data-dir", script("restore", [stopped], exit=130))
    assert (done.code, done.stdout) == (130, "")
    assert "nothing was restored" in done.stderr
