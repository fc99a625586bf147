"""Topics and schemas are made on a broker and a registry that run elsewhere."""

import io
import json

import pytest

from k2 import settings
from k2.clock import SystemClock
from servers.commands import deploy
from servers.runtime import Runtime

pytestmark = pytest.mark.integration


def test_they_are_made_and_it_may_be_repeated(tmp_path, broker, registry):
    runtime = Runtime(SystemClock(), "7" * 32, out=io.StringIO())
    tape = {"bootstrap": broker, "registry_url": registry, "topic": "deployed.by.itself"}
    made = settings.load(data_dir=tmp_path, feed={"venue": "synthetic"}, tape=tape)
    assert deploy.run(made, runtime, []) == 0
    assert deploy.run(made, runtime, []) == 0
    last = json.loads(runtime.out.getvalue().splitlines()[-1])
    assert last == {"event": "result", "source": "simulated", "venue": "synthetic"}
