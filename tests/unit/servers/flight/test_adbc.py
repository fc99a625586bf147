"""Headers that a program sets on an ADBC connection, as its driver sends them with each call."""

import adbc_driver_flightsql.dbapi as adbc
import pyarrow.flight as fl  # noqa: TID251 the wire is what is tested
import pytest
from adbc_driver_manager import Error

from tests.support.eventually import eventually
from tests.support.spans import parent_of, recorded, trace_of
from tests.unit.servers.flight.test_flight_server import SYMBOL, asked

HEADER = "adbc.flight.sql.rpc.call_header."
TRACE, SPAN = "1" * 32, "2" * 16


def connected(wire, **headers):
    """A connection that sends headers."""
    named = {f"{HEADER}{name.replace('_', '-')}": value for name, value in headers.items()}
    return adbc.connect(wire.server.locations[0], db_kwargs=named, autocommit=True)


def partition_of(wire):
    """What ADBC calls a partition of an answer: what GetFlightInfo returned, with its ticket."""
    command = fl.FlightDescriptor.for_command(asked().SerializeToString())
    return wire.client.get_flight_info(command).serialize()


def test_rows_of_a_ticket_are_part_of_the_trace_and_class_that_the_headers_name(wire, stack):
    stack.send(SYMBOL, range(5))
    entered = []
    wire.admission.enter = lambda caller: entered.append(caller.request_class)
    wire.admission.leave = lambda *_: None
    partition = partition_of(wire)
    headers = {"k2_class": "batch", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    with (
        recorded() as spans,
        connected(wire, **headers) as connection,
        connection.cursor() as cursor,
    ):
        cursor.adbc_read_partition(partition)
        assert cursor.fetch_arrow_table().num_rows == 5
        eventually(lambda: [s for s in spans() if s.name.endswith("DoGet")])
    (get,) = [span for span in spans() if span.name.endswith("DoGet")]
    assert (trace_of(get), parent_of(get)) == (TRACE, SPAN)
    assert entered == ["batch"]


def test_a_class_that_is_none_is_refused(wire, stack):
    stack.send(SYMBOL, range(5))
    partition = partition_of(wire)
    with (
        connected(wire, k2_class="urgent") as connection,
        connection.cursor() as cursor,
        pytest.raises(Error, match="'urgent' is none of"),
    ):
        cursor.adbc_read_partition(partition)
