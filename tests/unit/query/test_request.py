import pytest

from k2 import limits
from k2.errors import Invalid, Reason
from k2.market.instrument import Instrument
from k2.market.offsets import OffsetVector, ReadToken, TimeRange
from k2.market.schema import TRADE, arrow_schema
from k2.query.request import (
    TIME_MAX_US,
    TIME_MIN_US,
    Caller,
    Consistency,
    Order,
    Principal,
    RequestClass,
    TradesRequest,
    validated,
)


def refused(**fields):
    with pytest.raises(Invalid) as caught:
        validated(TradesRequest(**fields))
    return caught.value.reason


def test_the_least_request_is_all_trades_in_order():
    request = validated(TradesRequest())
    assert request == TradesRequest()
    assert request.output_columns == TRADE.columns
    assert request.output_schema == arrow_schema(TRADE)
    assert request.caller == Caller(Principal(""), RequestClass.INTERACTIVE)
    assert request.order is Order.ASC
    assert request.consistency is Consistency.UNION


def test_names_are_upper_case_and_each_once():
    request = validated(TradesRequest(symbols=("btcusdt", "BTCUSDT", "ethusdt"), exchanges=("b",)))
    assert request.symbols == ("BTCUSDT", "ETHUSDT")
    assert request.exchanges == ("B",)


def test_names_may_hold_any_script():
    assert validated(TradesRequest(symbols=("币安usdt",))).symbols == ("币安USDT",)


@pytest.mark.parametrize("name", ["", "\x00", "A\nB", "A" * (limits.LABEL_BYTES_MAX + 1)])
def test_what_is_no_name_is_refused(name):
    assert refused(symbols=(name,)) is Reason.BAD_REQUEST
    assert refused(exchanges=(name,)) is Reason.BAD_REQUEST


def test_too_many_names_are_refused():
    names = tuple(f"S{i}" for i in range(limits.SYMBOLS_PER_QUERY_MAX + 1))
    assert refused(symbols=names) is Reason.BAD_REQUEST
    assert len(validated(TradesRequest(symbols=names[:-1])).symbols) == limits.SYMBOLS_PER_QUERY_MAX


def test_a_reversed_range_is_refused_and_an_empty_one_is_not():
    assert refused(range=TimeRange(2, 1)) is Reason.RANGE_REVERSED
    assert validated(TradesRequest(range=TimeRange(1, 1))).range == TimeRange(1, 1)


@pytest.mark.parametrize("time_us", [TIME_MIN_US - 1, TIME_MAX_US + 1])
def test_times_beyond_the_calendar_are_refused(time_us):
    assert refused(range=TimeRange(time_us, None)) is Reason.BAD_REQUEST
    assert refused(range=TimeRange(None, time_us)) is Reason.BAD_REQUEST


@pytest.mark.parametrize("limit", [-1, 0, limits.LIMIT_ROWS_MAX + 1])
def test_limits_out_of_bounds_are_refused(limit):
    assert refused(limit=limit) is Reason.LIMIT_OUT_OF_BOUNDS


def test_limits_at_the_bounds_pass():
    assert validated(TradesRequest(limit=1)).limit == 1
    assert validated(TradesRequest(limit=limits.LIMIT_ROWS_MAX)).limit == limits.LIMIT_ROWS_MAX


def test_an_unknown_column_is_named():
    with pytest.raises(Invalid) as caught:
        validated(TradesRequest(columns=("price", "prize")))
    assert caught.value.reason is Reason.UNKNOWN_COLUMN
    assert caught.value.metadata == {"column": "prize"}


def test_columns_keep_their_order_each_once():
    request = validated(TradesRequest(columns=("price", "symbol", "price")))
    assert request.output_columns == ("price", "symbol")


@pytest.mark.parametrize("last_us", [0, -1, TIME_MAX_US + 1])
def test_last_must_be_a_duration(last_us):
    assert refused(last_us=last_us) is Reason.BAD_REQUEST


