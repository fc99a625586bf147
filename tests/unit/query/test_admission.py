import pytest

from k2.errors import Overloaded, Reason
from k2.query.admission import Admission


def test_so_many_may_run_and_no_more():
    admission = Admission(2)
    admission.enter()
    admission.enter()
    with pytest.raises(Overloaded) as caught:
        admission.enter()
    assert caught.value.reason is Reason.TOO_MANY_QUERIES
    assert (admission.running, admission.refused, admission.answered) == (2, 1, 0)
    admission.leave(0.5)
    assert admission.answered == 1
    admission.enter()
    assert admission.running == 2


def test_the_hint_follows_how_long_queries_take_within_bounds():
    def hint(took_s):
        admission = Admission(1)
        for _ in range(50):
            admission.enter()
            admission.leave(took_s)
        admission.enter()
        with pytest.raises(Overloaded) as caught:
            admission.enter()
        return caught.value.retry_after_s

    assert hint(0.0) == 0.1
    assert hint(2.0) == pytest.approx(2.0, rel=0.01)
    assert hint(1000.0) == 5.0


def test_more_cannot_leave_than_entered():
    with pytest.raises(AssertionError):
        Admission(1).leave(0.0)
