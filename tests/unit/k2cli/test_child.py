import json

from k2cli.child import Spawned
from tests.support.eventually import eventually


def test_only_json_lines_with_an_event_count(script, tmp_path):
    directory = script("up", [{"event": "a"}, {"no": "event"}, {"event": "b"}])
    with Spawned("up", ["--x", "1"], directory) as child:
        assert [event["event"] for event in child.events()] == ["a", "b"]
        assert child.wait() == 0
    assert json.loads((directory / "up.given.json").read_text())["arguments"] == ["--x", "1"]


def test_a_detached_one_is_followed_from_where_its_log_was(script):
    directory = script("up", [{"event": "a"}])
    for _ in range(2):
        with Spawned("up", [], directory, detached=True) as child:
            assert [event["event"] for event in child.events()] == ["a"]
    assert (directory / "logs" / "up.jsonl").read_text() == '{"event": "a"}\n' * 2


def test_the_end_by_a_signal_is_128_and_its_number(script):
    directory = script("up", [{"event": "a"}], stay=True)
    with Spawned("up", [], directory) as child:
        next(child.events())
        child._process.kill()
        assert child.wait() == 128 + 9


def test_what_is_not_let_go_is_ended(script):
    directory = script("up", [{"event": "a"}], stay=True)
    with Spawned("up", [], directory) as child:
        next(child.events())
    assert child._process.returncode == 0
    assert eventually(lambda: child.wait() == 0)


def test_last_words_are_this_runs_own(script):
    directory = script("up", [], exit=1, stderr="first\nsecond\n")
    with Spawned("up", [], directory) as child:
        child.wait()
        assert child.last_words() == "second"
    directory = script("up", [], exit=1, stderr='{"level": "error", "message": "third"}\n')
    with Spawned("up", [], directory) as child:
        child.wait()
        assert child.last_words() == "third"
    directory = script("up", [], exit=1)
    with Spawned("up", [], directory) as child:
        child.wait()
        assert child.last_words() == ""


def test_old_logs_are_bounded(script):
    directory = script("up", [{"event": "a"}])
    log = directory / "logs" / "up.jsonl"
    log.parent.mkdir()
    log.write_bytes(b"x" * (8 * 2**20 + 1))
    with Spawned("up", [], directory, detached=True) as child:
        assert [event["event"] for event in child.events()] == ["a"]
    assert log.read_text() == '{"event": "a"}\n'
