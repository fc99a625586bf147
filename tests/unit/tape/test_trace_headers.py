from confluent_kafka import Message

from k2 import limits
from k2.tape.trace_headers import traces_of

A, B = (f"00-{number:032x}-{number:016x}-01" for number in (1, 2))


def message(partition, offset, headers=None):
    return Message(topic="t", partition=partition, offset=offset, value=b"v", headers=headers)


def traced(partition, offset, traceparent):
    stamp = [("source", b"live"), ("traceparent", traceparent.encode())]
    return message(partition, offset, stamp)


def test_each_trace_is_found_once_a_partition():
    found = traces_of(
        [message(0, 4), traced(0, 5, A), traced(0, 6, A), traced(1, 9, A), traced(0, 7, B)]
    )
    assert found == {0: ((5, A), (7, B)), 1: ((9, A),)}


def test_a_read_of_no_record_has_no_trace():
    assert traces_of([]) == {}


def test_headers_of_others_are_no_trace():
    assert traces_of([message(0, 4, [("source", b"live"), ("traceparent", None)])]) == {}
    assert traces_of([message(0, 4, [("traceparent", b"\xff")])]) == {0: ((4, "\ufffd"),)}


def test_fewer_are_looked_at_where_a_trace_is_only_an_example():
    read = [message(0, 1), traced(0, 2, A), message(0, 3), traced(0, 4, B)]
    assert traces_of(read, 2) == {}
    assert traces_of(read[1:], 2) == {0: ((2, A), (4, B))}


def test_of_a_large_read_some_records_are_looked_at():
    size = 3 * limits.TRACE_LOOKED_AT_MAX
    assert traces_of([traced(0, 1, A), *(message(0, 2 + n) for n in range(size))]) == {0: ((1, A),)}
    assert traces_of([message(0, 1), traced(0, 2, A), *(message(0, 3) for _ in range(size))]) == {}
