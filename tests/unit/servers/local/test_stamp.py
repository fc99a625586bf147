"""What a data directory holds is decided once and never mixed."""

import json

import pytest

from k2.errors import Data, Invalid, Reason
from k2.settings import load
from servers.local.stamp import (
    Stamp,
    check,
    choose_venue,
    read_stamp,
    source_in,
    source_of,
    write_stamp,
)


def never():
    raise AssertionError("the live venue is asked only for a new data directory and auto")


def test_auto_takes_the_live_venue_if_it_answers():
    assert choose_venue("auto", None, lambda: True) == "live"
    assert choose_venue("auto", None, lambda: False) == "synthetic"


@pytest.mark.parametrize("venue", ["live", "synthetic"])
def test_auto_goes_on_with_what_the_directory_was_made_for(venue):
    stamp = Stamp(source_of(venue), venue, "BINANCE")
    assert choose_venue("auto", stamp, never) == venue


def test_auto_goes_on_with_a_recording(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    stamp = Stamp("recorded", f"recording:{tmp_path}/a.jsonl", "BINANCE_UM")
    assert choose_venue("auto", stamp, never) == stamp.venue


def test_a_recording_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    assert choose_venue("recording:a.jsonl", None, never) == f"recording:{tmp_path}/a.jsonl"


def test_a_recording_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(Invalid, match="no recording"):
        choose_venue(f"recording:{tmp_path}/none.jsonl", None, never)


@pytest.mark.parametrize("venue", ["", "binance", "recording:", "LIVE"])
def test_an_unknown_venue_is_refused(venue):
    with pytest.raises(Invalid, match="recording:PATH"):
        choose_venue(venue, None, never)


def test_a_stamp_comes_back(tmp_path):
    path = tmp_path / "stamp.json"
    assert read_stamp(path) is None
    stamp = Stamp("simulated", "synthetic", "BINANCE")
    write_stamp(path, stamp)
    assert read_stamp(path) == stamp
    assert [each.name for each in tmp_path.iterdir()] == ["stamp.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"source": "live"}'])
def test_a_damaged_stamp_is_refused(tmp_path, text):
    (tmp_path / "stamp.json").write_text(text)
    with pytest.raises(Data) as refused:
        read_stamp(tmp_path / "stamp.json")
    assert refused.value.reason is Reason.STAMP_MISMATCH


def test_mixing_is_refused_by_name(tmp_path):
    stamp = Stamp("simulated", "synthetic", "BINANCE")
    check(None, "live", tmp_path)
    check(stamp, "synthetic", tmp_path)
    with pytest.raises(Data, match="holds simulated data") as refused:
        check(stamp, "live", tmp_path)
    assert refused.value.reason is Reason.STAMP_MISMATCH
    with pytest.raises(Data, match="gives recorded data"):
        check(stamp, "recording:/some/where", tmp_path)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "no json"])
def test_without_a_readable_stamp_the_setting_says_what_rows_are(tmp_path, content):
    if content is not None:
        (tmp_path / "stamp.json").write_text(content)
    assert source_in(load(data_dir=tmp_path, feed={"source": "simulated"})) == "simulated"


def test_the_stamp_says_what_rows_are(tmp_path):
    (tmp_path / "stamp.json").write_text(json.dumps({"source": "recorded"}))
    assert source_in(load(data_dir=tmp_path)) == "recorded"
