import json
import logging

import pytest

from k2 import telemetry


@pytest.fixture(autouse=True)
def _restore():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_log_line_is_one_json_object(capsys):
    telemetry.set_up("feed", "info")
    logging.getLogger("k2.feed").info("took %d", 3, extra={"symbol": "BTCUSDT"})
    logging.getLogger("k2.feed").debug("not this one")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("k2.feed").exception("failed")
    took, failed = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (took["process"], took["level"], took["message"]) == ("feed", "info", "took 3")
    assert took["symbol"] == "BTCUSDT"
    assert "ValueError: why" in failed["exception"]
