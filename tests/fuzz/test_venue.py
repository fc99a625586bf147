"""What a client of the practice venue sends is foreign: it is answered, whatever it is."""

import asyncio
import contextlib
import json

from hypothesis import example, given
from hypothesis import strategies as st

from k2.clock import ManualClock
from k2.errors import Invalid
from servers.venue.archive import SyntheticArchive
from servers.venue.faults import Faults, parse_faults
from servers.venue.frames import Form
from servers.venue.hub import Hub
from servers.venue.market.synthetic_market import Market, opened
from servers.venue.rest import Rest
from servers.venue.stream_list import StreamList, is_stream_path, parse_path

# JSON has no infinity: what Python writes for it makes a message that is no request.
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
methods = st.sampled_from(["SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "x"])
CLOCK = ManualClock(1_795_000_000_000_000)


@given(st.text(max_size=100) | st.binary(max_size=100))
@example("[" * 5000)
@example(b'{"method":"SUBSCRIBE","params":["\xff"],"id":1}')
def test_any_message_gets_a_reply(message):
    json.loads(StreamList([], Form(True, False)).answer(message))


@given(st.fixed_dictionaries({}, optional={"method": methods, "params": values, "id": values}))
def test_any_request_gets_a_reply_with_its_id(request):
    subscription = StreamList(["a@trade"], Form(True, False))
    reply = json.loads(subscription.answer(json.dumps(request)))
    assert "result" in reply or "error" in reply
    given_id = request.get("id")
    if isinstance(given_id, str):
        assert reply["id"] == given_id
    assert all(isinstance(symbol, str) for symbol in subscription.symbols)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=120))
@example("//[")
@example("/stream?streams=%ff%00@trade&timeUnit=MICROSECOND")
def test_any_path_is_a_stream_or_is_answered(path):
    if is_stream_path("/" + path):
        with contextlib.suppress(Invalid):
            parse_path("/" + path)
    hub = Hub()
    rest = Rest(
        archive=SyntheticArchive(Market(7, opened(("BTCUSDT",), 1.0)), CLOCK),
        hub=hub,
        clock=CLOCK,
        status=dict,
        shut_down=lambda _: None,
    )
    answer = asyncio.run(rest.answer("/" + path, {}, "me"))
    json.loads(answer.body)


@given(st.dictionaries(st.text(max_size=10) | st.sampled_from(["drop", "seed"]), st.text()))
@example({"drop": "nan"})
@example({"drop": "inf"})
@example({"seed": "-1"})
@example({"delay_ms": "٣"})
def test_any_faults_are_taken_or_refused(query):
    with contextlib.suppress(Invalid):
        assert 0 <= parse_faults(Faults(), query).drop <= 1e9
