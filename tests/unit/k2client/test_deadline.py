from dataclasses import replace

import pytest

from k2client.deadline import RETRIES_AT_FIRST, Deadline, Retry
from k2client.errors import Invalid, Overloaded, Unavailable


class Time:
    def __init__(self):
        self.now = 100.0
        self.slept = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time():
    return Time()


def retry(time, **changes):
    return Retry(sleep=time.sleep, jitter=lambda: 1.0, **changes)


def failing(*errors):
    left = list(errors)

    def call():
        if left:
            raise left.pop(0)
        return "answer"

    return call


def test_a_deadline_counts_down_to_nothing(time):
    deadline = Deadline(5, time.monotonic)
    time.sleep(2)
    assert deadline.left_s() == 3
    time.sleep(9)
    assert deadline.left_s() == 0


def test_waits_double_and_obey_what_the_answer_says(time):
    passing = [Unavailable("A", "m"), Unavailable("A", "m"), Unavailable("A", "m", retry_after_s=2)]
    run = retry(time, backoff_min_s=0.25).run
    assert run(failing(*passing), Deadline(60, time.monotonic)) == "answer"
    assert time.slept == [0.25, 0.5, 4]


def test_waits_are_bounded(time):
    run = retry(time, attempts_max=5, backoff_min_s=1, backoff_max_s=2).run
    with pytest.raises(Unavailable):
        run(failing(*[Unavailable("A", "m")] * 9), Deadline(60, time.monotonic))
    assert time.slept == [1, 2, 2, 2]


def test_silence_is_tried_less_often_than_a_promise(time):
    run = retry(time, attempts_max=5, silent_attempts_max=2, backoff_min_s=1).run
    with pytest.raises(Unavailable):
        run(failing(*[Unavailable("A", "m")] * 9), Deadline(60, time.monotonic))
    assert len(time.slept) == 1
    with pytest.raises(Unavailable):
        run(failing(*[Unavailable("A", "m", retry_after_s=1)] * 9), Deadline(60, time.monotonic))
    assert len(time.slept) == 1 + 4


@pytest.mark.parametrize("after", [None, 3])
def test_without_another_bound_the_deadline_decides(time, after):
    error = Unavailable("A", "m", retry_after_s=after)
    run = retry(time, silent_attempts_max=None, backoff_max_s=5).run
    assert run(failing(*[error] * 400), Deadline(3600, time.monotonic)) == "answer"
    with pytest.raises(Unavailable):
        run(failing(*[error] * 2000), Deadline(3600, time.monotonic))
    assert 3590 < sum(time.slept[400:]) < 3600


@pytest.mark.parametrize(
    "error",
    [
        Invalid("BAD_REQUEST", "m", retry_after_s=1),
        Overloaded("TAIL_FULL", "m"),
        Overloaded("DEADLINE_EXCEEDED", "m", retry_after_s=1),
        Unavailable("A", "m", retry_after_s=5),
    ],
)
def test_what_does_not_pass_in_time_is_raised_at_once(time, error):
    with pytest.raises(type(error)):
        retry(time).run(failing(error), Deadline(5, time.monotonic))
    assert time.slept == []


def test_an_overload_that_says_when_to_come_back_is_tried_again(time):
    error = Overloaded("TOO_MANY_QUERIES", "m", retry_after_s=1)
    assert retry(time).run(failing(error), Deadline(5, time.monotonic)) == "answer"
    assert time.slept == [2]


@pytest.mark.parametrize(("after", "low", "high"), [(None, 0, 0.1), (0.01, 0.01, 0.11), (3, 3, 6)])
def test_waits_have_full_jitter_and_are_never_shorter_than_the_answer_says(time, after, low, high):
    waits = [
        Retry(jitter=lambda chance=chance: chance).wait_s(
            Unavailable("A", "m", retry_after_s=after), 1, Deadline(60, time.monotonic)
        )
        for chance in (0.0, 0.5, 1.0)
    ]
    assert waits == pytest.approx([low, (low + high) / 2, high])


def test_jitter_leaves_time_for_the_call(time):
    error = Unavailable("A", "m", retry_after_s=4)
    assert retry(time).wait_s(error, 1, Deadline(5, time.monotonic)) == 4.5


OVERLOAD = [
    Overloaded("SHED", "m", retry_after_s=0.1),
    Unavailable("DEFERRED", "m", retry_after_s=0.1),
    *(Overloaded(name, "m", retry_after_s=0.1) for name in ("TOO_MANY_QUERIES", "TAIL_FULL")),
]


@pytest.mark.parametrize("error", OVERLOAD, ids=lambda error: error.reason)
def test_retries_of_an_overload_are_a_tenth_of_the_calls_and_a_few_at_first(time, error):
    patient, attempts, calls = retry(time), 0, 1000

    def refused():
        nonlocal attempts
        attempts += 1
        raise type(error)(error.reason, "m", retry_after_s=0.1)

    for _ in range(calls):
        with pytest.raises(type(error)) as caught:
            patient.run(refused, Deadline(60, time.monotonic))
    retries = attempts - calls
    assert 0.09 * calls <= retries <= 0.1 * calls + RETRIES_AT_FIRST
    assert "retries may be 10%" in caught.value.message
    assert str(caught.value) == caught.value.message
    assert caught.value.metadata["retry_budget"] == "spent"


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("STARTING", "m", retry_after_s=0.1),
        Overloaded("TOO_MANY_CALLS", "m", retry_after_s=0.1),
    ],
    ids=lambda error: error.reason,
)
def test_other_errors_have_no_budget(time, error):
    assert retry(time).run(failing(*[error] * 50), Deadline(600, time.monotonic)) == "answer"


def test_a_budget_is_shared_by_the_variants_of_a_retry(time):
    patient = retry(time)
    assert replace(patient, silent_attempts_max=None).budget is patient.budget
    assert retry(time).budget is not patient.budget
