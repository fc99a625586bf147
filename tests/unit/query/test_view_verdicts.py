"""Tail and writer may judge one record differently: the commit decides, and nothing doubles."""

import logging

import pytest

from k2.market.instrument import Instrument
from k2.query.provenance import Completeness
from k2.tape.avro.trade_codec import encode_trade
from tests.support.eventually import eventually
from tests.support.messages import SCHEMA, SCHEMA_ID, trade
from tests.support.query_stack import QueryStack
from tests.support.trades import NOW_US

NEW_ID = 99
BTC = ("BTCUSDT",)


class Stack(QueryStack):
    """Writer and tail with a registry each, that may know a new schema or not."""

    @property
    def of_writer(self):
        return self.decoder._schemas.schemas

    @property
    def of_tail(self):
        return self.tail._acceptance._decoder._schemas.schemas

    def send_new(self, trade_id, partition=0, schema_id=NEW_ID, **label):
        """A trade of the new schema; the tail has judged it when this returns."""
        made = trade(trade_id=trade_id, event_time_us=NOW_US, receive_time_us=NOW_US + 5)
        made = made._replace(label=made.label._replace(**label))
        end = self.tape.append(partition, encode_trade(made, schema_id))
        eventually(lambda: self.tail.position()[partition] >= end)

    def answer(self, **fields):
        table, answer = self.ask(symbols=BTC, **fields)
        completeness = answer.opened.provenance.completeness
        return sorted(table.column("trade_id").to_pylist()), completeness

    def commit_and_maintain(self):
        self.commit()
        self.view.maintain()


@pytest.fixture
def stack(tmp_path):
    with Stack(tmp_path) as made:
        made.send("BTCUSDT", [1, 2])
        yield made


def test_what_the_writer_knew_and_the_tail_did_not_is_a_row_once(stack):
    stack.send_new(3)
    assert stack.answer() == ([1, 2], Completeness.UNKNOWN), "it may yet be a row"
    stack.of_writer[NEW_ID] = SCHEMA
    stack.commit()
    stack.send("BTCUSDT", [3, 4])  # of another feed: the tail takes it for new
    eventually(lambda: stack.tail.position()[0] == 5)
    stack.view.maintain()
    assert stack.answer() == ([1, 2, 3, 4], Completeness.COMPLETE)
    stack.commit_and_maintain()
    assert stack.answer() == ([1, 2, 3, 4], Completeness.COMPLETE)


def test_what_the_tail_knew_and_the_writer_did_not_comes_back_when_it_is_replayed(stack, caplog):
    stack.of_tail[NEW_ID] = SCHEMA
    stack.send_new(3)
    assert stack.answer() == ([1, 2, 3], Completeness.COMPLETE)
    with caplog.at_level(logging.WARNING):
        stack.commit_and_maintain()
    assert "judged records otherwise" in caplog.text
    assert stack.answer() == ([1, 2], Completeness.COMPLETE)
    stack.send_new(3)
    stack.of_writer[NEW_ID] = SCHEMA
    assert stack.answer() == ([1, 2, 3], Completeness.COMPLETE)
    stack.commit_and_maintain()
    assert stack.answer() == ([1, 2, 3], Completeness.COMPLETE)


def test_where_both_found_the_same_the_tail_goes_on(stack):
    stack.send_new(3)
    stack.tape.append(0, b"garbage")
    eventually(lambda: stack.tail.position()[0] == 4)
    stack.commit_and_maintain()
    assert stack.tail.stats().records == 4, "it was not started again"
    assert stack.answer() == ([1, 2], Completeness.COMPLETE), "the commit has decided"


def test_what_is_dead_for_good_leaves_nothing_open(stack):
    stack.homes.place(Instrument("BINANCE", "SOLUSDT"))
    stack.tape.append(0, b"garbage")
    stack.send_new(1, schema_id=SCHEMA_ID, symbol="SOLUSDT")  # placed elsewhere
    assert stack.answer() == ([1, 2], Completeness.COMPLETE)
    stack.send_new(1, partition=1)
    assert stack.answer() == ([1, 2], Completeness.COMPLETE), "another partition"


def test_a_symbol_that_nobody_has_placed_may_yet_be(stack):
    stack.send_new(1, schema_id=SCHEMA_ID, symbol="ETHUSDT")
    assert stack.answer() == ([1, 2], Completeness.UNKNOWN)
    stack.homes.place(Instrument("BINANCE", "ETHUSDT"))
    stack.commit_and_maintain()
    assert stack.ids(symbols=("ETHUSDT",)) == [1]
    assert stack.answer() == ([1, 2], Completeness.COMPLETE)
