import io
import json

import pytest

from k2.clock import SystemClock
from k2.errors import Invalid
from servers.commands import backup
from servers.runtime import Runtime
from tests.support.data_dir import DataDir


@pytest.fixture
def made(tmp_path):
    one = DataDir(tmp_path / "k2")
    one.commit(2)
    yield one
    one.close()


def run(made, *argv, stop=False):
    out = io.StringIO()
    runtime = Runtime(SystemClock(), "a" * 32, out=out)
    if stop:
        runtime.stopping.set()
    code = backup.run(made.lake.settings, runtime, list(argv))
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


def test_it_says_what_it_took(made, tmp_path):
    code, lines = run(made, str(tmp_path / "b"))
    result = lines[-1]
    assert (code, result["event"]) == (0, "result")
    assert result["tables"][0]["name"] == "market.trades"
    assert result["folder"] == str(tmp_path / "b")
    assert result["message"].startswith("10 rows, ")
    assert "keep it private" in result["message"]
    assert lines[0]["event"] == "progress"


def test_asked_to_stop_it_says_so(made, tmp_path):
    code, lines = run(made, str(tmp_path / "b"), stop=True)
    assert (code, lines[-1]["event"]) == (130, "stopped")
    assert not (tmp_path / "b" / "backup.json").exists()


@pytest.mark.parametrize("argv", [(), ("a", "b")])
def test_one_folder_is_needed(made, argv):
    with pytest.raises(Invalid, match="one argument"):
        run(made, *argv)
