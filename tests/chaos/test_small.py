"""The drivers of load, kills and the drill in a small form, so that every change runs them.

One stack for all, in the order of the tests: the first finds a lake without holes, the last one
destroys it.
"""

import os
import signal

import pytest

import k2client
from tests.chaos import disorder, drill, kills, load, travel
from tests.chaos.stack import BRISK, CLOCK, Stack, until

STOOD_STILL_S = 15.0  # so long that the broker is fenced, and says so when it goes on

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    options = ("--venue", "synthetic", "--rate", "200")
    folder = tmp_path_factory.mktemp("chaos")
    with Stack(folder / "k2", *options, environment=BRISK) as running:
        yield running


def test_every_id_is_there_once_when_frames_come_out_of_order_and_twice(stack):
    assert disorder.run(stack, seconds=4)["faults"] == []  # the first: it knows of no hole


def test_an_older_snapshot_answers_the_same_some_commits_later(stack):
    report = travel.run(stack, commits=5)
    assert report["equal"]
    assert report["tokens_equal"]


def test_every_hybrid_answer_is_whole_and_fresh(stack):
    found = load.run(str(stack.addresses["control"]), queries=160, clients=4)
    assert found.faults == []
    assert found.queries == 160
    assert found.both_sides * 3 >= found.queries


def test_the_accounts_balance_after_a_kill_of_each_process(stack):
    report = kills.run(stack, rounds=1, seed=1, share_min=0.5, pause_s=1.0)
    assert report["faults"] == []
    assert report["kills"] == len(kills.VICTIMS)


def test_trades_are_acknowledged_again_when_a_broker_that_stood_still_goes_on(stack):
    broker = int(stack.recorded()["broker"]["pid"])
    with k2client.connect(str(stack.addresses["control"])) as k2:

        def total():
            return sum(feed.trades_acknowledged for feed in k2.feeds())

        os.kill(broker, signal.SIGSTOP)
        try:
            CLOCK.sleep(STOOD_STILL_S)
        finally:
            os.kill(broker, signal.SIGCONT)
        before = total()
        until(lambda: total() > before + 400, "trades are acknowledged again", timeout_s=60)


def test_a_lost_lake_comes_back_and_goes_on_with_two_feeds_of_which_either_may_die(stack, tmp_path):
    report = drill.run(stack, tmp_path / "backup")
    assert report["faults"] == []
    assert report["rows_of_snapshot"] > 0
    assert 0 < report["copied_second"] < report["backup_bytes"]
    assert report["duplicates"] > 0
