"""`servers up` reads its arguments before it does anything; the whole is in tests/integration."""

import io

import pytest

from k2 import settings
from k2.clock import SystemClock
from k2.errors import Invalid
from servers.commands import up
from servers.runtime import Runtime


def test_wrong_arguments_leave_no_trace(tmp_path):
    runtime = Runtime(SystemClock(), "6" * 32, out=io.StringIO())
    config = settings.load(data_dir=tmp_path / "data")
    with pytest.raises(Invalid, match="--ports"):
        up.run(config, runtime, ["--ports", "some"])
    assert not (tmp_path / "data").exists()
