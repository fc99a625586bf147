"""The commands of joins and of days take the options of `k2 trades`, and write in its formats."""

from datetime import date

import pyarrow as pa
import pytest

from k2.query.shapes.availability import Availability
from k2.v1 import query_service_pb2 as pb

VERBS = {
    "asof": ("BTCUSDT", "ETHUSDT"),
    "markouts": ("BTCUSDT",),
    "summary": ("BTCUSDT", "2026-11-28"),
    "symbols": (),
    "availability": ("BTCUSDT",),
}


@pytest.fixture
def asked(asked):
    asked.shapes = dict.fromkeys(VERBS, asked.rows)
    return asked


@pytest.mark.parametrize("verb", VERBS)
def test_it_is_asked_and_written_like_trades(k2, asked, verb):
    done = k2(verb, *VERBS[verb], "--limit", 2, "--json")
    assert done.code == 0
    assert [row["trade_id"] for row in done.json] == ["1", "2"]
    assert "the same rows again" in done.stderr
    message = asked.requests[-1]
    assert message.WhichOneof("query") == verb
    assert getattr(message, verb).of.limit == 2
    assert "Example: k2" in k2(verb, "--help").stdout


def test_a_join_has_two_sides_a_tolerance_and_a_direction(k2, asked):
    k2("asof", "ETHUSDT", "BTCUSDT", "--tolerance", "5s", "--direction", "forward", "--json")
    asof = asked.requests[-1].asof
    assert (list(asof.of.symbols), asof.right) == (["ETHUSDT"], "BTCUSDT")
    assert asof.tolerance.seconds == 5
    assert asof.direction == pb.ASOF_DIRECTION_FORWARD
    assert k2("asof", "ETHUSDT").code == 2
    assert k2("asof", "ETHUSDT", "BTCUSDT", "--tolerance", "soon").code == 2


def test_horizons_are_given_with_commas(k2, asked):
    k2("markouts", "BTCUSDT", "--horizons", "1s,1m", "--json")
    assert [each.seconds for each in asked.requests[-1].markouts.horizons] == [1, 60]


def test_a_summary_is_of_a_day_in_a_zone(k2, asked):
    k2("summary", "BTCUSDT", "2026-11-28", "--tz", "Asia/Tokyo", "--json")
    summary = asked.requests[-1].summary
    assert (summary.date, summary.time_zone) == ("2026-11-28", "Asia/Tokyo")


@pytest.mark.parametrize("form", ["json", "csv"])
def test_days_are_written_as_dates(k2, asked, form):
    row = {"date": date(2026, 11, 28), "exchange": "BINANCE", "symbol": "X", "status": "missing"}
    numbers = {"count": 0, "gaps": 1, "missing_ids": 7}
    asked.shapes["availability"] = pa.Table.from_pylist([row | numbers], Availability().schema)
    assert "2026-11-28" in k2("availability", "--format", form).stdout
    assert "2026-11-28" in k2("availability").stdout
