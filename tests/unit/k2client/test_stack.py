import fcntl
import json

import pytest

from k2client import stack
from k2client.errors import Data, Invalid, NotFound


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    for name in ("K2_ADDRESS", "K2_DATA_DIR", "K2_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def running(tmp_path):
    """A data directory whose stack runs, with `.k2` as its name."""
    run = tmp_path / ".k2" / "run"
    run.mkdir(parents=True)
    content = {
        "state": "SERVING",
        "supervisor_pid": 7,
        "addresses": {"control": "127.0.0.1:5"},
        "processes": [{"name": "broker"}],
    }
    (run / "stack.json").write_text(json.dumps(content))
    with (run / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield run.parent


def test_a_running_stack_says_where_it_is(running):
    found = stack.read_stack(running)
    assert (found.state, found.supervisor_pid) == ("SERVING", 7)
    assert [each["name"] for each in found.processes] == ["broker"]
    assert stack.control_address() == "127.0.0.1:5"


def test_a_file_outlives_its_stack_but_is_not_believed(running):
    (running / "run" / "lock").unlink()
    found = stack.read_stack(running)
    assert (found.state, found.supervisor_pid, found.addresses) == ("STOPPED", None, {})
    with pytest.raises(NotFound, match="k2 up") as caught:
        stack.control_address()
    assert caught.value.reason == "STACK_NOT_RUNNING"


def test_one_that_starts_has_no_address_yet(running):
    (running / "run" / "stack.json").write_text('{"state": "STARTING"}')
    with pytest.raises(NotFound, match="still starting"):
        stack.control_address()


@pytest.mark.parametrize("text", ["not json", "[]"])
def test_a_file_that_is_none_is_said(running, text):
    (running / "run" / "stack.json").write_text(text)
    with pytest.raises(Data) as caught:
        stack.read_stack(running)
    assert caught.value.reason == "UNREADABLE_STACK_FILE"


def test_a_directory_that_was_given_goes_before_the_environment(running, monkeypatch, tmp_path):
    monkeypatch.setenv("K2_ADDRESS", "far:1")
    assert stack.control_address() == "far:1"
    assert stack.control_address("near:2") == "near:2"
    assert stack.control_address(None, running) == "127.0.0.1:5"
    with pytest.raises(NotFound):
        stack.control_address(None, tmp_path / "other")


@pytest.mark.parametrize(
    ("given", "address"),
    [("h:1", "h:1"), ("grpc://h:1", "h:1"), ("h", "h:50051"), ("[::1]:1", "[::1]:1")],
)
def test_addresses(given, address):
    assert stack.control_address(given) == address


@pytest.mark.parametrize("given", [":1", "h:x", "h:"])
def test_what_is_no_address_is_refused(given):
    with pytest.raises(Invalid):
        stack.control_address(given)


def test_the_key_is_the_one_given_else_the_variable(monkeypatch):
    assert stack.api_key() is None
    monkeypatch.setenv("K2_API_KEY", "k")
    assert (stack.api_key(), stack.api_key("other")) == ("k", "other")


def test_a_user_without_a_home_is_named():
    with pytest.raises(Invalid, match="no such home directory") as refused:
        stack.data_dir("~no-such-user/k2")
    assert refused.value.reason == "BAD_SETTING"
