"""Calls that do not come from the loopback of this machine, without another machine."""

import ipaddress
import socket

import psutil
import pytest


def other_address():
    """An address of this machine that is not its loopback; the test is skipped without one."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family is socket.AF_INET and not ipaddress.ip_address(one.address).is_loopback:
                return one.address
    pytest.skip("this machine has no address but its loopback")
