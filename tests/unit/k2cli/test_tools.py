from k2cli.tools import run_tool


def run(script, events, **more):
    taken = []
    directory = script("verify", events, **more)
    return run_tool("verify", [], directory, taken.append), taken


def test_what_is_not_progress_is_handed_on(script, capfd):
    step = {"event": "step", "name": "lake", "message": "reading"}
    result = {"event": "result", "ok": True}
    assert run(script, [step, result]) == (0, [result])
    assert capfd.readouterr().err == "lake: reading\n"


def test_what_was_stopped_says_so_and_is_no_result(script, capfd):
    stopped = {"event": "stopped", "message": "verify: stopped before its end"}
    assert run(script, [stopped], exit=130) == (130, [])
    assert capfd.readouterr().err == "verify: stopped before its end\n"


def test_a_failure_is_never_exit_code_0(script, capfd):
    failed = {"event": "failed", "reason": "LAKE_CORRUPT", "message": "a file is gone"}
    assert run(script, [failed]) == (1, [])
    assert capfd.readouterr().err == "k2: LAKE_CORRUPT: a file is gone\n"


def test_one_that_ends_without_a_word_is_explained_by_its_log(script, capfd):
    assert run(script, [], exit=7, stderr="out of memory\n") == (7, [])
    assert capfd.readouterr().err == "k2: verify ended with 7: out of memory\n"
