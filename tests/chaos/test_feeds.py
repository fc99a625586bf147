"""Two feeds of one venue: every trade comes twice and is a row once; the death of one is no gap."""

import pytest

from tests.chaos.account import SYMBOLS, committed_ids, settle, wrong_ids
from tests.chaos.kills import kill_and_wait
from tests.chaos.stack import ENVIRONMENT, Stack

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]


def test_the_death_of_either_feed_leaves_no_hole(tmp_path):
    options = ("--venue", "synthetic", "--rate", "300", "--feeds", "2")
    with Stack(tmp_path, *options, environment=ENVIRONMENT) as stack:
        for name in ("feed", "feed-2"):
            kill_and_wait(stack, name)
        verified = settle(stack)
        held = {symbol: committed_ids(stack, symbol) for symbol in SYMBOLS}
    assert verified["exit"] == 0
    assert verified["document"]["holes_total"] == 0
    assert verified["document"]["duplicate"] > 0
    for symbol, ids in held.items():
        assert ids
        assert wrong_ids(symbol, ids) == []
