import pytest
from opentelemetry.trace import SpanKind, StatusCode

from k2 import limits, tracing
from k2.errors import Overloaded, Reason
from k2.metrics import SWITCH
from tests.support.spans import links_of, parent_of, recorded, span_id_of, trace_of

PARENT = f"00-{1:032x}-{2:016x}-01"


def traceparents(count):
    return [f"00-{number:032x}-{number:016x}-01" for number in range(1, count + 1)]


def by_name(spans):
    return {span.name: span for span in spans}


def test_off_there_is_one_span_that_does_nothing():
    assert not tracing.enabled()
    span = tracing.begin(tracing.FRAME, {tracing.FRAMES: 3}, parent=PARENT)
    assert span is tracing.OFF
    assert tracing.joined(tracing.FOLD, [PARENT]) is tracing.OFF
    with span as same:
        same.set({tracing.ROWS: 1})
        same.link([PARENT])
        tracing.enter(same)()
        assert same.traceparents == ()
        assert (tracing.traceparent(), tracing.ids(), tracing.recording()) == ("", {}, False)
        headers = {"source": b"live"}
        assert tracing.stamped(headers) is headers
    span.end()
    tracing.scale(0.0)


def test_spans_nest_and_say_where_they_are():
    with recorded() as spans:
        frame = tracing.begin(tracing.FRAME, {tracing.FRAMES: 3}, kind=SpanKind.SERVER)
        with frame, tracing.begin(tracing.PUBLISH) as publish:
            (traceparent,) = publish.traceparents
            assert tracing.traceparent() == traceparent
            stamp = {"traceparent": traceparent.encode()}
            assert tracing.stamped({"a": b"b"}) == {"a": b"b", **stamp}
            assert traceparent == "00-{trace_id}-{span_id}-01".format(**tracing.ids())
            frame.set({tracing.ROWS: 2})
    assert not tracing.enabled()
    found = by_name(spans())
    assert parent_of(found["publish"]) == span_id_of(found["frame"])
    assert dict(found["frame"].attributes) == {"k2.frames": 3, "k2.rows": 2}
    assert found["frame"].kind is SpanKind.SERVER


def test_a_span_ends_with_what_failed():
    with recorded() as spans:
        with pytest.raises(Overloaded), tracing.begin(tracing.COMMIT):
            raise Overloaded(Reason.DISK_FULL, "full")
        with pytest.raises(KeyError), tracing.begin(tracing.COMMIT):
            raise KeyError("x")
    full, other = spans()
    assert full.attributes["error.type"] == "DISK_FULL"
    assert full.status.status_code is StatusCode.ERROR
    assert other.attributes["error.type"] == "KeyError"


@pytest.mark.parametrize(
    ("parent", "trace"),
    [
        (PARENT, f"{1:032x}"),
        (f"{PARENT}-more", f"{1:032x}"),  # of a later version
        ("", None),
        ("00-x", None),
        (f"00-{0:032x}-{2:016x}-01", None),
        (f"ff-{1:032x}-{2:016x}-01", None),
        (f"00-{1:032x}-{2:016x}-01\n", None),
    ],
)
def test_a_parent_elsewhere(parent, trace):
    with recorded() as spans:
        tracing.begin(tracing.PLAN, parent=parent, links=[PARENT, "none"]).end()
    (span,) = spans()
    assert (trace_of(span) if span.parent else None) == trace
    assert links_of(span) == [f"{2:016x}"]


def test_what_is_not_sampled_stays_so():
    with recorded(0.0) as spans:
        with tracing.begin(tracing.FRAME) as frame:
            assert (frame.recorded, frame.traceparents) == (False, ())
            assert tracing.traceparent().endswith("-00")
            assert (tracing.ids(), tracing.stamped({})) == ({}, {})
            assert tracing.begin(tracing.PUBLISH) is tracing.OFF
        with tracing.begin(tracing.PLAN, parent=PARENT[:-1] + "0"):
            assert tracing.begin(tracing.LAKE) is tracing.OFF
        assert tracing.joined(tracing.FOLD, [PARENT[:-1] + "0", "none"]) is tracing.OFF
        tracing.begin(tracing.TAIL, parent=PARENT).end()  # as its parent
    assert [span.name for span in spans()] == ["tail"]


def test_the_share_is_scaled_while_it_runs():
    with recorded(0.5) as spans:
        for factor, expected in ((0.0, 0), (2.0, 100), (0.0, 100)):
            tracing.scale(factor)
            for _ in range(100):
                tracing.begin(tracing.FRAME).end()
            assert len(spans()) == expected
        tracing.scale(1.0)
        for _ in range(400):
            tracing.begin(tracing.FRAME).end()
    assert 200 < len(spans()) < 400


def test_a_joined_span_is_in_the_trace_of_each_parent():
    with recorded() as spans:
        again = f"00-{1:032x}-{9:016x}-01"  # another span of the first trace
        with tracing.joined(tracing.FOLD, [*traceparents(2), again, again], {"k2.rows": 4}) as fold:
            assert len(fold.traceparents) == 2
            fold.link([PARENT])
            with tracing.begin(tracing.LAKE):
                pass
    lake, first, second = spans()
    assert [trace_of(first), trace_of(second)] == [f"{1:032x}", f"{2:032x}"]
    assert [parent_of(first), parent_of(second)] == [f"{1:016x}", f"{2:016x}"]
    assert links_of(first) == [f"{9:016x}", f"{2:016x}"]
    assert links_of(second) == [span_id_of(first)]
    assert parent_of(lake) == span_id_of(first)
    assert first.attributes["k2.rows"] == second.attributes["k2.rows"] == 4


def test_too_many_traces_are_links_and_too_many_links_are_dropped():
    most = limits.TRACES_JOINED_MAX + limits.TRACE_LINKS_MAX
    with recorded() as spans:
        tracing.joined(tracing.COMMIT, traceparents(most + 5)).end()
    assert len(spans()) == limits.TRACES_JOINED_MAX
    assert len(spans()[0].links) == limits.TRACE_LINKS_MAX


def test_a_span_is_current_until_it_is_left_and_ends_later():
    with recorded() as spans:
        call = tracing.begin("call")
        leave = tracing.enter(call)
        tracing.begin(tracing.TAIL).end()
        leave()
        leave()
        assert not tracing.recording()
        assert [span.name for span in spans()] == ["tail"]
        call.end()
    tail, ended = spans()
    assert parent_of(tail) == span_id_of(ended)


def test_an_observation_within_a_span_is_its_example():
    assert SWITCH.exemplar() is None
    with recorded():
        assert SWITCH.exemplar() is None
        with tracing.begin(tracing.COMMIT):
            assert SWITCH.exemplar() == tracing.ids()
    assert SWITCH.exemplar() is None


def test_what_was_traced_elsewhere_can_be_an_example():
    example = tracing.exemplar_of(",".join(traceparents(2)))
    assert example == {"trace_id": f"{1:032x}", "span_id": f"{1:016x}"}
    assert tracing.exemplar_of("") is None
