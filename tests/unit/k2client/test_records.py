import dataclasses

import pytest

from k2.v1 import (
    degradation_service_pb2,
    feed_service_pb2,
    market_pb2,
    platform_service_pb2,
    query_service_pb2,
    snapshot_service_pb2,
)
from k2client import convert, records


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (records.Provenance, market_pb2.Provenance),
        (records.Estimate, query_service_pb2.QueryEstimate),
        (records.Snapshot, snapshot_service_pb2.Snapshot),
        (records.Degradation, degradation_service_pb2.Degradation),
        (records.ProcessDegradation, degradation_service_pb2.ProcessDegradation),
        (records.Feed, feed_service_pb2.Feed),
        (records.SymbolFeed, feed_service_pb2.SymbolFeed),
        (records.Component, platform_service_pb2.Component),
    ],
)
def test_a_record_has_every_field_of_its_message(kind, message):
    names = {field.name for field in dataclasses.fields(kind)}
    assert names == set(message.DESCRIPTOR.fields_by_name) - {"last_row"}  # of batches alone
    assert convert.record(kind, message())
