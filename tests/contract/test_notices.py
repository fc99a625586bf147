"""What is told beside the tape: boards, dead letters, gaps; held against the fake and a Kafka."""

import pytest

from k2.errors import Invalid, Reason
from k2.market.events import Fault
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState
from k2.tape import topics
from k2.tape.dead_letter_topic import DeadLetter
from tests.support.eventually import eventually

# --- boards -------------------------------------------------------------------------------------


def test_a_board_keeps_the_newest_document_of_a_key(tape, key):
    board = tape.board(topics.COVERAGE)
    board.put(key, {"id": 1}, wait_s=10)
    board.put(key, {"id": 2}, wait_s=10)
    board.put(f"{key}-gone", {"id": 3}, wait_s=10)
    board.put(f"{key}-gone", None, wait_s=10)
    documents = board.read_all()
    assert documents[key] == {"id": 2}
    assert f"{key}-gone" not in documents
    assert [value for name, value in board.read_log() if name == key] == [{"id": 1}, {"id": 2}]


def test_a_board_is_followed(tape, key):
    writer, follower = tape.board(topics.COVERAGE), tape.board(topics.COVERAGE)
    writer.put(key, {"id": 1}, wait_s=10)
    assert follower.current()[key] == {"id": 1}
    version = follower.version
    writer.put(key, {"id": 2})
    assert follower.wait_change(version, 10) > version
    assert follower.current()[key] == {"id": 2}


def test_the_log_of_a_board_is_read_on_from_where_it_was(tape, key):
    writer, board = tape.board(topics.PARTITIONS), tape.board(topics.PARTITIONS)
    log = board.log_reader()

    def news():
        given = log.advance()
        return given.from_start, [record for record in given.records if record[0] == key]

    writer.put(key, {"id": 1}, wait_s=10)
    writer.put(key, {"id": 2}, wait_s=10)
    assert news() == (True, [(key, {"id": 1}), (key, {"id": 2})])
    assert news() == (False, [])
    writer.put(key, None, wait_s=10)
    assert news() == (False, [(key, None)])
    assert board.log_reader().advance().from_start


def test_a_board_is_followed_to_its_end(tape, key):
    writer, follower = tape.board(topics.COVERAGE), tape.board(topics.COVERAGE)
    for count in range(20):
        writer.put(key, {"id": count}, wait_s=10)
        assert follower.current_to_end()[key] == {"id": count}
    writer.put(key, None, wait_s=10)
    assert key not in follower.current_to_end()


def test_a_follower_hears_of_what_comes_and_not_of_what_was_there(tape, key):
    writer, follower = tape.board(topics.COVERAGE), tape.board(topics.COVERAGE)
    writer.put(f"{key}-before", {"id": 1}, wait_s=10)
    heard = []
    follower.listen(heard.append)
    assert f"{key}-before" in follower.current()
    writer.put(key, {"id": 2}, wait_s=10)
    eventually(lambda: key in heard)
    assert f"{key}-before" not in heard


def test_waiting_for_a_change_ends_when_there_is_none(tape, key):
    board = tape.board(topics.PARTITIONS)
    board.current()
    assert board.wait_change(board.version, 0.05) == board.version


# --- dead letters -------------------------------------------------------------------------------


def letter(topic, offset, value):
    return DeadLetter(
        topic, 0, 3, offset, 7, Fault.TRUNCATED, "ends inside a field: ü", 1_700_000_000, value
    )


def test_letters_keep_bytes_and_position(tape):
    office = tape.office()
    letters = [letter(tape.topic, 1, b"\x00\xff"), letter(tape.topic, 2, None)]
    letters.append(DeadLetter(tape.topic, 0, 3, 3, None, Fault.BAD_MAGIC, "", 1, b""))
    office.publish(letters, 10)
    assert [each for each in office.read_all() if each.topic == tape.topic] == letters


def test_no_letters_are_published_at_once(tape):
    tape.office().publish([], 0)


# --- the ledger of gaps -------------------------------------------------------------------------


def gap(symbol, first, last, **changes):
    time_us = 1_700_000_000_000_000
    told = {"cause": Cause.DISCONNECT, "state": GapState.OPEN, "feed": "feed:1"} | changes
    return GapEvent(
        Instrument("BINANCE", symbol), first, last, time_us, recorded_us=time_us + 1, **told
    )


def test_gap_events_come_back_in_the_order_they_were_told(tape, key):
    log = tape.gap_log()
    events = [
        gap(key, 10, 19),
        gap(key, 10, 14, state=GapState.FILLED, filled_at_us=1_700_000_001_000_000),
        gap(key, 15, 19, state=GapState.UNFILLABLE, reason="the venue has them no more: ü"),
        gap(key, 15, 15, state=GapState.VOID),
        gap(key, 10, 14, state=GapState.FILLED, filled_at_us=1_700_000_001_000_000),
    ]
    log.publish(events[:1], 10)
    log.publish(events[1:], 10)
    assert [event for event in log.advance() if event.instrument.symbol == key] == events


def test_an_event_that_contradicts_itself_is_not_published(tape, key):
    log = tape.gap_log()
    with pytest.raises(Invalid) as caught:
        log.publish([gap(key, 1, 2), gap(key, 10, 9)], 10)
    assert caught.value.reason is Reason.BAD_REQUEST
    assert not [event for event in log.advance() if event.instrument.symbol == key]


def test_who_keeps_up_with_the_ledger_gets_each_event_once_in_the_order_of_all(tape, key):
    one, other = tape.gap_log(), tape.gap_log()

    def news(log):
        return [event for event in log.advance() if event.instrument.symbol == key]

    assert news(one) == []
    one.publish([gap(key, 1, 2)], 10)
    other.publish([gap(key, 5, 6)], 10)
    assert news(one) == [gap(key, 1, 2), gap(key, 5, 6)], "all that was acknowledged before"
    assert news(one) == []
    one.publish([gap(key, 9, 9)], 10)
    assert news(other) == [gap(key, 1, 2), gap(key, 5, 6), gap(key, 9, 9)]
    assert news(tape.gap_log()) == [gap(key, 1, 2), gap(key, 5, 6), gap(key, 9, 9)]