def test_last_and_a_range_exclude_each_other():
    assert refused(last_us=1, range=TimeRange(1, None)) is Reason.BAD_REQUEST
    assert refused(last_us=1, range=TimeRange(None, 1)) is Reason.BAD_REQUEST


def test_last_starts_before_the_moment_of_planning_and_has_no_end():
    request = validated(TradesRequest(last_us=10)).resolved(100)
    assert request.range == TimeRange(90, None)
    assert request.last_us is None
    assert request.resolved(200) == request


def test_as_of_needs_exactly_one_of_snapshot_and_time():
    as_of = Consistency.AS_OF
    assert refused(consistency=as_of) is Reason.BAD_REQUEST
    assert refused(consistency=as_of, as_of_snapshot=1, as_of_time_us=1) is Reason.BAD_REQUEST
    assert validated(TradesRequest(consistency=as_of, as_of_snapshot=1)).as_of_snapshot == 1
    assert validated(TradesRequest(consistency=as_of, as_of_time_us=1)).as_of_time_us == 1


def test_only_as_of_takes_a_snapshot_or_a_time():
    assert refused(as_of_snapshot=1) is Reason.BAD_REQUEST
    assert refused(consistency=Consistency.COMMITTED, as_of_time_us=1) is Reason.BAD_REQUEST


def test_a_token_is_a_moment_of_its_own():
    as_of, token = Consistency.AS_OF, ReadToken("t", OffsetVector(0, (1, 2)))
    request = validated(TradesRequest(consistency=as_of, as_of_token=token))
    assert request.as_of_token == token
    assert not request.needs_lake_alone
    assert refused(as_of_token=token) is Reason.BAD_REQUEST
    assert refused(consistency=as_of, as_of_token=token, as_of_snapshot=1) is Reason.BAD_REQUEST
    assert refused(consistency=as_of, as_of_token=token, last_us=1) is Reason.BAD_REQUEST
    assert validated(TradesRequest(consistency=as_of, as_of_snapshot=1)).needs_lake_alone


@pytest.mark.parametrize(
    "token",
    [
        ReadToken("", OffsetVector(0, (1,))),
        ReadToken("\x00", OffsetVector(0, (1,))),
        ReadToken("t" * (limits.LABEL_BYTES_MAX + 1), OffsetVector(0, (1,))),
        ReadToken("t", OffsetVector(0, ())),
        ReadToken("t", OffsetVector(0, (0,) * (limits.PARTITIONS_MAX + 1))),
        ReadToken("t", OffsetVector(0, (1, -1))),
        ReadToken("t", OffsetVector(-1, (1,))),
        ReadToken("t", OffsetVector(0, (1,)), snapshot_id=-1),
    ],
)
def test_what_no_answer_can_have_carried_is_no_token(token):
    assert refused(consistency=Consistency.AS_OF, as_of_token=token) is Reason.BAD_TOKEN


def test_it_knows_which_instruments_it_names():
    btc = Instrument("BINANCE", "BTCUSDT")
    assert TradesRequest().names(btc)
    assert TradesRequest(symbols=("BTCUSDT",)).names(btc)
    assert not TradesRequest(symbols=("ETHUSDT",)).names(btc)
    assert TradesRequest(exchanges=("BINANCE",)).names(btc)
    assert not TradesRequest(exchanges=("BINANCE_UM",), symbols=("BTCUSDT",)).names(btc)


def test_names_that_no_instrument_meant_has_are_unknown():
    known = [Instrument("A", "X"), Instrument("B", "Y")]
    asked = TradesRequest(symbols=("X", "Y", "Z"), exchanges=("A", "C"))
    assert asked.unknown_among(known) == ["Y", "Z", "C"]
    assert TradesRequest().unknown_among(known) == []


@pytest.mark.parametrize("fields", [{"symbols": ("A" * 9000,)}, {"columns": ("A" * 9000,)}])
def test_a_long_wrong_name_is_repeated_in_part(fields):
    with pytest.raises(Invalid) as caught:
        validated(TradesRequest(**fields))
    assert repr("A" * 64) in str(caught.value)
    assert len(str(caught.value)) < 400
