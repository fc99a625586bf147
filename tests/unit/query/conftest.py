import pytest

from k2 import limits
from tests.support.query_stack import QueryStack


@pytest.fixture
def stack(tmp_path):
    with QueryStack(tmp_path) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch):
    """Whoever waits for the tail gives up soon."""
    monkeypatch.setattr(limits, "WAIT_FOR_TAIL_S", 0.05)
