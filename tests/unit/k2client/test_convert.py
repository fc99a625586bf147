import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.v1 import (
    degradation_service_pb2,
    feed_service_pb2,
    market_pb2,
    platform_service_pb2,
    snapshot_service_pb2,
)
from k2client import convert, records
from k2client.errors import Internal, Invalid


def test_fields_of_the_same_name_and_none_for_what_is_unset():
    message = snapshot_service_pb2.Snapshot(
        snapshot_id=2**62,
        commit_time=convert.timestamp(1_610_064_000_000_007),
        positions=market_pb2.OffsetVector(epoch=1, offsets=[2, 3]),
        counters=[snapshot_service_pb2.PartitionCounters(partition=1, accepted=4)],
    )
    found = convert.record(records.Snapshot, message)
    assert found.snapshot_id == 2**62
    assert found.parent_id is None
    assert found.commit_time == dt.datetime(2021, 1, 8, 0, 0, 0, 7, dt.UTC)
    assert found.positions == records.OffsetVector(1, (2, 3))
    assert found.counters == (records.PartitionCounters(1, 4, 0, 0),)


def test_an_optional_zero_is_a_value():
    pressure = degradation_service_pb2.Pressure(signal="a", reading=0.0)
    assert convert.record(records.Pressure, pressure) == records.Pressure(
        "a", 0.0, 0.0, injected=False
    )
    assert convert.record(records.Pressure, degradation_service_pb2.Pressure()).reading is None


def test_enumerations_lose_their_prefix_and_unknown_ones_are_numbers():
    message = platform_service_pb2.Component(name="broker", state=2, addresses={"kafka": "a:1"})
    found = convert.record(records.Component, message)
    assert (found.state, found.level, found.addresses) == ("SERVING", None, {"kafka": "a:1"})
    message.state = 99
    assert convert.record(records.Component, message).state == "99"
    status = platform_service_pb2.GetStatusResponse()
    assert convert.record(records.Status, status).source == "UNSPECIFIED"


def test_a_gap_is_flat():
    instrument = market_pb2.Instrument(exchange="BINANCE", symbol="BTCUSDT")
    gap = market_pb2.Gap(instrument=instrument, first_trade_id=3, last_trade_id=4)
    found = convert.record(records.Provenance, market_pb2.Provenance(gaps=[gap], gaps_total=1))
    assert found.gaps == (records.Gap("BINANCE", "BTCUSDT", 3, 4),)


def test_a_record_that_asks_for_more_than_the_message_has_is_a_defect():
    with pytest.raises(Internal, match="has no field"):
        convert.record(records.Estimate, market_pb2.Gap())


@given(st.integers(-(10**15), 10**17))
def test_times_are_exact_both_ways(micros):
    assert convert.micros(convert.timestamp(micros)) == micros


def test_a_gaps_state_by_name():
    assert convert.gap_state(None) == feed_service_pb2.GAP_STATE_UNSPECIFIED
    assert convert.gap_state("open") == feed_service_pb2.GAP_STATE_OPEN
    assert convert.gap_state("void") == feed_service_pb2.GAP_STATE_VOID
    for name in ("lost", "unspecified", ""):
        with pytest.raises(Invalid):
            convert.gap_state(name)
