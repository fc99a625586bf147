import pytest

from k2 import errors as platform
from k2client import errors


def test_the_kinds_are_those_of_the_platform():
    ours = {kind.__name__ for kind in errors.K2Error.__subclasses__()}
    assert ours == {kind.__name__ for kind in platform.K2Error.__subclasses__()}


@pytest.mark.parametrize("kind", errors.K2Error.__subclasses__())
def test_an_error_carries_what_a_program_needs(kind):
    error = kind("REASON", "what to do", metadata={"a": "b"}, retry_after_s=1.5)
    assert (error.reason, error.message, str(error)) == ("REASON", "what to do", "what to do")
    assert (error.metadata, error.retry_after_s) == ({"a": "b"}, 1.5)
    assert (kind("R", "m").metadata, kind("R", "m").retry_after_s) == ({}, None)
