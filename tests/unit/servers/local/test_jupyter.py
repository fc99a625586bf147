"""What Jupyter is started with, and which notebooks it opens."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from servers.local import jupyter
from servers.local.jupyter import Jupyter, copy_notebooks

ENVIRONMENT = {"PATH": "/bin", "K2_ADDRESS": "127.0.0.1:1", "K2_API_KEY": "secret"}


def shipped(folder):
    (folder / "executed").mkdir(parents=True)
    for name in ("quickstart.ipynb", "executed/quickstart.ipynb", "source.py"):
        (folder / name).write_text(name)
    return folder


def test_it_listens_on_loopback_with_a_token_that_no_argument_shows(tmp_path):
    command = Jupyter(8888, "t0ken", ENVIRONMENT, shipped(tmp_path / "from")).prepare(tmp_path)
    assert "--ServerApp.ip=127.0.0.1" in command.argv
    assert "--ServerApp.port=8888" in command.argv
    assert "--ServerApp.port_retries=0" in command.argv
    assert f"--ServerApp.root_dir={tmp_path / 'notebooks'}" in command.argv
    assert "t0ken" not in " ".join(command.argv)
    assert command.env["JUPYTER_TOKEN"] == "t0ken"
    assert Jupyter(8888, "t0ken").url == "http://127.0.0.1:8888/?token=t0ken"
    assert "t0ken" not in repr(Jupyter(8888, "t0ken"))


def test_a_kernel_finds_the_stack_of_its_data_directory_and_no_other(tmp_path):
    env = Jupyter(1, "t", ENVIRONMENT, tmp_path / "none").prepare(tmp_path).env
    assert env["K2_DATA_DIR"] == str(tmp_path)
    assert not {"K2_ADDRESS", "K2_API_KEY"} & env.keys()
    assert env["PATH"] == "/bin"
    assert (tmp_path / "notebooks").is_dir()


def test_it_asks_the_network_for_nothing(tmp_path):
    command = Jupyter(1, "t", {}, tmp_path / "none").prepare(tmp_path)
    config = json.loads((tmp_path / "jupyter" / "jupyter_lab_config.json").read_text())
    assert command.env["JUPYTER_CONFIG_DIR"] == str(tmp_path / "jupyter")
    assert config["LabApp"]["news_url"] is None
    assert config["LabApp"]["check_for_updates_class"] == "jupyterlab.NeverCheckForUpdate"


def test_a_copy_that_its_user_has_edited_is_kept(tmp_path):
    source, folder = shipped(tmp_path / "from"), tmp_path / "to"
    copy_notebooks(source, folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert names == ["executed/quickstart.ipynb", "quickstart.ipynb"]
    (folder / "quickstart.ipynb").write_text("mine")
    (folder / "executed/quickstart.ipynb").unlink()
    copy_notebooks(source, folder)
    assert (folder / "quickstart.ipynb").read_text() == "mine"
    assert (folder / "executed/quickstart.ipynb").exists()


def test_a_folder_that_cannot_be_written_does_not_end_the_stack(tmp_path):
    (tmp_path / "notebooks").write_text("a file where a folder is to be")
    assert Jupyter(1, "t", {}, shipped(tmp_path / "from")).prepare(tmp_path).argv


def test_the_notebooks_of_this_repository_are_the_ones_that_are_copied():
    assert (jupyter.NOTEBOOKS / "quickstart.ipynb").exists()


def test_it_answers_once_it_serves_those_that_show_its_token():
    class Status(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/status"
            known = self.headers["Authorization"] == "token right"
            self.send_response(200 if known else 403)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Status) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        assert [Jupyter(port, "wrong").answers(), Jupyter(port, "right").answers()] == [False, True]
        server.shutdown()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not Jupyter(unused.getsockname()[1], "right").answers()


def test_the_extra_is_installed_here():
    assert jupyter.is_installed()
