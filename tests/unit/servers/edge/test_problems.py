import pytest

from k2client import errors
from servers.edge.problems import problem_of


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (errors.Invalid("RANGE_REVERSED", "m"), 400, None),
        (errors.Invalid("UNAUTHENTICATED", "m"), 401, None),
        (errors.Invalid("NOT_LOCAL", "m"), 403, None),
        (errors.NotFound("UNKNOWN_SYMBOL", "m"), 404, None),
        (errors.Data("VALUE_TOO_LARGE", "m"), 409, None),
        (errors.Overloaded("SHED", "m", retry_after_s=2.1), 429, "3"),
        (errors.Overloaded("TAIL_FULL", "m"), 429, "1"),
        (errors.Unavailable("TAIL_BEHIND", "m", retry_after_s=0.2), 503, "1"),
        (errors.Unavailable("PEER_UNAVAILABLE", "m"), 503, "1"),
        (errors.Overloaded("DEADLINE_EXCEEDED", "m"), 504, None),
        (errors.Internal("INTERNAL", "m"), 500, None),
    ],
)
def test_the_status_follows_the_kind(error, status, retry_after):
    answer = problem_of(error).response()
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == retry_after
    assert answer.media_type == "application/problem+json"


def test_the_reason_and_its_details_are_those_of_k2():
    error = errors.Invalid("BAD_REQUEST", "start: no", metadata={"field": "start"})
    assert problem_of(error).document() == {
        "type": "urn:k2:reason:BAD_REQUEST",
        "title": "Bad Request",
        "status": 400,
        "detail": "start: no",
        "reason": "BAD_REQUEST",
        "metadata": {"field": "start"},
        "retry_after_s": None,
    }
