"""The same for feeds, and for what keeps the ledger beside them."""

import pytest

from k2.feed.gaps.recorder import GapRecorder
from k2.feed.gaps.sender import Acknowledgements, Sender
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.market.ledger import GapState
from tests.sim.hunt import SHARP, is_found_out, name_of
from tests.sim.parts import Parts


class TellsOfNoGap(GapRecorder):
    """Says that the ledger has what it was never told."""

    def publish(self, events):
        super().publish([event for event in events if event.state is not GapState.OPEN])


class PromisesOverGaps(InstrumentStream):
    """Promises all that is acknowledged, whatever is missing below it."""

    @property
    def covered_through(self):
        return self.acknowledged_id


class TakesSentForLanded(Sender):
    """Waits for no acknowledgement."""

    def send(self, trades):
        until_s = self._clock.monotonic_s() + 60
        sent = [
            trade.trade_id for trade in trades if self._send(trade, Acknowledgements(), until_s)
        ]
        return frozenset(sent)


MUTANTS = [
    Parts(keeper=TellsOfNoGap),
    Parts(line=PromisesOverGaps),
    Parts(sender=TakesSentForLanded),
]
FED = SHARP | {"seconds": 8, "writers": 1, "chances": {"net.drop": 0.1}, "every_s": {}}


@pytest.mark.parametrize("mutant", MUTANTS, ids=name_of)
def test_a_mutant_of_feeds_is_found_out(runs, mutant):
    is_found_out(runs, mutant, **FED)
