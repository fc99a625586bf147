"""What is refused before anything starts, each by name and without a trace."""

import errno
import io
import json
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from websockets.sync.server import serve

from k2 import limits, settings
from k2.clock import SystemClock
from k2.errors import Data, Invalid, Overloaded, Reason, Unavailable
from servers.local.embedded_stack import (
    check_room,
    check_writable,
    choose_jupyter,
    choose_ports,
    choose_prometheus,
    clear_scratch,
    disk_error,
    forget_others,
    run_stack,
    venue_refusal,
)
from servers.local.stack_file import holding
from servers.local.stack_options import Options
from servers.runtime import Runtime
from tests.support.proxies import set_proxies


def options(tmp_path, ports="free", **changes):
    config = settings.load(
        data_dir=tmp_path / "data",
        cache_dir=tmp_path / "cache",
        **{"feed": {"venue": "synthetic"}} | changes,
    )
    return Options(config, ports, exchange_asked=False)


def refused(asked):
    runtime = Runtime(SystemClock(), "6" * 32, out=io.StringIO())
    with pytest.raises((Data, Invalid, Overloaded, Unavailable)) as failed:
        run_stack(asked, runtime)
    return failed.value


def test_a_port_in_use_is_named_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        error = refused(options(tmp_path, "fixed", control={"listen": address}))
    assert error.reason is Reason.PORT_IN_USE
    assert "(control)" in error.message
    assert not (tmp_path / "data" / "stamp.json").exists()
    assert not (tmp_path / "data" / "run" / "stack.json").exists()


