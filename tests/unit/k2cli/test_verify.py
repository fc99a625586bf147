import pytest

from k2cli.verify import tape_of
from k2client.errors import NotFound

HOLES = [{"symbol": "BTCUSDT", "first_id": "3000", "last_id": "4000"}] * 25
STACK = {"addresses": {"broker": "b:1", "registry": "http://r:1"}}


@pytest.fixture(autouse=True)
def _tape(monkeypatch):
    monkeypatch.setenv("K2_TAPE__BOOTSTRAP", "127.0.0.1:1")


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
    assert " 3000 " in done.stdout
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


def test_the_tape_is_that_of_the_stack_or_of_the_environment(k2, script, tmp_path, monkeypatch):
    assert tape_of(tmp_path) == {}
    directory = script("up", [{"event": "ready"}], stay=True, stack=STACK)
    k2("up", "-d", "--data-dir", directory)
    found = tape_of(directory)
    k2("down", "--data-dir", directory)
    assert found == {"K2_TAPE__BOOTSTRAP": "b:1", "K2_TAPE__REGISTRY_URL": "http://r:1"}
    monkeypatch.delenv("K2_TAPE__BOOTSTRAP")
    with pytest.raises(NotFound):
        tape_of(directory)
