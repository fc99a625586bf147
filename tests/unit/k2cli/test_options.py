import pytest

from k2cli import options
from k2client.errors import NotFound


def test_the_directory_is_the_one_given_else_the_variables_else_the_default(tmp_path, monkeypatch):
    assert options.directory_of(None) == tmp_path / ".k2"
    monkeypatch.setenv("K2_DATA_DIR", "elsewhere")
    assert options.directory_of(None) == tmp_path / "elsewhere"
    assert options.directory_of(tmp_path / "given") == tmp_path / "given"


def test_a_data_directory_goes_before_the_address(asked, tmp_path):
    with options.connect(None) as k2:
        assert k2.address == asked.address
    with pytest.raises(NotFound):
        options.connect(tmp_path)


def test_a_connection_that_is_tried_once(server):
    server.fail_calls = [server.gone()]
    with options.connect_at(server.address, deadline_s=5) as k2:
        with pytest.raises(Exception, match="not just now"):
            k2.feeds()
        assert k2.feeds()
