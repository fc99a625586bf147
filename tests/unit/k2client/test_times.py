import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
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
        "20210108T000000.000007Z",
        "2021-01-08T00:00:00.000007000",
        pd.Timestamp(MOMENT),
        pd.Timestamp(MOMENT).tz_localize(None),
        pd.Timestamp(MOMENT).tz_convert("Asia/Tokyo"),
        pd.Series([pd.Timestamp(MOMENT)]),
        np.datetime64("2021-01-08T00:00:00.000007"),
        np.datetime64("2021-01-08T00:00:00.000007000", "ns"),
        np.array("2021-01-08T00:00:00.000007", "M8[ns]"),
        np.int64(US),
        np.str_(US),
        pa.scalar(MOMENT),
        pa.scalar(US),
        pl.Series([MOMENT])[0],
        pl.Series([MOMENT]).to_numpy()[0],
    ],
)
def test_every_form_of_a_time_is_the_same_microsecond(value):
    assert times.to_us(value) == US


@pytest.mark.parametrize(
    "value",
    [
        dt.date(2021, 1, 8),
        "2021-01-08",
        "20210108",
        " 20210108\n",
        pa.scalar(dt.date(2021, 1, 8)),
        *[np.datetime64("2021-01-08", unit) for unit in ("D", "h", "m", "s", "ms", "us", "ns")],
        np.datetime64("2021-01-08").astype("M8[2h]"),
    ],
)
def test_a_date_is_its_midnight(value):
    assert times.to_us(value) == US - 7


def test_months_and_years_are_their_first_day():
    assert times.to_us(np.datetime64("2021-02", "M")) == times.to_us("2021-02-01")
    assert times.to_us(np.datetime64("2021", "Y")) == times.to_us("2021-01-01")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1_610_064_000_278, "looks like milliseconds"),
        (1_610_064_000, "looks like seconds"),
        (1_610_064_000_278_000_000, "looks like nanoseconds"),
        (20_210_108, "microseconds since 1970"),
        (0, "microseconds since 1970"),
        (-1, "microseconds since 1970"),
        (1_230_767_999_999_999, "microseconds since 1970"),
        (2**63, "so large a number"),
        (10**99, "so large a number"),
    ],
)
def test_a_bare_number_must_be_microseconds_of_a_time_with_trades(number, said):
    with pytest.raises(Invalid, match=said) as caught:
        times.to_us(number, lambda: US * 1000)
    assert caught.value.reason == "BAD_REQUEST"


def test_a_number_in_a_text_is_judged_alike():
    with pytest.raises(Invalid, match="looks like milliseconds"):
        times.to_us("1610064000278")


def test_tomorrow_is_by_the_callers_clock():
    now = lambda: US * 1000  # noqa: E731
    assert times.to_us(US + 86_400_000_000, now) == US + 86_400_000_000
    with pytest.raises(Invalid):
        times.to_us(US + 86_400_000_001, now)
    assert times.to_us("20990101") == 4_070_908_800_000_000


@pytest.mark.parametrize(
    "value",
    [
        "yesterday", "", "1.5", 1.5, True, None, "2021-01-08T00:00:00.0000071", 2**63, "9" * 30,
        "20211301", "2021", "202101", "20210108093000", "٢٠٢١٠١٠٨", pd.NaT, np.datetime64("NaT"),
        np.datetime64("NaT", "ns"), np.datetime64(300_000, "Y"), np.float64(US), np.True_,
        np.timedelta64(1, "D"), pd.Timedelta("1D"), dt.timedelta(days=1), dt.time(9),
        pd.Period("2021-01"), pd.Series(pd.to_datetime(["2021", "2022"])), [MOMENT], (US,),
        pd.DatetimeIndex(["2021", "2022"]), pl.Series([MOMENT]), pl.lit(MOMENT), pa.scalar(None),
        pa.scalar("soon"), object(),
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(value):
    with pytest.raises(Invalid) as caught:
        times.to_us(value)
    assert caught.value.reason == "BAD_REQUEST"


def test_nanoseconds_are_not_cut_off_in_silence():
    for value in (
        pd.Timestamp("2021-01-08T00:00:00.000000001Z"),
        np.datetime64("2021-01-08T00:00:00.000000001"),
        np.datetime64(1, "as"),
        pa.scalar(US * 1000 + 1, pa.timestamp("ns")),
    ):
        with pytest.raises(Invalid, match="finer"):
            times.to_us(value)
    for value in (pd.Timedelta("1500ns"), np.timedelta64(1500, "ns"), "1500ns", "1.0000001s"):
        with pytest.raises(Invalid, match="finer"):
            times.duration_us(value)


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
        ("7µs", 7),
        ("1h30m", 5_400_000_000),
        (" 1d 2h ", 93_600_000_000),
        ("1000ns", 1),
        (dt.timedelta(minutes=15), 900_000_000),
        (pd.Timedelta("15min"), 900_000_000),
        (pl.Series([dt.timedelta(minutes=15)])[0], 900_000_000),
        (pa.scalar(dt.timedelta(minutes=15)), 900_000_000),
        *[
            (np.timedelta64(900, "s").astype(f"m8[{unit}]"), 900_000_000)
            for unit in ("m", "s", "ms", "us", "ns", "ps", "5m")
        ],
        (np.timedelta64(1, "W"), 604_800_000_000),
        (np.timedelta64(2, "D"), 172_800_000_000),
    ],
)
def test_durations(value, expected):
    assert times.duration_us(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "", "15", "m", "-1m", "0s", "15 minutes", 900, dt.timedelta(0), "9" * 20 + "d", "1mo", "1y",
        "1q", "1i", "1 days 02:03:04", "1h-5m", "9" * 200 + "s", None, True, 1.5, pd.NaT,
        np.timedelta64("NaT"), np.timedelta64(900), np.timedelta64(1, "M"), np.timedelta64(-1, "s"),
        np.timedelta64(1, "Y"), np.datetime64("2021"), MOMENT, pd.Timestamp(MOMENT), object(),
        pl.Series([dt.timedelta(1)]), pl.duration(minutes=15), pd.DateOffset(months=1), ["15m"],
        pd.TimedeltaIndex(["1D", "2D"]), np.int64(900), pa.scalar(None),
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(Invalid) as caught:
        times.duration_us(value)
    assert caught.value.reason == "BAD_REQUEST"


@given(st.integers(0, 253_402_300_799_999_999))
def test_times_read_back(micros):
    assert times.to_us(times.from_us(micros)) == micros
    assert times.to_us(times.from_us(micros).isoformat()) == micros
