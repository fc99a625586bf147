import pytest
from google.rpc import code_pb2

from tests.fakes.k2_server import SNAPSHOT_IDS, status


def test_health_needs_a_feed_and_a_query(http):
    answer = http.get("/health")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "NOT_SERVING",
        "level": "NORMAL",
        "processes": {"broker": "SERVING", "query": "SERVING"},
    }


def test_health_says_that_control_does_not_answer(http, k2):
    k2.fail_calls.append(status(code_pb2.UNAVAILABLE, "STARTING", "soon"))
    answer = http.get("/health")
    assert answer.status_code == 503
    assert answer.json()["processes"] == {"control": "STARTING"}


def test_ids_of_snapshots_keep_every_digit(http):
    listed = http.get("/v1/snapshots").json()["data"]
    assert [one["snapshot_id"] for one in listed] == [str(one) for one in SNAPSHOT_IDS]
    assert len(http.get("/v1/snapshots?limit=1").json()["data"]) == 1


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v1/gaps?state=open", 0),
        ("/v1/degradation", "transitions"),
        ("/v1/status", "components"),
        ("/v1/stats", "feeds"),
    ],
)
def test_state_is_data_and_how_long_it_took(http, path, key):
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.json()["data"][key]
    assert answer.json()["timing_ms"]["total"] > 0


def test_what_k2_refuses_is_a_problem(http, k2):
    k2.fail_calls.append(status(code_pb2.RESOURCE_EXHAUSTED, "SHED", "no", retry_after_s=3.0))
    answer = http.get("/v1/snapshots")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert answer.json()["reason"] == "SHED"


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("/v1/nothing", 404, "NOT_FOUND"),
        ("/v1/gaps?limit=0", 400, "BAD_REQUEST"),
        ("/v1/gaps?state=odd", 400, "BAD_REQUEST"),
    ],
)
def test_a_wrong_request_is_a_problem(http, path, code, reason):
    answer = http.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (code, reason)


def test_another_method_is_refused(http):
    answer = http.post("/v1/gaps")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET"
