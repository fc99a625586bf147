"""A symbol keeps the first partition that anybody wrote down."""

import pytest

from k2.errors import Data, Reason, Unavailable
from k2.market.instrument import Instrument, first_partition
from k2.tape.placement import Placement
from tests.fakes.tape import FakeTape

BTC = Instrument("BINANCE", "BTCUSDT")
ETH = Instrument("BINANCE", "ETHUSDT")
KEY = "0/BINANCE:BTCUSDT"


@pytest.fixture
def board():
    return FakeTape().board("k2.partitions")


def placement(board, epoch=0):
    return Placement(board, epoch, partitions_per_tier=2)


def test_a_new_symbol_gets_the_pure_choice_and_keeps_it(board):
    placed = placement(board)
    assert placed.known() == {}
    assert placed.place(BTC) == first_partition(BTC, 2)
    assert placed.place(BTC) == first_partition(BTC, 2)
    assert placed.known() == {BTC: first_partition(BTC, 2)}
    assert len(board.read_log()) == 1


def test_what_is_written_wins_over_the_choice(board):
    elsewhere = 7 - first_partition(BTC, 2)
    board.put(KEY, {"partition": elsewhere})
    assert placement(board).place(BTC) == elsewhere


def test_the_first_of_two_racing_writers_wins_for_both(board):
    class Racing:
        """Another writer comes between reading and writing."""

        def read_log(self):
            return board.read_log()

        def put(self, key, value, wait_s=None):
            if not board.read_log():
                board.put(key, {"partition": 5})
            board.put(key, value, wait_s)

    assert placement(Racing()).place(BTC) == 5
    assert placement(board).place(BTC) == 5


def test_the_first_is_put_last_again_before_compaction_can_lose_it(board):
    board.put(KEY, {"partition": 1})
    board.put(KEY, {"partition": 2})
    assert placement(board).refresh() == {BTC: 1}
    assert board.read_all() == {KEY: {"partition": 1}}
    placement(board).refresh()
    assert len(board.read_log()) == 3


def test_epochs_are_apart(board):
    board.put("1/BINANCE:BTCUSDT", {"partition": 3})
    assert placement(board).refresh() == {}
    assert placement(board, epoch=1).refresh() == {BTC: 3}


def test_covering_reads_again_only_for_what_it_lacks(board):
    placed = placement(board)
    placed.place(BTC)
    board.put("0/BINANCE:ETHUSDT", {"partition": 1})
    assert ETH not in placed.covering([BTC])
    assert placed.covering([BTC, ETH])[ETH] == 1
    assert Instrument("X", "Y") not in placed.covering([Instrument("X", "Y")])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (KEY, {"partition": 8}),
        (KEY, {"partition": -1}),
        (KEY, {"partition": "1"}),
        (KEY, {"partition": True}),
        (KEY, {}),
        ("0/nonsense", {"partition": 1}),
    ],
)
def test_a_map_of_another_tape_is_refused(board, key, value):
    board.put(key, value)
    with pytest.raises(Data) as caught:
        placement(board).refresh()
    assert caught.value.reason == Reason.PARTITIONS_CHANGED


def test_nothing_is_placed_while_the_tape_is_away():
    tape = FakeTape()
    placed = placement(tape.board("k2.partitions"))
    tape.away = True
    with pytest.raises(Unavailable):
        placed.place(BTC)
    tape.away = False
    assert placed.place(BTC) == first_partition(BTC, 2)
