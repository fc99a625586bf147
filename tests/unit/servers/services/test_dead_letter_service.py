"""DeadLetterService over a real socket, on a lake in a folder and a tape in memory."""

import grpc
import pytest

from k2 import limits
from k2.market.events import Fault
from k2.v1 import dead_letter_service_pb2 as pb
from k2.v1 import dead_letter_service_pb2_grpc as rpc
from k2.v1 import market_pb2
from servers.services import dead_letter_service, wire_values
from servers.services.dead_letter_service import DeadLetterService
from tests.fakes.wire import reason_of, served
from tests.support.letter_desk import Desk
from tests.support.trades import NOW_US
from tests.support.writer_world import message


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def stub(desk):
    service = DeadLetterService(letters=desk.reader, replayer=desk.replayer)
    with served((dead_letter_service.NAME, service.register)) as (_, channel):
        yield rpc.DeadLetterServiceStub(channel)


def test_letters_page_from_the_newest_back(desk, stub):
    for offset in range(3):
        desk.dead(b"x", Fault.BAD_MAGIC, offset)
    desk.commit(desk.letter_writer())
    desk.dead(None, Fault.NULL_VALUE, 3)
    found, token = [], ""
    while True:
        answer = stub.ListDeadLetters(pb.ListDeadLettersRequest(page_size=2, page_token=token))
        found += answer.letters
        token = answer.next_page_token
        if not token:
            break
        desk.dead(b"later", Fault.BAD_MAGIC, 10 + len(found))
    assert [(each.origin_offset, each.stored) for each in found] == [
        (3, False), (2, True), (1, True), (0, True),
    ]  # fmt: skip
    first = found[0]
    assert (first.name, first.fault) == (f"trades/0/{desk.home}/3", "NULL_VALUE")
    assert wire_values.time_us_from(first.judged_time, "") == NOW_US
    assert not first.HasField("replay_time")


def test_a_letter_whose_record_was_taken_after_all_says_so(desk, stub):
    names = [desk.dead(message(1), offset=0), desk.dead(message(2), offset=1)]
    desk.taken(1)
    listed = stub.ListDeadLetters(pb.ListDeadLettersRequest()).letters
    assert {each.name: each.overruled for each in listed} == {names[0]: True, names[1]: False}
    shown = stub.GetDeadLetter(pb.GetDeadLetterRequest(name=names[0]))
    assert shown.letter.overruled
    (outcome,) = stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(names=names[:1])).outcomes
    assert outcome.state == pb.REPLAY_STATE_OVERRULED


def test_letters_are_filtered(desk, stub):
    desk.dead(b"x", Fault.BAD_MAGIC, 1)
    desk.dead(b"x", Fault.TRAILING, 2)

    def count(**wanted):
        return len(stub.ListDeadLetters(pb.ListDeadLettersRequest(**wanted)).letters)

    later = market_pb2.TimeRange(start_time=wire_values.time_to(NOW_US + 1))
    assert (count(), count(fault="TRAILING"), count(origin="other"), count(range=later)) == (
        2, 1, 0, 0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"fault": "NO_SUCH"}, "BAD_REQUEST"),
        ({"page_token": "x"}, "BAD_PAGE_TOKEN"),
        ({"page_size": -1}, "BAD_REQUEST"),
        (
            {
                "range": market_pb2.TimeRange(
                    start_time=wire_values.time_to(NOW_US), end_time=wire_values.time_to(NOW_US - 1)
                )
            },
            "RANGE_REVERSED",
        ),
    ],
)
def test_a_list_that_has_no_meaning_is_refused(stub, wanted, reason):
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListDeadLetters(pb.ListDeadLettersRequest(**wanted))
    assert reason_of(caught.value) == ("INVALID_ARGUMENT", reason)


def test_a_letter_is_shown_with_what_it_would_be_today(desk, stub):
    name = desk.dead(message(7, price=150_000_000, vendor={"m": "x"}))
    shown = stub.GetDeadLetter(pb.GetDeadLetterRequest(name=name))
    assert (shown.value, shown.value_bytes) == (message(7, price=150_000_000, vendor={"m": "x"}),
                                                len(shown.value))  # fmt: skip
    assert shown.fault_now == ""
    trade = shown.trade
    assert (trade.symbol, trade.trade_id, trade.price, trade.quantity) == (
        "BTCUSDT", 7, "1.50000000", "0.00000005",
    )  # fmt: skip
    assert (trade.side, dict(trade.vendor_data)) == ("BUY", {"m": "x"})


