import json

CHECKS = [
    {"event": "check", "name": "disk", "ok": True, "message": "9 GiB free"},
    {"event": "check", "name": "ports", "ok": True, "message": "all free"},
    {"event": "settings", "settings": {"lake": {"commit_interval_s": 10.0}, "ticket_key": "***"}},
    {"event": "done", "ok": True},
]


def test_checks_and_settings_for_people(k2, script):
    done = k2("doctor", "--data-dir", script("doctor", CHECKS))
    assert done.code == 0
    assert "9 GiB free" in done.stdout
    assert "lake.commit_interval_s" in done.stdout


def test_one_document_for_programs(k2, script):
    found = k2("doctor", "--json", "--data-dir", script("doctor", CHECKS)).json
    assert found["ok"] is True
    assert found["checks"][0] == {"name": "disk", "ok": True, "message": "9 GiB free"}
    assert found["settings"]["ticket_key"] == "***"


def test_a_failed_check_is_an_exit_code(k2, script):
    failed = {"event": "check", "name": "disk", "ok": False, "message": "full"}
    done = k2(
        "doctor", "--json", "--data-dir", script("doctor", [failed], exit=1, stderr="a log\n")
    )
    assert (done.code, done.json["ok"], done.stderr) == (1, False, "")


def test_what_a_stack_needs_is_fetched_when_asked(k2, script):
    directory = script("doctor", CHECKS)
    assert k2("doctor", "--fetch", "--data-dir", directory).code == 0
    assert json.loads((directory / "doctor.given.json").read_text())["arguments"] == ["--fetch"]
