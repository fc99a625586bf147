"""Servers listen on this machine only."""

import pytest

from k2.errors import Invalid, Reason
from servers.network import split_address


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:1", "10.0.0.1:1", "nowhere", "127.0.0.1:x", "[::1]:-1"]
)
def test_only_addresses_of_this_machine_are_listened_on(listen):
    with pytest.raises(Invalid) as caught:
        split_address(listen)
    assert caught.value.reason is Reason.BAD_SETTING


def test_loopback_addresses():
    assert split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_address("localhost:50051") == ("localhost", 50051)
    assert split_address("[::1]:7") == ("[::1]", 7)
