import pytest

from k2.errors import Data, Internal, Invalid, K2Error, NotFound, Overloaded, Reason, Unavailable


@pytest.mark.parametrize("kind", [Invalid, NotFound, Unavailable, Overloaded, Data, Internal])
def test_every_kind_carries_reason_message_and_details(kind):
    error = kind(Reason.INTERNAL, "what to do", metadata={"a": "b"}, retry_after_s=2.0)
    assert isinstance(error, K2Error)
    assert str(error) == error.message == "what to do"
    assert (error.reason, error.metadata, error.retry_after_s) == (Reason.INTERNAL, {"a": "b"}, 2.0)


def test_six_kinds_and_no_more():
    assert set(K2Error.__subclasses__()) == {
        Invalid,
        NotFound,
        Unavailable,
        Overloaded,
        Data,
        Internal,
    }


def test_details_are_a_copy():
    details = {"a": "b"}
    error = Invalid(Reason.BAD_REQUEST, "m", metadata=details)
    details["a"] = "c"
    assert error.metadata == {"a": "b"}
    assert Invalid(Reason.BAD_REQUEST, "m").metadata == {}


def test_a_reason_is_its_name():
    assert all(reason.name == reason.value for reason in Reason)
