"""What the processes of a world are made of: K2's own parts, or mutants of them."""

from collections.abc import Callable
from dataclasses import dataclass

from k2.degrade.level import step
from k2.feed.gaps.filler import Filler
from k2.feed.gaps.recorder import GapRecorder
from k2.feed.gaps.sender import Sender
from k2.feed.publish.instrument_stream import InstrumentStream
from k2.lake.commit.committer import Committer
from k2.lake.ingest.deferral import DeferralLedger
from k2.lake.ingest.epoch_transition import begin_epoch
from k2.lake.ingest.event_rows import GapRowDecoder, LetterRowDecoder
from k2.lake.ingest.event_writer import OpsWriter
from k2.lake.ingest.trade_writer import LakeWriter
from k2.lake.maintenance.maintainer import Maintainer
from k2.lake.maintenance.maintenance_commit import MaintenanceCommitter
from k2.lake.maintenance.retention import Retention
from tests.sim.asker import SteppedTail
from tests.sim.tape import Office


@dataclass(frozen=True)
class Parts:
    """Classes and functions, each called as the one named here."""

    committer: type = Committer
    pump: type = LakeWriter
    deferral: type = DeferralLedger
    begin: Callable = begin_epoch
    step: Callable = step
    office: type = Office
    tail: type = SteppedTail
    maintainer: type = Maintainer
    replacer: type = MaintenanceCommitter
    retainer: type = Retention
    ops_writer: type = OpsWriter
    gap_intake: type = GapRowDecoder
    letter_intake: type = LetterRowDecoder
    line: type = InstrumentStream
    keeper: type = GapRecorder
    sender: type = Sender
    filler: type = Filler
