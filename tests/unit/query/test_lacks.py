import pytest

from k2.errors import Data, Overloaded, Reason, Unavailable
from k2.query.lacks import failure_of, part_of
from k2.query.plan import Missing, MissingReason


@pytest.mark.parametrize(
    ("lack", "kind", "reason", "part"),
    [
        (MissingReason.LAKE, Unavailable, Reason.LAKE_UNAVAILABLE, "lake"),
        (MissingReason.EVICTED, Unavailable, Reason.LAKE_UNAVAILABLE, "lake"),
        (MissingReason.BEHIND, Unavailable, Reason.TAIL_BEHIND, "tail"),
        (MissingReason.RELEASED, Overloaded, Reason.TAIL_FULL, "tail"),
    ],
)
def test_each_lack_has_a_reason_and_a_side(lack, kind, reason, part):
    failure = failure_of(Missing(lack, (3, 5)), None, 10.0)
    assert (type(failure), failure.reason) == (kind, reason)
    assert failure.metadata == {"partitions": "3, 5"}
    assert failure.retry_after_s
    said = part_of(Missing(lack, (3, 5)), failure)
    assert (said.part, said.reason, said.message) == (part, reason, failure.message)


def test_why_the_tail_stopped_is_said():
    stopped = Data(Reason.TAPE_TRUNCATED, "the tape ends at 7")
    assert (
        "the tape ends at 7"
        in failure_of(Missing(MissingReason.BEHIND, (0,)), stopped, 10.0).message
    )


def test_what_waits_for_a_commit_is_asked_again_after_the_interval_that_is_set():
    released = Missing(MissingReason.RELEASED, (3,))
    assert [failure_of(released, None, each).retry_after_s for each in (2.0, 60.0)] == [2.0, 60.0]
