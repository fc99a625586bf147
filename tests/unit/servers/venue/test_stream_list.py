import json

import pytest

from k2.errors import Invalid
from servers.venue.frames import Form
from servers.venue.stream_list import StreamList, is_stream_path, parse_path


def asked(subscription, method, params=None, request_id=1):
    request = {"method": method, "id": request_id} | ({} if params is None else {"params": params})
    return json.loads(subscription.answer(json.dumps(request)))


@pytest.mark.parametrize(
    ("path", "streams", "form"),
    [
        ("/stream?streams=btcusdt@trade/ethusdt@trade", 2, Form(True, False)),
        ("/stream?streams=btcusdt@trade&timeUnit=MICROSECOND", 1, Form(True, True)),
        ("/stream?timeUnit=microsecond&streams=btcusdt%40trade", 1, Form(True, True)),
        ("/stream", 0, Form(True, False)),
        ("/stream?streams=", 0, Form(True, False)),
        ("/ws", 0, Form(False, False)),
        ("/ws/btcusdt@trade", 1, Form(False, False)),
        ("/ws/btcusdt@trade/ethusdt@trade?timeUnit=MILLISECOND", 2, Form(False, False)),
    ],
)
def test_a_path_says_what_is_wanted_and_how(path, streams, form):
    assert is_stream_path(path)
    subscription = parse_path(path)
    assert len(subscription.streams) == streams
    assert subscription.form == form


@pytest.mark.parametrize("path", ["/", "/api/v3/ping", "/streams", "/wsx", "", "//["])
def test_other_paths_are_no_streams(path):
    assert not is_stream_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/stream?streams=" + "/".join(f"a{n}@trade" for n in range(1025)),
        "/ws/a@trade?timeUnit=NANOSECOND",
        "/ws/" + "x" * 65,
    ],
)
def test_a_path_that_asks_too_much_is_refused(path):
    with pytest.raises(Invalid):
        parse_path(path)


def test_only_lower_case_trade_streams_are_heard():
    names = ["btcusdt@trade", "ETHUSDT@trade", "bnbusdt@depth", "nosuch@trade"]
    assert StreamList(names, Form(True, False)).symbols == {"BTCUSDT", "NOSUCH"}


def test_streams_are_taken_given_back_and_listed():
    subscription = parse_path("/ws/a@trade")
    assert asked(subscription, "SUBSCRIBE", ["b@trade", "a@trade"]) == {"result": None, "id": 1}
    listed = asked(subscription, "LIST_SUBSCRIPTIONS", request_id="x")
    assert listed == {"result": ["a@trade", "b@trade"], "id": "x"}
    assert asked(subscription, "UNSUBSCRIBE", ["a@trade", "none@trade"])["result"] is None
    assert subscription.symbols == {"B"}


def test_the_form_is_a_property():
    subscription = parse_path("/ws/a@trade?timeUnit=MICROSECOND")
    assert asked(subscription, "GET_PROPERTY", ["combined"])["result"] is False
    assert asked(subscription, "SET_PROPERTY", ["combined", True])["result"] is None
    assert subscription.form == Form(True, True)
    assert asked(subscription, "SET_PROPERTY", ["combined", 1])["error"]["code"] == 2


@pytest.mark.parametrize(
    ("message", "code", "request_id"),
    [
        ("nonsense", 3, None),
        ("[]", 2, None),
        ("{}", 2, None),
        ('{"id":7}', 2, 7),
        ('{"method":"FLY","id":3}', 2, 3),
        ('{"method":"SUBSCRIBE","params":[7],"id":3}', 2, 3),
        ('{"method":"SUBSCRIBE","params":"a@trade","id":3}', 2, 3),
        ('{"method":"SUBSCRIBE","params":[""],"id":"q"}', 2, "q"),
        (b"\xff", 3, None),
    ],
)
def test_a_wrong_message_is_answered_with_its_id(message, code, request_id):
    reply = json.loads(StreamList([], Form(True, False)).answer(message))
    assert reply["error"]["code"] == code
    assert reply["id"] == request_id


def test_a_connection_has_only_so_many_streams():
    subscription = StreamList([], Form(True, False))
    assert asked(subscription, "SUBSCRIBE", [f"a{n}@trade" for n in range(1024)])["result"] is None
    assert "error" in asked(subscription, "SUBSCRIBE", ["one@trade"])
    assert len(subscription.streams) == 1024
