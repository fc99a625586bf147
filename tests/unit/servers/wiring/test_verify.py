import io
import json

from k2.clock import ManualClock
from servers.runtime import Runtime
from servers.wiring.verify import paced


def test_progress_is_told_a_few_times_a_second_at_most():
    out, clock = io.StringIO(), ManualClock()
    progress = paced(Runtime(clock, "r", out=out))
    for done in range(10):
        progress("folding the tape", done, 10)
        clock.advance(0.2)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["done"] for line in lines] == [0, 3, 6, 9]
    assert lines[0] == {
        "event": "progress",
        "message": "folding the tape",
        "done": 0,
        "total": 10,
    }
