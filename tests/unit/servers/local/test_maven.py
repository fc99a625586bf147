"""Fetching by coordinate, from a repository of our own."""

import functools
import http.server
import threading

import pytest

from servers.local.maven import fetch


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def remote(tmp_path):
    folder = tmp_path / "remote/org/example/tool/1.0"
    folder.mkdir(parents=True)
    (folder / "tool-1.0.jar").write_bytes(b"jar" * 10_000)
    (folder / "tool-1.0-all.tar.gz").write_bytes(b"archive")
    handler = functools.partial(Quiet, directory=tmp_path / "remote")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("coordinate", "content"),
    [
        ("org.example:tool:1.0:jar", b"jar" * 10_000),
        ("org.example:tool:1.0:all:tar.gz", b"archive"),
    ],
)
def test_a_file_is_fetched_and_reported(tmp_path, remote, coordinate, content):
    arrived = []
    path = fetch(coordinate, tmp_path / "scratch", arrived.append, remote)
    assert path.read_bytes() == content
    assert sum(arrived) == len(content)
    assert path.is_relative_to(tmp_path / "scratch")


def test_what_a_broken_try_left_is_replaced(tmp_path, remote):
    path = fetch("org.example:tool:1.0:jar", tmp_path, lambda _: None, remote)
    path.write_bytes(b"part")
    again = fetch("org.example:tool:1.0:jar", tmp_path, lambda _: None, remote)
    assert again.read_bytes() == b"jar" * 10_000


def test_what_is_not_there_is_an_error(tmp_path, remote):
    with pytest.raises(RuntimeError, match="tool"):
        fetch("org.example:tool:2.0:jar", tmp_path, lambda _: None, remote)


def test_a_repository_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="refused"):
        fetch("org.example:tool:1.0:jar", tmp_path, lambda _: None, "http://127.0.0.1:9")
