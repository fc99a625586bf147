import json

import pytest

from k2.clock import SystemClock
from k2cli.maintain import before_us
from k2client.errors import Invalid

COMPACTED = {
    "event": "result",
    "merges": 2,
    "files_merged": 16,
    "message": "16 files became 2",
    "tables": {
        "market.trades": {"merges": 1, "files_merged": 9},
        "ops.gaps": {"merges": 1, "files_merged": 7},
    },
}
EXPIRED = {"event": "result", "snapshots_dropped": 3, "files_waiting": 9, "message": "3 dropped"}


def given(directory):
    return json.loads((directory / "maintain.given.json").read_text())["arguments"]


def test_compact_shows_what_was_merged(k2, script):
    progress = {"event": "progress", "message": "merging files", "done": 1, "total": 2}
    directory = script("maintain", [progress, COMPACTED])
    done = k2("compact", "--data-dir", directory)
    assert done.code == 0
    assert done.stdout.startswith("ok: 16 files became 2")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["table", "merges", "files", "merged"] in lines
    assert [line for line in lines if len(line) == 3] == [
        ["market.trades", "1", "9"],
        ["ops.gaps", "1", "7"],
    ]
    assert "merging files" in done.stderr
    assert given(directory) == ["compact"]


def test_the_document_for_programs(k2, script):
    done = k2("compact", "--json", "--data-dir", script("maintain", [COMPACTED]))
    assert done.json == {name: value for name, value in COMPACTED.items() if name != "event"}


@pytest.mark.parametrize(
    ("option", "arguments"),
    [([], ["expire"]), (["--older-than", "2021-01-08"], ["expire", "1610064000000000"])],
)
def test_expire_hands_its_time_on(k2, script, option, arguments):
    directory = script("maintain", [EXPIRED])
    done = k2("expire", *option, "--data-dir", directory)
    assert (done.code, given(directory)) == (0, arguments)
    assert done.stdout.startswith("ok: 3 dropped")


def test_an_age_is_counted_back_from_now():
    week_us = 7 * 86_400_000_000
    now_us = SystemClock().now_us()
    assert 0 <= now_us - week_us - before_us("7d") + 10**7 < 2 * 10**7


def test_eight_digits_are_a_date_and_other_numbers_no_age():
    assert before_us("20210108") == before_us("2021-01-08") == 1_610_064_000_000_000
    with pytest.raises(Invalid, match="milliseconds"):
        before_us("1610064000278")


def test_what_is_no_age_and_no_time_is_refused(k2, script):
    done = k2("expire", "--older-than", "soon", "--data-dir", script("maintain", [EXPIRED]))
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("k2: BAD_REQUEST: ")


def test_what_kept_it_from_working(k2, script):
    failed = {"event": "failed", "reason": "LAKE_UNAVAILABLE", "message": "no lake"}
    done = k2("expire", "--data-dir", script("maintain", [failed], exit=1))
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == "k2: LAKE_UNAVAILABLE: no lake\n"
