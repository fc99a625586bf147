import pytest


def test_a_page_of_no_stack_is_named(k2, tmp_path):
    done = k2("open", "--print", "--data-dir", tmp_path)
    if done.code == 0:  # a K2 of this machine, on the port that containers publish
        assert done.stdout.startswith("http://127.0.0.1:8000")
        return
    assert done.code == 1
    assert done.stderr.startswith("k2: STACK_NOT_RUNNING: ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell(k2, shell):
    done = k2("completion", shell)
    assert done.code == 0
    assert "_K2_COMPLETE" in done.stdout
