import http.client

import pytest


@pytest.mark.parametrize(
    "path",
    ["/health", "/v1/trades?symbol=BTCUSDT", "/v1/bars?symbol=BTCUSDT&format=csv", "/", "/docs"],
)
def test_head_is_get_without_its_body(http, market, path):
    got, headed = http.get(path), http.head(path)
    assert headed.status_code == got.status_code
    assert headed.content == b""
    for name in ("content-type", "etag", "k2-token"):
        assert headed.headers.get(name) == got.headers.get(name)


def test_a_connection_lives_after_head_of_a_stream(address, market):
    connection = http.client.HTTPConnection(address, timeout=10)
    for path in ("/v1/trades?symbol=BTCUSDT&format=csv", "/v1/trades/stream?symbol=BTCUSDT"):
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
    connection.request("GET", "/health")
    assert connection.getresponse().read()
    connection.close()
