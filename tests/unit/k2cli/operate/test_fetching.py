import pytest

from k2cli.operate.fetching import NotServed, fetch
from tests.conftest import free_ports


def test_what_does_not_answer_is_named():
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/metrics"
    with pytest.raises(NotServed, match=f"{url} does not answer"):
        fetch(url, 1.0)
