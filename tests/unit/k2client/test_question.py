import pytest

from k2.v1 import query_service_pb2
from k2client.errors import Invalid
from k2client.question import TradesQuestion, is_token, snapshot_id_of


def trades(**asked):
    return TradesQuestion(**{"symbols": "BTCUSDT"} | asked).request().trades


def test_the_shortest_question_sets_nothing_else():
    assert trades() == query_service_pb2.TradesRequest(
        symbols=["BTCUSDT"], order=query_service_pb2.ORDER_ASC
    )


def test_names_are_one_or_several():
    assert list(trades(symbols=("A", "B")).symbols) == ["A", "B"]
    assert list(trades(exchanges="BINANCE").exchanges) == ["BINANCE"]
    assert list(trades(columns=iter(["price"])).columns) == ["price"]


def test_half_a_range_leaves_the_other_half_unset():
    asked = trades(start=7)
    assert asked.range.start_time.nanos == 7000
    assert not asked.range.HasField("end_time")
    assert trades(end="2021-01-08").range.end_time.seconds == 1_610_064_000
    assert not trades().HasField("range")


def test_last_is_exact():
    asked = trades(last="1.000001s")
    assert (asked.last.seconds, asked.last.nanos) == (1, 1000)


@pytest.mark.parametrize(("as_of", "snapshot_id"), [(7, 7), ("7", 7), (2**63 - 1, 2**63 - 1)])
def test_digits_are_a_snapshots_id(as_of, snapshot_id):
    assert trades(as_of=as_of).as_of_snapshot_id == snapshot_id


def test_other_texts_are_times():
    assert trades(as_of="2021-01-08T00:00:00Z").as_of_time.seconds == 1_610_064_000
    assert snapshot_id_of("2021-01-08") is None


@pytest.mark.parametrize("text", ["k2t1.AAAA", " k2t1.AAAA\n", "k2t22.", "k2t1.not one"])
def test_what_looks_like_a_token_travels_as_one(text):
    assert trades(as_of=text).as_of_token == text.strip()
    assert trades(as_of=text).WhichOneof("as_of") == "as_of_token"


def test_times_and_ids_are_no_tokens():
    assert not any(map(is_token, (7, "7", "2021-01-08", "k2t1", "k2t.", "")))


def test_what_the_server_judges_is_left_to_it():
    asked = trades(symbols=[], limit=-5, start=2, end=1, last="1s")
    assert (list(asked.symbols), asked.limit) == ([], -5)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"symbols": [""]}, "BAD_REQUEST"),
        ({"symbols": [7]}, "BAD_REQUEST"),
        ({"order": "sideways"}, "BAD_REQUEST"),
        ({"consistency": "eventual"}, "BAD_REQUEST"),
        ({"limit": 2**63}, "LIMIT_OUT_OF_BOUNDS"),
        ({"limit": 1.5}, "LIMIT_OUT_OF_BOUNDS"),
        ({"limit": True}, "LIMIT_OUT_OF_BOUNDS"),
        ({"as_of": 2**63}, "UNKNOWN_SNAPSHOT"),
        ({"as_of": -1}, "UNKNOWN_SNAPSHOT"),
        ({"start": 2**62}, "BAD_REQUEST"),
        ({"last": "soon"}, "BAD_REQUEST"),
    ],
)
def test_what_has_no_form_on_the_wire_is_refused_here(asked, reason):
    with pytest.raises(Invalid) as caught:
        trades(**asked)
    assert caught.value.reason == reason
