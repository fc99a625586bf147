import numpy as np
import pytest
from websockets.protocol import State

from servers.venue import hub as hub_module
from servers.venue.faults import Faults
from servers.venue.frames import framed
from servers.venue.hub import Hub
from servers.venue.stream_list import parse_path
from tests.fakes.venue import FakeConnection

TEXTS = ["a", "bb", "ccc"]
ENDS = np.cumsum([len(framed(text)) for text in TEXTS])
DATA = memoryview(b"".join(framed(text) for text in TEXTS))


@pytest.fixture
def hub():
    return Hub()


def joined(hub, path="/ws/btcusdt@trade"):
    return hub.add(FakeConnection(), parse_path(path))


def test_frames_reach_the_transport_as_they_are(hub):
    listener = joined(hub)
    listener.send(DATA, ENDS, 0)
    assert listener.connection.texts == TEXTS
    assert (listener.sent, listener.written) == (3, len(DATA))


def test_a_part_of_a_batch_keeps_its_frames(hub):
    hub.change_faults(Faults(duplicate=1))
    listener = joined(hub)
    listener.send(DATA[int(ENDS[0]) :], ENDS[1:] - ENDS[0], 0)
    assert listener.connection.texts == ["bb", "bb", "ccc"]
    assert hub.fault_counts()["duplicate"] == 1


def test_nothing_is_written_after_a_close(hub):
    listener = joined(hub)
    listener.connection.state = State.CLOSING
    listener.send(DATA, ENDS, 0)
    assert listener.connection.texts == []
    assert list(hub) == []


def test_a_connection_that_takes_nothing_is_cut_at_the_bound(hub, monkeypatch):
    monkeypatch.setattr(hub_module.limits, "VENUE_BUFFER_BYTES_MAX", 3 * len(DATA))
    slow, quick = joined(hub), joined(hub)
    slow.connection.transport.taken = 0
    for _ in range(4):
        for listener in hub:
            listener.send(DATA, ENDS, 0)
    assert slow.connection.transport.aborted
    assert slow.connection.texts == TEXTS * 4, "all in order until the cut"
    assert not quick.connection.transport.aborted
    assert list(hub) == [quick]


def test_a_fault_cuts_one_connection(hub):
    listener, other = joined(hub), joined(hub)
    listener.line.change(Faults(disconnect=1))
    for one in (listener, other):
        one.send(DATA, ENDS, 0)
    assert listener.connection.transport.aborted
    assert not other.connection.transport.aborted


def test_the_audience_listens_to_something(hub):
    joined(hub, "/stream")
    listener = joined(hub)
    assert hub.audience() == [listener]


def test_totals_outlive_connections(hub):
    hub.change_faults(Faults(drop=1))
    listener = joined(hub)
    listener.send(DATA, ENDS, 0)
    hub.remove(listener)
    joined(hub)
    assert hub.counters() == {"connections": 1, "connections_total": 2, "sent": 2}
    assert hub.fault_counts()["drop"] == 1
    assert len(hub) == 1


def test_a_closed_socket_has_acknowledged_nothing(hub):
    assert joined(hub).acknowledged == 0
