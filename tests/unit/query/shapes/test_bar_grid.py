from datetime import UTC, datetime

import pytest

from k2.errors import Invalid, Reason
from k2.market.events import TIME_MAX_US
from k2.market.offsets import TimeRange
from k2.query.request import TIME_MIN_US
from k2.query.shapes.bar_grid import DAY_US, BarGrid

HOUR_US = 3_600_000_000


def us(*parts):
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 10**6


def starts(every, zone, *moments):
    return [datetime.fromtimestamp(BarGrid(every, zone).floor(us(*m)) / 1e6, UTC) for m in moments]


@pytest.mark.parametrize(
    "every", ["100ms", "250ms", "1s", "1m", "5m", "90m", "1h", "6h", "24h", "1d", "1w", "1mo"]
)
def test_lengths_of_bars(every):
    BarGrid(every, "Europe/Berlin").check()


@pytest.mark.parametrize(
    "every",
    [
        "",
        "1",
        "m",
        "0s",
        "99ms",
        "7m",
        "5h",
        "48h",
        "2d",
        "1M",
        "1 m",
        "-1m",
        "1.5h",
        "\u0661m",
        "1us",
    ],
)
def test_what_is_no_length(every):
    with pytest.raises(Invalid, match="no length of a bar") as caught:
        BarGrid(every).check()
    assert caught.value.reason is Reason.BAD_REQUEST


@pytest.mark.parametrize("zone", ["", "Mars", "../etc", "Europe", "\0", "x" * 5000])
def test_what_is_no_zone(zone):
    with pytest.raises(Invalid, match="no time zone") as caught:
        BarGrid("1m", zone).check()
    assert len(caught.value.message) < 200


def test_a_bar_of_a_part_of_a_day_begins_at_midnight_of_its_zone():
    at = (2026, 1, 1, 12, 34, 56)
    assert starts("1h", "UTC", at) == [datetime(2026, 1, 1, 12, tzinfo=UTC)]
    assert starts("1h", "Asia/Kathmandu", at) == [datetime(2026, 1, 1, 12, 15, tzinfo=UTC)]
    assert starts("8h", "Asia/Kathmandu", at) == [datetime(2026, 1, 1, 10, 15, tzinfo=UTC)]


def test_bars_of_the_calendar():
    at = (2026, 3, 4, 23, 30)
    berlin = [starts(every, "Europe/Berlin", at)[0] for every in ("1d", "1w", "1mo")]
    assert berlin == [
        datetime(2026, 3, 4, 23, tzinfo=UTC),
        datetime(2026, 3, 1, 23, tzinfo=UTC),
        datetime(2026, 2, 28, 23, tzinfo=UTC),
    ]


def test_a_day_of_23_hours_begins_and_ends_with_a_bar():
    grid = BarGrid("4h", "Europe/Berlin")
    first, second = grid.edges(us(2026, 3, 29, 12), us(2026, 3, 29, 12))
    assert second - first == 23 * HOUR_US
    moments = range(first, second, HOUR_US)
    floors = sorted({grid.floor(moment) for moment in moments})
    assert [(start - first) // HOUR_US for start in floors] == [0, 4, 8, 12, 16, 20]
    assert grid.floor(second) == second


def test_a_day_without_a_midnight_begins_with_the_change_of_clocks():
    assert starts("1d", "America/Havana", (2026, 3, 8, 12)) == [datetime(2026, 3, 8, 5, tzinfo=UTC)]
    # Of two midnights, the first.
    assert starts("1d", "America/Havana", (2026, 11, 1, 12)) == [
        datetime(2026, 11, 1, 4, tzinfo=UTC)
    ]


def test_edges_cover_two_times_and_name_the_next_one():
    december = BarGrid("1mo").edges(us(2025, 12, 31), us(2026, 1, 1))
    assert december == [us(2025, 12, 1), us(2026, 1, 1), us(2026, 2, 1)]
    assert BarGrid("1w").edges(0, 0) == [-3 * DAY_US, 4 * DAY_US]
    assert BarGrid("1w").unit_us(BarGrid("1w").edges(0, 0)) == DAY_US


def test_times_beyond_the_calendar_have_bars_too():
    for every in ("1mo", "1d", "8h"):
        grid = BarGrid(every, "Asia/Tokyo")
        assert grid.floor(TIME_MIN_US) == TIME_MIN_US
        assert grid.floor(TIME_MAX_US) <= TIME_MAX_US
    with pytest.raises(Invalid, match="too many"):
        BarGrid("1d", "Asia/Tokyo").edges(TIME_MIN_US, TIME_MAX_US)


def test_a_range_begins_with_a_bar_and_stays_so():
    grid = BarGrid("1h", "Asia/Kathmandu")
    once = grid.aligned(TimeRange(us(2026, 1, 1, 0, 30), us(2026, 1, 2)))
    assert once == TimeRange(us(2026, 1, 1, 0, 15), us(2026, 1, 2))
    assert grid.aligned(once) == once
    assert grid.aligned(TimeRange(None, 5)) == TimeRange(None, 5)


def test_no_bar_is_longer():
    assert BarGrid("5m").length_max_us == 300_000_000
    assert BarGrid("1mo").length_max_us == 32 * DAY_US
