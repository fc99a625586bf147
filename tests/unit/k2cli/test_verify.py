import pytest

HOLES = [{"symbol": "BTCUSDT", "first": 3, "last": 4}] * 25


def events(ok):
    return [
        {"event": "progress", "message": "folding", "done": 5, "total": 10},
        {"event": "result", "ok": ok, "message": "all agree", "holes": HOLES},
    ]


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_is_the_verdict(k2, script, ok, code):
    done = k2("verify", "--data-dir", script("verify", events(ok), exit=code))
    assert done.code == code
    assert done.stdout.startswith("ok: all agree" if ok else "FAILED: all agree")
    assert "BTCUSDT" in done.stdout
    assert "verify: folding" in done.stderr
    assert "holes: 5 more" in done.stderr


def test_the_report_for_programs(k2, script):
    done = k2("verify", "--json", "--data-dir", script("verify", events(True)))
    assert done.json == {"ok": True, "message": "all agree", "holes": HOLES}


def test_what_kept_it_from_verifying(k2, script):
    failed = {"event": "failed", "reason": "TAPE_UNAVAILABLE", "message": "no broker"}
    done = k2("verify", "--json", "--data-dir", script("verify", [failed], exit=1))
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == "k2: TAPE_UNAVAILABLE: no broker\n"
