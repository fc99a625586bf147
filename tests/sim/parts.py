"""What the processes of a world are made of: K2's own parts, or mutants of them."""

from collections.abc import Callable
from dataclasses import dataclass

from k2.feed.gaps.filler import Filler
from k2.feed.gaps.recorder import Keeper
from k2.feed.gaps.sender import Sender
from k2.feed.publish.instrument_stream import Line
from k2.lake.commit.committer import Committer
from k2.lake.ingest.epoch_transition import begin_epoch
from k2.lake.ingest.event_rows import GapIntake, LetterIntake
from k2.lake.ingest.event_writer import OpsWriter
from k2.lake.ingest.trade_writer import Pump
from k2.lake.maintenance.maintainer import Maintainer
from k2.lake.maintenance.maintenance_commit import Replacer
from k2.lake.maintenance.retention import Retainer
from tests.sim.asker import SteppedTail
from tests.sim.tape import Office


@dataclass(frozen=True)
class Parts:
    """Classes and a function, each called as the one named here."""

    committer: type = Committer
    pump: type = Pump
    begin: Callable = begin_epoch
    office: type = Office
    tail: type = SteppedTail
    maintainer: type = Maintainer
    replacer: type = Replacer
    retainer: type = Retainer
    ops_writer: type = OpsWriter
    gap_intake: type = GapIntake
    letter_intake: type = LetterIntake
    line: type = Line
    keeper: type = Keeper
    sender: type = Sender
    filler: type = Filler
