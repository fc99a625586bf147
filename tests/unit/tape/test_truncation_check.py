import pytest

from k2.errors import Data, Reason, Unavailable
from k2.tape.truncation_check import mark_of, read_marks
from tests.fakes.tape import FakeTape


@pytest.fixture
def tape():
    made = FakeTape(partitions=3)
    made.append(0, b"a", b"b", b"c")
    made.append(2, b"d", None)
    return made


def test_a_mark_is_of_the_bytes():
    assert mark_of(b"a") == mark_of(b"a") != mark_of(b"b")
    assert mark_of(None) == mark_of(b"")


def test_the_records_named_are_marked(tape):
    assert read_marks(tape.reader, {0: 1, 2: 1}) == {0: mark_of(b"b"), 2: mark_of(None)}


def test_nothing_is_opened_for_nothing():
    assert read_marks(lambda _: pytest.fail("asked"), {}) == {}


def test_a_record_that_is_gone_is_an_error_by_name(tape):
    tape.remove_before(0, 2)
    with pytest.raises(Data) as caught:
        read_marks(tape.reader, {0: 1})
    assert caught.value.reason is Reason.RETENTION_OVERTOOK


def test_a_tape_that_gives_nothing_is_not_waited_for_for_ever(monkeypatch):
    class Silent:
        closed = False

        def read(self, max_records, timeout_s):
            return []

        def close(self):
            self.closed = True

    silent = Silent()
    with pytest.raises(Unavailable):
        read_marks(lambda _: silent, {0: 1})
    assert silent.closed
