import json

RESULT = {"event": "result", "ended": True, "epoch": 0, "reason": "TOPIC_RECREATED", "message": "m"}


def given(directory):
    return json.loads((directory / "new-epoch.given.json").read_text())["arguments"]


def test_it_shows_what_would_happen_and_does_it_when_told(k2, script):
    directory = script("new-epoch", [RESULT])
    shown = k2("tape", "new-epoch", "--data-dir", directory)
    assert (shown.code, shown.stdout) == (0, "TOPIC_RECREATED: m\n")
    assert given(directory) == []
    assert k2("tape", "new-epoch", "--yes", "--force", "--data-dir", directory).code == 0
    assert given(directory) == ["--yes", "--force"]


def test_the_document_for_programs(k2, script):
    done = k2("tape", "new-epoch", "--json", "--data-dir", script("new-epoch", [RESULT]))
    assert done.json == {name: value for name, value in RESULT.items() if name != "event"}


def test_why_it_was_refused(k2, script):
    failed = {"event": "failed", "reason": "ALREADY_RUNNING", "message": "stop it"}
    done = k2("tape", "new-epoch", "--data-dir", script("new-epoch", [failed], exit=7))
    assert (done.code, done.stdout) == (7, "")
    assert done.stderr == "k2: ALREADY_RUNNING: stop it\n"
