"""Recorded input, expected answers: the golden recording through every part of a whole K2."""

import csv
import io

import pytest

import k2client
from tests.chaos.stack import Stack
from tests.golden import market
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
ROWS = market.PER_SYMBOL * len(market.SYMBOLS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    options = ("--venue", f"recording:{market.FRAMES}", "--speed", "0")
    environment = {"K2_LAKE__COMMIT_INTERVAL_S": "1"}
    with Stack(tmp_path_factory.mktemp("golden"), *options, environment=environment) as running:
        with k2client.connect(str(running.addresses["control"])) as k2:
            eventually(lambda: (found := k2.snapshots()) and found[0].rows_total == ROWS, 120)
        yield running


def rows_of(stack, *options):
    asked = (",".join(market.SYMBOLS), "--columns", ",".join(market.COLUMNS), "--format", "csv")
    answer = stack.k2("trades", *asked, *options).stdout
    rows = list(csv.reader(io.StringIO(answer)))[1:]
    return sorted(rows, key=lambda row: (row[2], row[0], int(row[1])))


def expected_rows():
    with market.EXPECTED.open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_every_trade_comes_out_as_it_was_printed(stack):
    assert rows_of(stack) == expected_rows()
    assert rows_of(stack, "--consistency", "committed") == expected_rows()


def test_the_accounts_balance(stack):
    verified = stack.json("verify")
    assert verified["ok"], verified
    assert verified["holes"] == []


def test_an_older_snapshot_is_part_of_the_newest_answer(stack):
    oldest = stack.json("snapshots")["snapshots"][-1]["snapshot_id"]
    then = rows_of(stack, "--as-of", oldest)
    assert all(row in expected_rows() for row in then)


def test_the_recording_and_its_answers_are_what_the_generator_makes():
    printed = market.trades()
    assert market.FRAMES.read_text().splitlines() == market.frames(printed)
    assert len(expected_rows()) == len(printed) == ROWS
