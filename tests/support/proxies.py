"""A company's proxy in the environment that answers nothing: what goes through it fails."""

import pytest

_NAMES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "ws_proxy", "wss_proxy")


def set_proxies(patch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:9") -> None:
    """Let every kind of connection of this process find `url` as its proxy."""
    for name in (*_NAMES, "no_proxy", "no_grpc_proxy"):
        patch.delenv(name.upper(), raising=False)
        patch.delenv(name, raising=False)
    for name in _NAMES:
        patch.setenv(name, url)
