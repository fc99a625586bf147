"""Options of joins, markouts, summaries and availability: what they refuse, and what they read."""

from datetime import UTC, datetime

import pytest

from k2.errors import Invalid
from k2.market.offsets import TimeRange
from k2.query.request import TradesRequest, validated
from k2.query.shapes.asof import Asof, Direction
from k2.query.shapes.availability import Availability
from k2.query.shapes.markouts import Markouts
from k2.query.shapes.shape import Extent
from k2.query.shapes.summary import Summary
from k2.query.shapes.symbols import Symbols

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
NOON_US = 1_700_000_000_000_000 // DAY_US * DAY_US + DAY_US // 2


def us(*moment):
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 1_000_000


def asked(shape, symbols=("ETHUSDT",), **of):
    return validated(TradesRequest(symbols=symbols, shape=shape, **of))


def refused(shape, **of):
    with pytest.raises(Invalid) as caught:
        asked(shape, **of)
    return caught.value.message


def test_a_join_reads_both_symbols_and_the_tolerance_beyond_its_range():
    request = asked(Asof(right="btcusdt", tolerance_us=5), range=TimeRange(100, 200))
    assert request.read_symbols == ("ETHUSDT", "BTCUSDT")
    assert request.range == TimeRange(100, 200)
    assert request.read_range == TimeRange(95, 200)
    forward = Asof(right="BTCUSDT", tolerance_us=5, direction=Direction.FORWARD)
    assert forward.widened(TimeRange(100, 200)) == TimeRange(100, 205)
    assert forward.widened(TimeRange()) == TimeRange()
    assert forward.stretch_us == 5


def test_a_join_without_a_tolerance_reads_all_of_one_side():
    assert Asof(right="BTCUSDT").widened(TimeRange(100, 200)) == TimeRange(None, 200)
    forward = Asof(right="BTCUSDT", direction=Direction.FORWARD)
    assert forward.widened(TimeRange(100, 200)) == TimeRange(100, None)
    assert forward.stretch_us is None


def test_a_join_needs_two_sides_and_a_tolerance_that_is_one():
    assert "right side" in refused(Asof())
    assert "right side" in refused(Asof(right="A\n"))
    assert "right side" in refused(Asof(right="A" * 300))
    assert "left side" in refused(Asof(right="BTCUSDT"), symbols=())
    assert "tolerance" in refused(Asof(right="BTCUSDT", tolerance_us=-1))
    assert "tolerance" in refused(Asof(right="BTCUSDT", tolerance_us=2**62))


def test_joined_columns_are_the_left_ones_then_the_right_ones():
    names = Asof(right="BTCUSDT").schema.names
    assert names[:2] == ["exchange", "symbol"]
    assert names[16:] == [f"right_{name}" for name in names[:16]]
    columns = ("price", "right_price")
    assert asked(Asof(right="BTCUSDT"), columns=columns).output_columns == columns


def test_horizons_are_ascending_and_distinct():
    shape = asked(Markouts((5, 1, 5))).shape
    assert shape.horizons_us == (1, 5)
    assert shape.stretch_us == HOUR_US + 5
    assert shape.widened(TimeRange(1, 2)) == TimeRange(1, 7 + HOUR_US)
    assert shape.widened(TimeRange(1)) == TimeRange(1)
    assert shape.schema.names[-3:] == ["horizon_us", "price_then", "markout"]


@pytest.mark.parametrize("horizons_us", [(), (0,), (DAY_US + 1,), tuple(range(1, 18))])
def test_horizons_are_a_few_times_of_up_to_a_day(horizons_us):
    assert "horizon" in refused(Markouts(horizons_us))


def test_a_summary_is_of_the_day_of_its_zone():
    request = asked(Summary("20261025", "Europe/Berlin")).resolved(0)
    assert request.shape.day == "2026-10-25"
    assert request.range == TimeRange(us(2026, 10, 24, 22), us(2026, 10, 25, 23))
    assert validated(request) == request  # as a ticket is read again


@pytest.mark.parametrize(
    ("shape", "of", "message"),
    [
        (Summary("2026-02-30"), {}, "no day"),
        (Summary(), {}, "no day"),
        (Summary("2026-01-31", "Mars/Utopia"), {}, "time zone"),
        (Summary("9999-12-31"), {}, "beyond the calendar"),
        (Summary("2026-01-31"), {"last_us": 5}, "no range"),
        (Summary("2026-01-31"), {"range": TimeRange(1, 2)}, "no range"),
    ],
)
def test_a_summary_needs_a_day_and_no_range(shape, of, message):
    assert message in refused(shape, **of)


def test_availability_is_of_whole_days_and_reads_a_day_on_either_side():
    request = asked(Availability(), range=TimeRange(NOON_US, NOON_US + 1)).resolved(0)
    day = TimeRange(NOON_US - DAY_US // 2, NOON_US + DAY_US // 2)
    assert request.range == day
    assert request.resolved(0) == request
    read = request.read_range
    assert day.start_us - read.start_us == read.end_us - day.end_us == DAY_US + 2 * HOUR_US
    assert request.shape.stretch_us >= 4 * DAY_US
    assert Availability().widened(TimeRange()) == TimeRange()
    assert "time zone" in refused(Availability("Mars/Utopia"))


def test_a_day_of_availability_is_one_of_the_zone():
    times = Availability("Europe/Berlin").aligned(TimeRange(us(2026, 10, 25), us(2026, 10, 25, 1)))
    assert times == TimeRange(us(2026, 10, 24, 22), us(2026, 10, 25, 23))


def test_each_shape_reads_columns_of_a_trade_and_orders_by_its_own():
    for shape in (Asof(right="A"), Markouts(), Summary("2026-01-31"), Symbols(), Availability()):
        assert set(shape.order) <= set(shape.schema.names)
        assert {"exchange", "symbol", "trade_id", "event_time"} <= set(shape.columns)
        assert shape.statement(Extent(range=shape.aligned(TimeRange()))).text
