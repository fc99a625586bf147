"""Two feeds of one venue: every trade comes twice and is a row once; the death of one is no gap."""

import pytest

from tests.chaos.kills import committed, kill_and_wait, settle
from tests.chaos.load import ENVIRONMENT, SYMBOLS
from tests.chaos.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_the_death_of_either_feed_leaves_no_hole(tmp_path):
    options = ("--venue", "synthetic", "--rate", "300", "--feeds", "2")
    with Stack(tmp_path, *options, environment=ENVIRONMENT) as stack:
        for name in ("feed", "feed-2"):
            kill_and_wait(stack, name)
        verified = settle(stack)
        rows = {symbol: committed(stack, symbol) for symbol in SYMBOLS}
    assert verified["exit"] == 0
    assert verified["document"]["holes_total"] == 0
    assert verified["document"]["duplicate"] > 0
    for table in rows.values():
        ids = table.column("trade_id").to_pylist()
        assert sorted(ids) == list(range(min(ids), max(ids) + 1))
