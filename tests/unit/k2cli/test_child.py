import json

from k2cli.child import Spawned, run_tool, tool_answer
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


def test_a_child_that_is_not_detached_is_ended(script):
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


def run(script, events, **more):
    taken = []
    directory = script("verify", events, **more)
    return run_tool("verify", [], directory, taken.append), taken


def test_events_other_than_progress_are_passed_on(script, capfd):
    step = {"event": "step", "name": "lake", "message": "reading"}
    result = {"event": "result", "ok": True}
    assert run(script, [step, result]) == (0, [result])
    assert capfd.readouterr().err == "lake: reading\n"


def test_the_answer_of_a_tool_is_the_fields_of_its_events(script):
    rows, verdict = {"event": "rows", "rows": 3}, {"event": "result", "ok": True}
    directory = script("verify", [rows, verdict], exit=1)
    assert tool_answer("verify", [], directory) == (1, {"rows": 3, "ok": True})


def test_a_stopped_tool_says_so_and_has_no_result(script, capfd):
    stopped = {"event": "stopped", "message": "verify: stopped before its end"}
    assert run(script, [stopped], exit=130) == (130, [])
    assert capfd.readouterr().err == "verify: stopped before its end\n"


def test_a_failure_is_never_exit_code_0(script, capfd):
    failed = {"event": "failed", "reason": "LAKE_CORRUPT", "message": "a file is gone"}
    assert run(script, [failed]) == (1, [])
    assert capfd.readouterr().err == "k2: LAKE_CORRUPT: a file is gone\n"


def test_a_tool_that_ends_without_an_event_is_explained_by_its_log(script, capfd):
    assert run(script, [], exit=7, stderr="out of memory\n") == (7, [])
    assert capfd.readouterr().err == "k2: verify ended with 7: out of memory\n"
