"""`k2 degrade` shows the level, sets it for a while, and rehearses pressure."""

import json

import click
import pytest
from google.rpc import code_pb2

from k2.v1 import degradation_service_pb2 as pb
from k2cli.operate import degrade
from k2client.convert import LEVELS
from tests.fakes.k2_server import status


@pytest.mark.parametrize("command", ["degrade", "degradation"])
def test_the_level_for_programs_and_people(k2, asked, command):
    found = k2(command, "--json").json
    assert (found["level"], found["override"], found["injected"]) == ("SOFT", None, True)
    assert found["processes"][0]["pressures"] == [
        {"signal": "writer_lag_s", "reading": 12.5, "pressure": 0.5, "injected": False},
        {"signal": "rss_bytes", "reading": None, "pressure": 0.9, "injected": True},
    ]
    people = k2(command).stdout
    assert people.startswith("level SOFT: enrichment waits · INJECTED pressure\n")
    assert "writer_lag_s" in people
    assert "injected" in people


def test_an_override_is_set_shown_and_cleared(k2, asked):
    done = k2("degrade", "set", "graceful", "--for", "10m", "--reason", "a rehearsal")
    assert done.stdout == "OVERRIDE GRACEFUL until 2021-01-08 00:10:05.000Z: a rehearsal\n"
    (request,) = asked.requests
    assert request.level == pb.DEGRADATION_LEVEL_GRACEFUL
    assert request.duration.ToSeconds() == 600
    assert "OVERRIDE GRACEFUL until" in k2("degrade").stdout
    ended = k2("degrade", "clear", "--json").json["ended"]
    assert (ended["level"], ended["reason"]) == ("GRACEFUL", "a rehearsal")
    assert k2("degrade", "clear").stdout == "there was no override\n"


def test_levels_are_shown_in_upper_case(k2, asked):
    shown = k2("degrade", "set", "--help").stdout
    assert "LEVEL is NORMAL, SOFT, GRACEFUL, AGGRESSIVE or CIRCUIT_BREAK" in shown
    assert "{" not in shown
    assert all(degrade.LevelName().convert(name.lower(), None, None) == name for name in LEVELS)


def test_an_override_for_programs(k2, asked):
    arguments = ("degrade", "set", "NORMAL", "--for", "30", "--reason", "r", "--json")
    made = k2(*arguments).json["override"]
    assert made["expire_time"] == "2021-01-08T00:00:35.000000Z"
    assert k2("degrade", "clear").stdout.startswith("ended: OVERRIDE NORMAL until ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "HOT", "--for", "1m", "--reason", "r"), "'HOT' is not one of 'NORMAL', 'SOFT'"),
        (("set", "SOFT", "--reason", "r"), "'--for'"),
        (("set", "SOFT", "--for", "1m"), "'--reason'"),
        (("set", "SOFT", "--for", "soon", "--reason", "r"), "'soon' is no duration: 30s, 10m"),
        (("set", "SOFT", "--for", "1m x", "--reason", "r"), "'1m x' is no duration"),
        (("inject", "--signal", "rss_bytes", "--pressure", "2", "--for", "1s"), "0.0<=x<=1.0"),
        (("history", "--limit", "0"), "x>=1"),
    ],
)
def test_bad_input_is_one_line(k2, asked, arguments, said):
    done = k2("degrade", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("1h30m", 5400), ("7", 7), ("0.5s", 0.5)],
)
def test_a_length_of_time(text, seconds):
    assert degrade.LengthOfTime().convert(text, None, None) == seconds


def test_a_length_of_time_that_is_none():
    with pytest.raises(click.BadParameter):
        degrade.LengthOfTime().convert("", None, None)


def test_a_pressure_is_injected(k2, asked):
    arguments = ("degrade", "inject", "--signal", "rss_bytes", "--pressure", "0.9", "--for", "30s")
    said = k2(*arguments).stdout
    assert said == "rss_bytes of every process presses 0.9 until 2021-01-08 00:00:35.000Z\n"
    assert "of lake presses" in k2(*arguments, "--process", "lake").stdout
    assert [request.process for request in asked.requests] == ["", "lake"]
    until = k2(*arguments, "--json").json["expire_time"]
    assert until == "2021-01-08T00:00:35.000000Z"


def test_the_history_for_programs_and_people(k2, asked):
    ended, rise = k2("degrade", "history", "--limit", "2", "--json").json["transitions"]
    assert (ended["cause"], ended["process"], ended["reason"]) == (
        *("OVERRIDE_ENDED", "", "a rehearsal"),
    )
    assert (rise["from_level"], rise["to_level"], rise["reading"]) == ("NORMAL", "SOFT", 12.5)
    assert asked.requests[0].page_size == 2
    people = k2("degrade", "history").stdout
    assert "a rehearsal" in people
    assert "injected" in people


def test_a_watch_prints_each_state_and_goes_on_after_a_restart(k2, asked, monkeypatch):
    monkeypatch.setattr(degrade, "_RETRY_S", 0.0)
    asked.fail_calls = [status(code_pb2.UNAVAILABLE, "DRAINING", "control restarts")]
    done = k2("degrade", "watch")
    first, second = done.stdout.splitlines()
    assert first.endswith("· SOFT · lake rss_bytes -, pressure 0.90 · INJECTED")
    assert second == f"{first} · SHADOW"
    assert "DRAINING" in done.stderr
    assert (done.code, "the watch is over" in done.stderr) == (1, True)


def test_a_watch_for_programs_is_a_line_of_json_each(k2, asked):
    k2("degrade", "set", "SOFT", "--for", "9", "--reason", "r")
    lines = k2("degrade", "watch", "--json").stdout.splitlines()
    assert [json.loads(line)["shadow"] for line in lines] == [False, True]
    assert json.loads(lines[0])["override"]["reason"] == "r"
    assert "OVERRIDE SOFT" in k2("degrade", "watch").stdout


def test_a_data_directory_may_stand_before_the_subcommand(k2, tmp_path):
    for arguments in (("clear",), ("history",), ("watch",)):
        done = k2("degrade", "--data-dir", tmp_path / "none", *arguments)
        assert (done.code, "STACK_NOT_RUNNING" in done.stderr) == (1, True)
