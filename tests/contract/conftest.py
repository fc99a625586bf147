"""The fake tape and the real one, each as `tape`."""

from itertools import count

import pytest

from k2.clock import SystemClock
from tests.contract.real_tape import RealTape
from tests.fakes.tape import FakeTape

_numbers = count()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def tape(request):
    if request.param == "fake":
        yield FakeTape(clock=SystemClock())
        return
    real = RealTape(request.getfixturevalue("broker"))
    yield real
    real.close()


@pytest.fixture
def key():
    """A board key that no other test uses: boards are shared by the whole broker."""
    return f"contract-{next(_numbers)}"
