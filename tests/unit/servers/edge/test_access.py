import ipaddress

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from k2client.caller_name import caller_name
from servers.edge.access import DEVELOPMENT_KEY, KEY_SAYS_HEADER, AccessGuard

NETWORKS = (ipaddress.ip_network("172.18.0.0/16"),)


def asked(peer="127.0.0.1", host="localhost:8000", path="/v1/x", key=None, trusted=()):
    guard = AccessGuard(PlainTextResponse("fine"), trusted)
    client = TestClient(guard, base_url="http://localhost", client=(peer, 1))
    headers = {"Host": host} | ({"X-API-Key": key} if key else {})
    return client.get(path, headers=headers)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8", "[::1]"])
def test_this_machine_is_named_in_these_ways(host):
    assert asked(host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8000", "k2", "10.0.0.1", ""]
)
def test_another_host_is_refused_also_from_this_machine(host):
    refused = asked(host=host)
    assert refused.status_code == 403
    assert refused.json()["reason"] == "NOT_LOCAL"
    assert refused.headers["content-type"] == "application/problem+json"


def test_another_machine_is_refused_and_the_key_does_not_help():
    refused = asked(peer="10.1.2.3", key=DEVELOPMENT_KEY)
    assert refused.status_code == 403
    assert "access.trusted_networks" in refused.json()["detail"]


@pytest.mark.parametrize("host", ["localhost:8000", "k2-edge:8000", "172.18.0.4:8000"])
def test_a_trusted_network_is_this_machine(host):
    assert asked(peer="172.18.0.9", host=host, trusted=NETWORKS).status_code == 200
    assert asked(peer="172.19.0.9", host=host, trusted=NETWORKS).status_code == 403


def test_a_peer_of_a_trusted_network_may_be_written_as_ipv4_in_ipv6():
    assert asked(peer="::ffff:172.18.0.9", host="localhost", trusted=NETWORKS).status_code == 200
    assert asked(peer="::ffff:172.19.0.9", host="localhost", trusted=NETWORKS).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.1"])
def test_a_trusted_network_names_no_other_host(host):
    assert asked(peer="172.18.0.9", host=host, trusted=NETWORKS).status_code == 403


def test_a_key_is_optional_and_the_development_key_says_what_it_is():
    assert KEY_SAYS_HEADER not in asked().headers
    answered = asked(key=DEVELOPMENT_KEY)
    assert answered.status_code == 200
    assert "this machine and its trusted networks only" in answered.headers[KEY_SAYS_HEADER]


def test_the_development_key_is_taken_where_a_published_port_is_called_from():
    answered = asked(peer="172.18.0.1", key=DEVELOPMENT_KEY, trusted=NETWORKS)
    assert answered.status_code == 200
    assert "trusted networks" in answered.headers[KEY_SAYS_HEADER]


def test_a_wrong_key_is_refused_except_for_health():
    refused = asked(key="k2-other")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "X-API-Key"
    assert refused.json()["reason"] == "UNAUTHENTICATED"
    assert asked(path="/health", key="k2-other").status_code == 200


def test_what_a_request_asks_of_k2_is_asked_in_the_name_of_its_peer():
    async def app(scope, receive, send):
        await PlainTextResponse(caller_name())(scope, receive, send)

    for peer in ("127.0.0.1", "172.18.0.4"):
        client = TestClient(AccessGuard(app, NETWORKS), "http://localhost", client=(peer, 1))
        assert client.get("/").text == f"http:{peer}"
    assert caller_name() == ""
