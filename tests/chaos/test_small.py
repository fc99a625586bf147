"""The drivers of load and kills in a small form, so that every change runs them."""

import os
import signal

import pytest

from tests.chaos import disorder, kills, load, travel
from tests.chaos.stack import BRISK, CLOCK, Stack, until

STOOD_STILL_S = 30.0  # so long that the broker is fenced, and says so when it goes on

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    options = ("--venue", "synthetic", "--rate", "500")
    folder = tmp_path_factory.mktemp("chaos")
    with Stack(folder, *options, environment=BRISK) as running:
        yield running


def test_every_id_is_there_once_when_frames_come_out_of_order_and_twice(stack):
    assert disorder.run(stack, seconds=4)["faults"] == []  # the first: it knows of no hole


def test_every_hybrid_answer_is_whole_and_fresh(stack):
    found = load.run(str(stack.addresses["control"]), queries=300, clients=4)
    assert found.faults == []
    assert found.queries == 300
    assert found.both_sides * 3 >= found.queries


def test_an_older_snapshot_answers_the_same_some_commits_later(stack):
    report = travel.run(stack, commits=5)
    assert report["equal"]
    assert report["tokens_equal"]


def test_the_accounts_balance_after_a_kill_of_each_process(stack):
    report = kills.run(stack, rounds=1, seed=1, share_min=0.5, pause_s=1.0)
    assert report["faults"] == []
    assert report["kills"] == len(kills.VICTIMS)


def test_trades_are_acknowledged_again_when_a_broker_that_stood_still_goes_on(stack):
    def total():
        return sum(feed["trades_acknowledged"] for feed in stack.json("feeds")["feeds"])

    broker = int(stack.recorded()["broker"]["pid"])
    os.kill(broker, signal.SIGSTOP)
    try:
        CLOCK.sleep(STOOD_STILL_S)
    finally:
        os.kill(broker, signal.SIGCONT)
    before = total()
    until(lambda: total() > before + 1000, "trades are acknowledged again", timeout_s=45)