def test_a_letter_without_bytes_and_a_large_one(desk, stub):
    empty = stub.GetDeadLetter(pb.GetDeadLetterRequest(name=desk.dead(None, offset=1)))
    assert not empty.HasField("value")
    assert not empty.HasField("trade")
    assert empty.fault_now == "NULL_VALUE"
    size = limits.LETTER_SHOWN_BYTES_MAX + 5
    large = stub.GetDeadLetter(pb.GetDeadLetterRequest(name=desk.dead(bytes(size), offset=2)))
    assert (len(large.value), large.value_bytes) == (limits.LETTER_SHOWN_BYTES_MAX, size)
    assert large.fault_now == "OVERSIZE"


def test_an_unknown_letter_is_not_found(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetDeadLetter(pb.GetDeadLetterRequest(name="trades/0/0/5"))
    assert reason_of(caught.value) == ("NOT_FOUND", "UNKNOWN_DEAD_LETTER")


def test_each_letter_has_its_own_outcome(desk, stub):
    good = desk.dead(message(1), offset=1)
    bad = desk.dead(b"x", offset=2)
    outcomes = stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(names=[bad, good])).outcomes
    assert [(each.name, each.state, each.fault) for each in outcomes] == [
        (bad, pb.REPLAY_STATE_REFUSED, "BAD_MAGIC"),
        (good, pb.REPLAY_STATE_SENT, ""),
    ]
    assert (outcomes[1].partition, outcomes[1].offset) == (desk.home, 0)
    assert not outcomes[0].HasField("partition")
    again = stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(names=[good])).outcomes
    assert again[0].state == pb.REPLAY_STATE_REPLAYED_BEFORE
    (listed,) = [
        each for each in stub.ListDeadLetters(pb.ListDeadLettersRequest()).letters
        if each.name == good
    ]  # fmt: skip
    assert listed.HasField("replay_time")


def test_a_trade_that_was_repaired_by_hand_is_sent(desk, stub):
    name = desk.dead(message(1, price=0), Fault.OUT_OF_RANGE)
    trade = stub.GetDeadLetter(pb.GetDeadLetterRequest(name=name)).trade
    trade.price = "0.00000001"
    trade.quantity = "92000000000000"
    request = pb.ReplayDeadLettersRequest(names=[name], trade=trade)
    assert stub.ReplayDeadLetters(request).outcomes[0].state == pb.REPLAY_STATE_SENT
    ((_, key, value, _),) = desk.sent
    sent = desk.replayer.read(value).trade
    assert (key, sent.price, sent.quantity) == (b"BINANCE:BTCUSDT", 1, 92 * 10**20)


@pytest.mark.parametrize(
    "change",
    [
        {"price": "x"},
        {"price": "NaN"},
        {"price": "0.000000001"},
        {"quantity": "1e31"},
        {"quantity": "1e999999"},
        {"side": "HOLD"},
    ],
)
def test_a_repair_that_is_no_trade_is_refused(desk, stub, change):
    name = desk.dead(message(1))
    trade = stub.GetDeadLetter(pb.GetDeadLetterRequest(name=name)).trade
    for column, value in change.items():
        setattr(trade, column, value)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(names=[name], trade=trade))
    assert reason_of(caught.value) == ("INVALID_ARGUMENT", "BAD_REQUEST")
    assert desk.sent == []


def test_how_many_may_be_replayed_is_bounded(desk, stub):
    for names in ([], [f"t/0/0/{each}" for each in range(limits.LETTERS_REPLAYED_MAX + 1)]):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(names=names))
        assert reason_of(caught.value) == ("INVALID_ARGUMENT", "LIMIT_OUT_OF_BOUNDS")
    with pytest.raises(grpc.RpcError):
        stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(names=["a", "b"], value=b"x"))
