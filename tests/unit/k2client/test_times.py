import datetime as dt

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2client import times
from k2client.errors import Invalid

US = 1_610_064_000_000_007
MOMENT = dt.datetime(2021, 1, 8, 0, 0, 0, 7, dt.UTC)


@pytest.mark.parametrize(
    "value",
    [
        US,
        str(US),
        MOMENT,
        MOMENT.replace(tzinfo=None),
        "2021-01-08T00:00:00.000007Z",
        "2021-01-08 00:00:00.000007",
        "2021-01-08T02:00:00.000007+02:00",
        pd.Timestamp(MOMENT),
    ],
)
def test_every_form_of_a_time_is_the_same_microsecond(value):
    assert times.to_us(value) == US


def test_a_date_is_its_midnight():
    assert times.to_us(dt.date(2021, 1, 8)) == US - 7
    assert times.to_us("2021-01-08") == US - 7


@pytest.mark.parametrize(
    "value",
    ["yesterday", "", "1.5", 1.5, True, None, "2021-01-08T00:00:00.0000071", 2**63, "9" * 30],
)
def test_what_is_no_time_is_refused(value):
    with pytest.raises(Invalid) as caught:
        times.to_us(value)
    assert caught.value.reason == "BAD_REQUEST"


def test_nanoseconds_are_not_cut_off_in_silence():
    with pytest.raises(Invalid, match="finer"):
        times.to_us(pd.Timestamp("2021-01-08T00:00:00.000000001Z"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("90s", 90_000_000),
        ("15m", 900_000_000),
        ("2h", 7_200_000_000),
        ("1d", 86_400_000_000),
        ("1w", 604_800_000_000),
        ("250ms", 250_000),
        ("7us", 7),
        ("1.1s", 1_100_000),
        (dt.timedelta(minutes=15), 900_000_000),
    ],
)
def test_durations(value, expected):
    assert times.duration_us(value) == expected


@pytest.mark.parametrize(
    "value", ["", "15", "m", "-1m", "0s", "15 minutes", 900, dt.timedelta(0), "9" * 20 + "d"]
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(Invalid):
        times.duration_us(value)


@given(st.integers(0, 253_402_300_799_999_999))
def test_times_read_back(micros):
    assert times.to_us(times.from_us(micros)) == micros
    assert times.to_us(times.iso(micros)) == micros
