import io
import json

import pytest

from k2.clock import SystemClock
from k2.errors import Invalid, Reason
from k2.settings import Settings
from servers.commands import restore
from servers.runtime import Runtime
from tests.support.data_dir import DataDir


@pytest.fixture
def backup(tmp_path):
    one = DataDir(tmp_path / "k2")
    one.commit(2)
    one.back_up(tmp_path / "backup")
    one.close()
    return str(tmp_path / "backup")


def run(into, *argv, stop=False):
    out = io.StringIO()
    runtime = Runtime(SystemClock(), "a" * 32, out=out)
    if stop:
        runtime.stopping.set()
    code = restore.run(Settings(data_dir=into), runtime, list(argv))
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def test_it_says_what_came_back(backup, tmp_path):
    code, lines = run(tmp_path / "new", backup)
    assert (code, lines[-1]["event"]) == (0, "result")
    assert lines[-1]["data_dir"] == str(tmp_path / "new")
    assert lines[-1]["message"].startswith("10 rows, ")
    assert (tmp_path / "new" / "lake" / "catalog.db").exists()


def test_asked_to_stop_it_says_so(backup, tmp_path):
    code, lines = run(tmp_path / "new", backup, stop=True)
    assert (code, lines[-1]["event"]) == (130, "stopped")
    assert not (tmp_path / "new" / "lake").exists()


def test_the_tape_is_kept_when_asked(backup, tmp_path):
    with pytest.raises(Invalid) as refused:
        run(tmp_path / "new", backup, "--keep-tape")
    assert refused.value.reason is Reason.BAD_REQUEST


@pytest.mark.parametrize("argv", [(), ("a", "b"), ("--keep-tape",)])
def test_one_folder_is_needed(tmp_path, argv):
    with pytest.raises(Invalid, match="takes a folder"):
        run(tmp_path / "new", *argv)