def test_the_port_of_the_edge_gives_way_unless_fixed_ports_are_asked_for(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = options(tmp_path, "fixed", edge={"listen": f"127.0.0.1:{port}"})
        said = []
        chosen = choose_ports(asked, "6" * 32, said.append)
        assert chosen["edge"] != port
        (line,) = said
        assert line.startswith(f"port {port} (edge) is in use")
        fixed = replace(asked, ports_asked=True)
        assert choose_ports(fixed, "6" * 32, said.append)["edge"] == port
        assert len(said) == 1


def observed(tmp_path, monkeypatch, port, **asked):
    """The Prometheus that is chosen, or the reason why there is none, and what is said of it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    out = io.StringIO()
    runtime = Runtime(SystemClock(), "6" * 32, out=out)
    asked = replace(options(tmp_path, asked.pop("ports", "fixed")), **{"observe": True} | asked)
    try:
        chosen = choose_prometheus(replace(asked, observe_port=port), runtime, ())
    except Unavailable as error:
        chosen = error.reason
    return chosen, [json.loads(line)["message"] for line in out.getvalue().splitlines()]


def test_prometheus_is_one_where_it_is_installed_and_wanted(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        chosen, (said,) = observed(tmp_path, monkeypatch, port)
        assert chosen is None
        assert "apt-get install prometheus" in said
        (tmp_path / "prometheus").write_text("#!/bin/sh\n")
        (tmp_path / "prometheus").chmod(0o755)
        chosen, (said,) = observed(tmp_path, monkeypatch, port)
        assert chosen.port != port
        assert said == f"port {port} is in use: Prometheus takes {chosen.port}"
        refusal, _ = observed(tmp_path, monkeypatch, port, ports_asked=True)
        assert refusal is Reason.PORT_IN_USE
        chosen, said = observed(tmp_path, monkeypatch, port, ports="free", ports_asked=True)
        assert (chosen.port != port, said) == (True, [])
        assert observed(tmp_path, monkeypatch, port, observe=False) == (None, [])
    assert observed(tmp_path, monkeypatch, port)[0].port == port


def served(tmp_path, port, *, installed=True, **asked):
    """The Jupyter that is chosen, or the reason why there is none, and what is said of it."""
    out = io.StringIO()
    runtime = Runtime(SystemClock(), "6" * 32, out=out)
    asked = replace(options(tmp_path, asked.pop("ports", "fixed")), **{"notebooks": True} | asked)
    try:
        asked = replace(asked, notebooks_port=port)
        chosen = choose_jupyter(asked, runtime, (), lambda: installed)
    except Unavailable as error:
        chosen = error.reason
    return chosen, [json.loads(line)["message"] for line in out.getvalue().splitlines()]


def test_jupyter_is_one_where_it_is_installed_and_wanted(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        chosen, (said,) = served(tmp_path, port, installed=False)
        assert chosen is None
        assert "k2-lakehouse[notebook]" in said
        chosen, (said,) = served(tmp_path, port)
        assert chosen.port != port
        assert said == f"port {port} is in use: Jupyter takes {chosen.port}"
        assert served(tmp_path, port, ports_asked=True) == (Reason.PORT_IN_USE, [])
        chosen, said = served(tmp_path, port, ports="free", ports_asked=True)
        assert (chosen.port != port, said) == (True, [])
        assert served(tmp_path, port, notebooks=False) == (None, [])
    first, second = served(tmp_path, port)[0], served(tmp_path, port)[0]
    assert first.port == second.port == port
    assert first.token != second.token
    assert len(first.token) >= 32


def test_a_port_of_metrics_in_use_is_refused_where_fixed_ports_were_asked_for(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        asked = options(tmp_path, "fixed", telemetry={"listen": listen})
        error = refused(replace(asked, ports_asked=True))
    assert error.reason is Reason.PORT_IN_USE
    assert "(venue metrics)" in error.message


def test_a_second_start_is_refused(tmp_path):
    check_writable(tmp_path / "data")
    with holding(tmp_path / "data" / "run", SystemClock()):
        assert refused(options(tmp_path)).reason is Reason.ALREADY_RUNNING


def test_scratch_that_a_crash_left_is_removed_and_nothing_else(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for path in ("tmp/spill", "kafka/tmp/a.so", "registry/tmp/cache/b", "kafka/data/log"):
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_text("x")
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("x")
    (data / "tmp" / "link").symlink_to(elsewhere)
    clear_scratch(data)
    files = sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file())
    assert files == ["kafka/data/log"]
    assert not (data / "registry" / "tmp" / "cache").exists()
    assert (elsewhere / "kept").exists()


def test_mixing_data_is_refused(tmp_path):
    check_writable(tmp_path / "data")
    stamp = {"source": "live", "venue": "live", "exchange": "BINANCE"}
    (tmp_path / "data" / "stamp.json").write_text(json.dumps(stamp))
    error = refused(options(tmp_path))
    assert error.reason is Reason.STAMP_MISMATCH
    assert "holds live data" in error.message


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "data").write_text("a file")
    error = refused(options(tmp_path))
    assert error.reason is Reason.NOT_WRITABLE
    assert str(tmp_path / "data") in error.message


def test_a_process_that_is_no_part_any_more_is_not_waited_for():
    board = Notices({"feed": {}, "feed-2": {}, "lake": {}})
    forget_others(board, {"feed", "lake", "query"})
    assert board.read_all() == {"feed": {}, "lake": {}}
    assert board.closed


class Notices:
    """A board as far as the stack uses it."""

    def __init__(self, documents):
        self.documents = documents
        self.closed = False

    def read_all(self):
        return dict(self.documents)

    def put(self, key, value, wait_s):
        assert value is None
        assert wait_s > 0
        del self.documents[key]

    def close(self):
        self.closed = True


@pytest.mark.parametrize("name", ["a,b", "a;b", "a#b?c%20d"])
def test_a_data_directory_may_have_any_name(tmp_path, name):
    check_writable(tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_disk_without_room_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("k2.limits.DISK_FREE_MIN", 2**60)
    with pytest.raises(Overloaded, match="make room"):
        check_room(tmp_path)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, Reason.DISK_FULL),
        (errno.EDQUOT, Reason.DISK_FULL),
        (errno.EACCES, Reason.NOT_WRITABLE),
        (errno.EROFS, Reason.NOT_WRITABLE),
    ],
)
def test_what_the_file_system_refuses_has_a_name(tmp_path, number, reason):
    assert disk_error(OSError(number, "refused"), tmp_path).reason is reason


LIMITED = """
import resource, sys
from k2.errors import Invalid
from servers.local.embedded_stack import check_files
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    check_files()
except Invalid as error:
    print(error.reason, error.message)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "said"),
    [
        (256, limits.OPEN_FILES_MIN, f"{limits.OPEN_FILES_MIN} {limits.OPEN_FILES_MIN}"),
        (256, 8192, f"{limits.OPEN_FILES} 8192"),
        (6000, 8192, "6000 8192"),
        (256, 256, "BAD_SETTING a process may open 256 files here, 1024 are needed"),
    ],
)
def test_open_files_are_raised_as_far_as_the_system_lets(soft, hard, said):
    command = [sys.executable, "-c", LIMITED, str(soft), str(hard)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(said)


def test_a_venue_that_accepts_a_subscription_answers(monkeypatch):
    set_proxies(monkeypatch)  # none stands before a venue on this machine
    asked = []

    def handler(connection):
        asked.append(connection.request.path)

    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert None is venue_refusal(f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/stream?streams=btcusdt@trade"]


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9", "nonsense", "http://127.0.0.1:9", ""])
def test_what_is_not_there_does_not_answer(url):
    assert venue_refusal(url) is not None


def test_what_keeps_silent_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert venue_refusal(f"ws://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)


def test_a_proxy_that_is_not_spoken_is_named(monkeypatch):
    set_proxies(monkeypatch, "socks5h://127.0.0.1:9")
    found = venue_refusal("wss://venue.invalid:9443")
    assert found.reason is Reason.VENUE_UNAVAILABLE
    assert "wss://venue.invalid:9443 cannot be reached: the proxy" in found.message
