"""What the processes of a world are made of: K2's own parts, or mutants of them."""

from collections.abc import Callable
from dataclasses import dataclass

from k2.feed.filler import Filler
from k2.feed.keeper import Keeper
from k2.feed.line import Line
from k2.feed.sender import Sender
from k2.lake.commit import Committer
from k2.lake.epoch import begin_epoch
from k2.lake.maintain import Maintainer
from k2.lake.ops_events import GapIntake, LetterIntake
from k2.lake.ops_pump import OpsWriter
from k2.lake.pump import Pump
from k2.lake.replacer import Replacer
from k2.lake.retain import Retainer
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
