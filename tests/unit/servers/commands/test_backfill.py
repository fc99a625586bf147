"""Loading a file: what lands, what is refused, what the ledger learns. The process: integration."""

import io
import json
from contextlib import closing

import pytest

from k2 import limits
from k2.clock import ManualClock, SystemClock
from k2.errors import Data, Invalid, Reason, Unavailable
from k2.feed.gaps.sender import Place, Sender
from k2.feed.venues.binance_day_file import DayReader, named
from k2.market.instrument import Instrument
from k2.market.ledger import Cause, GapEvent, GapState
from k2.settings import Settings
from k2.tape.avro.trade_codec import encode_trade
from servers.commands.backfill import Loader, pausing, run
from servers.local.stamp import Stamp, write_stamp
from servers.runtime import Runtime
from tests.fakes.tape import FakeTape
from tests.support.messages import SCHEMA_ID
from tests.unit.feed.venues.test_binance_day_file import DAY_2025, row

BTC = Instrument("BINANCE", "BTCUSDT")
NAME = "BTCUSDT-trades-2025-01-01.csv"


class World:
    def __init__(self, folder, text, name=NAME):
        self.path = folder / name
        self.path.write_text(text)
        self.out = io.StringIO()
        self.runtime = Runtime(SystemClock(), "1", out=self.out)
        self.tape = FakeTape()
        producer = self.tape.producer()
        self.giving_up = False

        def pause(seconds):
            producer.poll()
            return self.giving_up

        self.sender = Sender(
            tape=producer,
            places={BTC: Place(b"BINANCE:BTCUSDT", 1)},
            encode=lambda trade: encode_trade(trade, SCHEMA_ID),
            clock=SystemClock(),
            pause=pause,
        )

    def load(self):
        with closing(DayReader(named(self.path), "BINANCE", SystemClock().now_us())) as reader:
            self.loader = Loader(
                reader=reader, sender=self.sender, log=self.tape.gap_log(), runtime=self.runtime
            )
            return self.loader.load(BTC)

    @property
    def events(self):
        return [json.loads(line) for line in self.out.getvalue().splitlines()]


def rows(*ids):
    return "".join(row(each, DAY_2025 + each) for each in ids)


def test_good_rows_land_and_bad_ones_are_named(tmp_path):
    world = World(tmp_path, rows(1, 2) + "rubbish\n" + rows(3))
    assert world.load()
    loader = world.loader
    assert (loader.loaded, loader.refused, loader.first_id, loader.last_id) == (3, 1, 1, 3)
    assert world.tape.logs[1].end == 3
    (refused,) = [each for each in world.events if each["event"] == "refused"]
    assert refused == {"event": "refused", "place": "line 3", "error": "'rubbish' is no trade"}


def test_refused_lines_are_listed_up_to_a_bound_and_counted(tmp_path):
    world = World(tmp_path, "rubbish\n" * 1000)
    assert world.load()
    assert world.loader.refused == 1000
    assert len([each for each in world.events if each["event"] == "refused"]) == 100


def test_the_ledger_learns_what_came(tmp_path):
    world = World(tmp_path, rows(*range(5, 20)))
    unfillable = {"state": GapState.UNFILLABLE, "reason": "gone"}
    for first, last, told in ((1, 7, {"state": GapState.OPEN}), (18, 30, unfillable)):
        world.tape.gaps.append(
            GapEvent(
                BTC, first, last, DAY_2025, Cause.OUTAGE, recorded_us=DAY_2025, feed="f", **told
            )
        )
    assert world.load()
    said = [(each.first_id, each.last_id, each.state.value) for each in world.tape.gaps[2:]]
    assert said == [(5, 7, "FILLED"), (18, 19, "FILLED")]
    assert world.loader.filled == 5
    assert {each.cause for each in world.tape.gaps[2:]} == {Cause.OUTAGE}


def test_the_ledger_learns_which_ids_are_without_a_trade(tmp_path):
    void = row(2, DAY_2025 + 2, price="0", qty="0") + row(3, DAY_2025 + 3, price="0", qty="0.0")
    world = World(tmp_path, rows(1) + void + rows(4))
    assert world.load()
    assert (world.loader.loaded, world.loader.refused) == (2, 0)
    assert [(each.first_id, each.last_id, each.state) for each in world.tape.gaps] == [
        (2, 3, GapState.VOID)
    ]


def test_a_tape_that_is_away_ends_it_and_says_how_far_it_came(tmp_path):
    world = World(tmp_path, rows(*range(1, 5002)))
    world.tape.away = world.giving_up = True
    with pytest.raises(Unavailable):
        world.load()


def test_an_interruption_is_not_an_end(tmp_path):
    world = World(tmp_path, rows(1, 2))
    world.runtime.stopping.set()
    assert not world.load()


def asked(folder, *arguments):
    runtime = Runtime(SystemClock(), "1", out=io.StringIO())
    return run(Settings(data_dir=folder), runtime, [str(each) for each in arguments])


def test_the_symbol_must_be_the_files(tmp_path):
    with pytest.raises(Invalid, match="holds BTCUSDT, not ETHUSDT"):
        asked(tmp_path, tmp_path / NAME, "--symbol", "ETHUSDT")


@pytest.mark.parametrize("more", [[], ["--exchange", "x y"], ["--what"]])
def test_arguments_are_checked(tmp_path, more):
    with pytest.raises(Invalid):
        asked(tmp_path, *([tmp_path / NAME] if more else []), *more)


def test_real_trades_do_not_go_among_simulated_ones(tmp_path):
    write_stamp(tmp_path / "stamp.json", Stamp("simulated", "synthetic", "BINANCE"))
    (tmp_path / NAME).write_text(rows(1))
    with pytest.raises(Data) as caught:
        asked(tmp_path, tmp_path / NAME)
    assert caught.value.reason is Reason.STAMP_MISMATCH
    assert "--exchange NAME" in caught.value.message


def test_once_asked_to_stop_a_sender_waits_a_moment_and_no_longer():
    runtime = Runtime(ManualClock(), "r")
    pause = pausing(runtime.clock.advance, runtime)
    assert not any(pause(60) for _ in range(3))
    runtime.stopping.set()
    assert not pause(0.02)
    assert pause(limits.STOP_S)
    runtime.second_signal.set()
    assert pause(0)
