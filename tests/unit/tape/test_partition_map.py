"""A symbol keeps the first partition that anybody wrote down."""

import threading

import pytest

from k2.errors import Reason, Unavailable
from k2.market.instrument import Instrument, Priorities, Tier, first_partition, tier_of
from k2.tape.partition_map import PartitionMap
from tests.fakes.tape import FakeTape
from tests.support.queue_lock import ask_together

BTC = Instrument("BINANCE", "BTCUSDT")
ETH = Instrument("BINANCE", "ETHUSDT")
KEY = "0/BINANCE:BTCUSDT"


@pytest.fixture
def board():
    return FakeTape().board("k2.partitions")


def placement(board, epoch=0):
    return PartitionMap(board, epoch, partitions_per_tier=2)


def test_a_new_symbol_gets_the_pure_choice_and_keeps_it(board):
    placed = placement(board)
    assert placed.known() == {}
    assert placed.place(BTC) == first_partition(BTC, 2)
    assert placed.place(BTC) == first_partition(BTC, 2)
    assert placed.known() == {BTC: first_partition(BTC, 2)}
    assert len(board.read_log()) == 1


def test_the_settings_rank_a_new_symbol_and_move_none_that_is_placed(board):
    priorities = Priorities({BTC.key: "low", ETH.key: "low"})
    assert placement(board).place(BTC) // 2 == Tier.CRITICAL
    ranked = PartitionMap(board, 0, 2, priorities)
    assert ranked.place(BTC) // 2 == Tier.CRITICAL
    assert ranked.place(ETH) // 2 == Tier.LOW


def test_what_is_written_wins_over_the_choice(board):
    elsewhere = 7 - first_partition(BTC, 2)
    board.put(KEY, {"partition": elsewhere})
    assert placement(board).place(BTC) == elsewhere


def test_a_symbol_keeps_its_partition_though_its_base_is_known_by_now(board):
    late = Instrument("BINANCE", "BTCUSD1")
    low = int(Tier.LOW) * 2
    board.put(f"0/{late.key}", {"partition": low})
    assert tier_of(late.symbol) is Tier.CRITICAL
    placed = placement(board)
    assert placed.refresh_for([late]) == {late: low}
    assert placed.place(late) == low


def test_the_first_of_two_racing_writers_wins_for_both(board):
    class Racing:
        """Another writer comes between reading and writing."""

        def log_reader(self):
            return board.log_reader()

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


def test_refresh_for_reads_again_only_for_what_it_lacks(board):
    placed = placement(board)
    placed.place(BTC)
    board.put("0/BINANCE:ETHUSDT", {"partition": 1})
    assert ETH not in placed.refresh_for([BTC])
    assert placed.refresh_for([BTC, ETH])[ETH] == 1
    assert Instrument("X", "Y") not in placed.refresh_for([Instrument("X", "Y")])


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
def test_a_record_that_says_nothing_of_this_tape_is_skipped_by_all(board, key, value):
    board.put(key, value)
    board.put("0/BINANCE:ETHUSDT", {"partition": 3})
    placed = placement(board)
    assert placed.refresh() == {ETH: 3}
    assert board.skipped == 1
    assert placed.place(BTC) == first_partition(BTC, 2)
    assert placement(board).refresh() == {ETH: 3, BTC: first_partition(BTC, 2)}


@pytest.mark.parametrize("value", [{"partition": 99}, None])
def test_compaction_keeps_the_first_though_a_bad_record_came_last(board, value):
    board.put(KEY, {"partition": 1})
    early = placement(board)
    early.refresh()
    board.put(KEY, value)
    for reader in (early, placement(board)):
        assert reader.refresh() == {BTC: 1}
        assert board.read_all() == {KEY: {"partition": 1}}
    assert len(board.read_log()) == 3, "put again once"


def test_a_first_that_could_not_be_put_again_is_put_at_the_next_reading(board):
    class Refusing:
        """Takes nothing while `away`."""

        away = True

        def log_reader(self):
            return board.log_reader()

        def put(self, key, value, wait_s=None):
            if self.away:
                raise Unavailable(Reason.TAPE_UNAVAILABLE, "away")
            board.put(key, value, wait_s)

    board.put(KEY, {"partition": 1})
    board.put(KEY, {"partition": 2})
    refusing = Refusing()
    placed = placement(refusing)
    with pytest.raises(Unavailable):
        placed.refresh()
    refusing.away = False
    assert placed.refresh() == {BTC: 1}
    assert board.read_all() == {KEY: {"partition": 1}}


class Watched:
    """A log whose reader is at hand."""

    def __init__(self, board):
        self._board = board
        self.put = board.put
        self.skip = board.skip
        self.ends_asked = 0

    def log_reader(self):
        self.reader = self._board.log_reader()
        return self

    def advance(self):
        self.ends_asked += 1
        return self.reader.advance()


def test_the_topic_is_followed_and_a_miss_holds_while_its_end_is_unchanged(board):
    board.put(KEY, {"partition": 1})
    log = Watched(board)
    placed = placement(log)
    for _ in range(5):
        assert ETH not in placed.refresh_for([BTC, ETH])
    assert (log.ends_asked, log.reader.reads) == (5, 1)
    for _ in range(5):
        assert placed.refresh_for([BTC]) == {BTC: 1}
    assert log.ends_asked == 5, "what is known is not asked for"
    board.put("0/BINANCE:ETHUSDT", {"partition": 2})
    assert placed.refresh_for([BTC, ETH]) == {BTC: 1, ETH: 2}
    assert (log.ends_asked, log.reader.reads) == (6, 2)


def test_a_partition_map_that_was_made_again_is_read_from_its_start():
    tape = FakeTape()
    board = tape.board("k2.partitions")
    board.put(KEY, {"partition": 1})
    board.put("0/BINANCE:ETHUSDT", {"partition": 2})
    placed = placement(board)
    assert placed.refresh() == {BTC: 1, ETH: 2}
    del tape.boards["k2.partitions"][:]
    assert placed.refresh() == {}


class Held(Watched):
    """Reads once when it may, then the broker is away."""

    may = threading.Event()

    def advance(self):
        assert self.may.wait(10)
        if self.ends_asked:
            self.ends_asked += 1
            raise Unavailable(Reason.TAPE_UNAVAILABLE, "away")
        return super().advance()


def test_callers_that_waited_share_a_reading_that_began_after_they_asked(board):
    log = Held(board)
    placed = placement(log)

    def ask():
        try:
            return placed.refresh()
        except Unavailable as error:
            return error.message

    found = ask_together(placed._reading, ask, log.may.set)
    assert found == [{}, "away", "away", "away"]
    assert log.ends_asked == 2


def test_nothing_is_placed_while_the_tape_is_away():
    tape = FakeTape()
    placed = placement(tape.board("k2.partitions"))
    tape.away = True
    with pytest.raises(Unavailable):
        placed.place(BTC)
    tape.away = False
    assert placed.place(BTC) == first_partition(BTC, 2)
