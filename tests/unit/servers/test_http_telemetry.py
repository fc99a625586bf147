import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from k2 import tracing
from k2.clock import SystemClock
from k2.metrics import EVENTS
from servers.http_telemetry import HttpTelemetry, Tally
from tests.support.spans import parent_of, recorded, span_id_of

TEMPLATES = ("/v1/trades", "/v1/summary/{symbol}/{date}")
PARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


@pytest.fixture
def tally():
    return Tally()


@pytest.fixture
def http(tally):
    """A client of an application that answers everything with the current traceparent."""

    async def app(scope, receive, send):
        status = 404 if "nothing" in scope["path"] else 200
        await PlainTextResponse(tracing.traceparent(), status)(scope, receive, send)

    return TestClient(HttpTelemetry(app, SystemClock(), lambda: TEMPLATES, tally))


def total(route, code, method="GET"):
    """The requests that were counted; as many were timed."""
    labels = {"route": route, "method": method, "code": str(code)}
    counted = EVENTS.get_sample_value("k2_http_requests_total", labels) or 0
    timed = EVENTS.get_sample_value("k2_http_request_duration_seconds_count", labels) or 0
    assert counted == timed
    return counted


@pytest.mark.parametrize(
    ("path", "route", "code"),
    [
        ("/v1/trades?symbol=BTCUSDT", "/v1/trades", 200),
        ("/v1/summary/BTCUSDT/2026-01-31", "/v1/summary/{symbol}/{date}", 200),
        ("/v1/summary/BTCUSDT/2026/01", "other", 200),
        ("/v1/trades/nothing", "other", 404),
        ("/assets/swagger/a.js", "/assets/{path}", 200),
        ("/", "/", 200),
    ],
)
def test_requests_are_counted_by_template_and_code(http, tally, path, route, code):
    before = total(route, code)
    http.get(path)
    assert total(route, code) == before + 1
    assert tally.answered == 1


def test_an_unknown_method_is_no_label_of_its_own(http):
    before = total("/v1/trades", 200, "other")
    http.request("BREW", "/v1/trades")
    assert total("/v1/trades", 200, "other") == before + 1


def test_what_is_asked_within_a_request_is_part_of_its_trace(http):
    with recorded() as spans:
        within = http.get("/v1/trades", headers={"traceparent": PARENT}).text
    (span,) = spans()
    assert span.name == "GET /v1/trades"
    assert within == f"00-{'1' * 32}-{span_id_of(span)}-01"
    assert parent_of(span) == "2" * 16
    assert span.attributes["http.route"] == "/v1/trades"
    assert span.attributes["http.response.status_code"] == 200
