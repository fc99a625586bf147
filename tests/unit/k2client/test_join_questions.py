from datetime import date, timedelta

import pytest

from k2.v1 import query_service_pb2 as pb
from k2client import shape_questions
from k2client.errors import Invalid
from k2client.shape_verbs import ShapeVerbs
from k2client.trades_request import TradesQuestion

ETH = TradesQuestion("ETHUSDT")


class Asking(ShapeVerbs):
    """A client that keeps what it would send."""

    def ask(self, question, *, deadline_s=None):
        return question.request()


K2 = Asking()


def micros(durations):
    return [each.ToMicroseconds() for each in durations]


def test_a_join_names_both_sides():
    asked = K2.asof("ETHUSDT", "BTCUSDT", tolerance="5s", direction="forward", last="1h").asof
    assert list(asked.of.symbols) == ["ETHUSDT"]
    assert asked.right == "BTCUSDT"
    assert micros([asked.tolerance, asked.of.last]) == [5_000_000, 3_600_000_000]
    assert asked.direction == pb.ASOF_DIRECTION_FORWARD
    assert not K2.asof("ETHUSDT", "BTCUSDT").asof.HasField("tolerance")


def test_horizons_are_one_or_several():
    assert micros(K2.markouts("ETHUSDT").markouts.horizons) == [10**6, 10**7, 6 * 10**7]
    assert micros(K2.markouts("ETHUSDT", horizons="1ms").markouts.horizons) == [1000]
    given = [timedelta(seconds=1), "1h"]
    assert micros(K2.markouts(None, horizons=given).markouts.horizons) == [10**6, 3600 * 10**6]
    with pytest.raises(Invalid, match="horizons"):
        shape_questions.markouts(ETH, [])


def test_a_day_is_a_date_or_a_text():
    asked = K2.summary("ETHUSDT", date(2026, 1, 31), tz="Asia/Tokyo").summary
    assert (asked.date, asked.time_zone) == ("2026-01-31", "Asia/Tokyo")
    assert K2.summary("ETHUSDT", "2026-01-31").summary.date == "2026-01-31"
    with pytest.raises(Invalid, match="date"):
        shape_questions.summary(ETH, 20260131)


def test_symbols_and_availability_are_of_all_unless_some_are_named():
    assert K2.symbols().symbols.of.symbols == []
    assert K2.symbols("ETHUSDT", limit=3).symbols.of.limit == 3
    asked = K2.availability(tz="Asia/Tokyo", last="7d").availability
    assert asked.of.symbols == []
    assert asked.time_zone == "Asia/Tokyo"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: shape_questions.asof(ETH, ""),
        lambda: shape_questions.asof(ETH, "BTCUSDT", "soon"),
        lambda: shape_questions.asof(ETH, "BTCUSDT", direction="sideways"),
        lambda: shape_questions.markouts(ETH, ["1s", 5]),
        lambda: shape_questions.availability(ETH, ""),
    ],
)
def test_what_has_no_form_is_refused(wrong):
    with pytest.raises(Invalid):
        wrong()
