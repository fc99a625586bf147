import pytest

import k2client
from k2client.errors import Internal, NotFound, Unavailable
from tests.fakes.k2_server import K2Server


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    for name in ("K2_ADDRESS", "K2_DATA_DIR", "K2_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_connecting_sends_nothing_and_finds_its_address_or_says_so(monkeypatch):
    with k2client.connect("127.0.0.1:1") as k2:
        assert k2.address == "127.0.0.1:1"
    monkeypatch.setenv("K2_ADDRESS", "127.0.0.1:2")
    with k2client.connect() as k2:
        assert k2.address == "127.0.0.1:2"
    monkeypatch.delenv("K2_ADDRESS")
    with pytest.raises(NotFound):
        k2client.connect()


def test_the_deadline_bounds_the_tries():
    k2 = k2client.connect("127.0.0.1:1", deadline_s=0.3, retry=k2client.Retry(attempts_max=1000))
    with k2, pytest.raises(Unavailable):
        k2.status()


def test_a_verification_without_a_result_is_a_defect():
    with K2Server() as server, k2client.connect(server.address) as k2:
        server.verify_ok = None
        with pytest.raises(Internal):
            k2.verify()


def test_exports():
    assert k2client.__all__ == [
        "Client",
        "K2Error",
        "Retry",
        "Trades",
        "TradesQuestion",
        "connect",
        "errors",
        "records",
    ]
