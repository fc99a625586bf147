import asyncio

import pytest

from k2.clock import ManualClock
from servers.edge.parts import EdgeParts


def test_parts_are_made_without_a_k2_and_take_no_calls_once_closed():
    parts = EdgeParts.of("127.0.0.1:1", ManualClock())
    parts.connect()
    assert asyncio.run(parts.control.run(lambda: "done")) == "done"
    parts.close()
    with pytest.raises(RuntimeError):
        asyncio.run(parts.control.run(lambda: "done"))
