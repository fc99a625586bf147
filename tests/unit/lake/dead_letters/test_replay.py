"""What is good by now goes back on the tape; what would be dead again does not."""

from dataclasses import replace

import pytest

from k2 import limits
from k2.errors import NotFound, Reason, Unavailable
from k2.lake.dead_letters.letter_list import LetterFilter
from k2.lake.dead_letters.replay import LETTER_HEADER
from k2.market.events import DAY_US, Fault
from k2.market.instrument import Instrument
from k2.market.offsets import TimeRange
from k2.tape.avro.trade_codec import encode_trade
from tests.support.letter_desk import Desk
from tests.support.messages import trade
from tests.support.ops_world import letter
from tests.support.writer_world import SCHEMA_ID, message


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.close()


def replay(desk, name, repaired=None, *, again=False):
    return desk.replayer.replay(name, repaired, again=again)


def test_a_record_whose_schema_is_known_by_now_goes_back_as_it_is(desk):
    name = desk.dead(message(1))
    done = replay(desk, name)
    assert (done.state, done.partition, done.offset) == ("SENT", desk.home, 0)
    headers = {"source": b"simulated", LETTER_HEADER: name.encode()}
    assert desk.sent == [(desk.home, b"BINANCE:BTCUSDT", message(1), headers)]


def test_a_record_whose_symbol_is_placed_by_now_goes_to_its_partition(desk):
    name = desk.dead(message(1, "SOLUSDT"), Fault.WRONG_PARTITION)
    refused = replay(desk, name)
    assert (refused.state, refused.fault) == ("REFUSED", Fault.WRONG_PARTITION)
    assert "no feed has placed BINANCE:SOLUSDT" in refused.message
    assert desk.sent == []
    home = desk.placement.place(Instrument("BINANCE", "SOLUSDT"))
    assert replay(desk, name).partition == home != desk.home
    assert [partition for partition, *_ in desk.sent] == [home]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (message(1)[:-1], Fault.TRUNCATED),
        (message(1) + b"\x00", Fault.TRAILING),
        (b"\x01" + message(1)[1:], Fault.BAD_MAGIC),
        (message(1, price=0), Fault.OUT_OF_RANGE),
        (None, Fault.NULL_VALUE),
        (b"\x00\x00\x00\x00\x63" + message(1)[5:], Fault.UNKNOWN_SCHEMA),
    ],
)
def test_what_would_be_dead_again_is_refused_with_its_fault(desk, value, fault):
    name = desk.dead(value, fault)
    refused = replay(desk, name)
    assert (refused.state, refused.fault) == ("REFUSED", fault)
    assert desk.sent == []
    assert replay(desk, name, message(1)).state == "SENT"  # repaired


def test_a_repair_that_is_bad_itself_is_refused(desk):
    name = desk.dead(b"x", Fault.BAD_MAGIC)
    assert replay(desk, name, b"y").fault is Fault.BAD_MAGIC


def test_a_second_replay_says_so(desk):
    name = desk.dead(message(1))
    replay(desk, name)
    again = replay(desk, name)
    assert again.state == "REPLAYED_BEFORE"
    assert f"partition {desk.home}, offset 0" in again.message
    assert len(desk.sent) == 1
    assert replay(desk, name, again=True).state == "SENT"
    assert len(desk.sent) == 2
    assert desk.replayer.replayed() == {name: desk.clock.now_us()}


def test_what_is_a_row_of_the_lake_is_not_sent_again(desk):
    name = desk.dead(message(1), offset=0)
    desk.taken(1)
    for repaired, again in ((None, False), (None, True), (message(2), False)):
        done = replay(desk, name, repaired, again=again)
        assert (done.state, done.message) == ("OVERRULED", "its record is a row of the lake")
    assert desk.sent == []
    beside = desk.dead(message(2), offset=1)
    assert replay(desk, beside).state == "SENT"


def test_a_letter_that_is_nowhere_is_not_found(desk):
    with pytest.raises(NotFound):
        replay(desk, "trades/0/0/99")


def test_what_is_not_acknowledged_is_not_called_sent(desk, monkeypatch):
    monkeypatch.setattr(limits, "BOARD_WAIT_S", 0.01)
    name = desk.dead(message(1))
    producer = desk.replayer._parts.sender
    monkeypatch.setattr(producer, "flush", lambda timeout_s: 1)
    with pytest.raises(Unavailable):
        replay(desk, name)
    assert desk.replayer.replayed() == {}


def test_a_trade_is_read_and_written_back(desk):
    made = trade(vendor_data={"m": "true"}, quantity=2**70)
    value = desk.replayer.encode(made)
    assert value[1:5] == SCHEMA_ID.to_bytes(4, "big")
    reading = desk.replayer.read(value)
    assert (reading.fault, reading.trade, reading.home) == (Fault.NONE, made, desk.home)
    assert desk.replayer.read(b"x").trade is None


def test_a_letter_that_retention_removed_is_no_longer_there_and_no_fault(desk):
    name = desk.dead(message(1))
    desk.post(letter(9))
    desk.post(replace(letter(10), at_us=desk.clock.now_us()))
    desk.commit(desk.letter_writer())
    desk.remove_old_letters()
    assert [one.letter.offset for one in desk.reader.newest(LetterFilter(TimeRange()), None)] == [
        10
    ]
    with pytest.raises(NotFound) as refused:
        replay(desk, name)
    assert refused.value.reason is Reason.UNKNOWN_DEAD_LETTER
    assert desk.sent == []


def test_a_time_that_lay_ahead_is_good_when_it_has_come(desk):
    later_us = desk.clock.now_us() + 2 * DAY_US
    name = desk.dead(message(1, at=later_us), Fault.OUT_OF_RANGE)
    assert replay(desk, name).fault is Fault.OUT_OF_RANGE
    desk.clock.advance(DAY_US / 1e6)
    assert replay(desk, name).state == "SENT"


def test_a_record_that_used_an_id_again_goes_back_under_another_name_only(desk):
    name = desk.dead(message(1), Fault.REUSED_ID)
    refused = replay(desk, name)
    assert (refused.state, refused.fault) == ("REFUSED", Fault.REUSED_ID)
    assert "give the new life an exchange of its own" in refused.message
    assert replay(desk, name, message(1, price=7)).state == "REFUSED", "it is the same symbol"
    assert desk.sent == []
    label = trade().label._replace(exchange="BINANCE_2026")
    desk.placement.place(Instrument("BINANCE_2026", "BTCUSDT"))
    assert replay(desk, name, encode_trade(trade(label=label), SCHEMA_ID)).state == "SENT"


def test_what_k2_failed_on_is_judged_by_the_k2_that_replays_it(desk):
    assert replay(desk, desk.dead(message(1), Fault.INTERNAL)).state == "SENT"
