"""The simulation can fail: K2 with one thing wrong is found out within a few seeds, each mutant."""

from dataclasses import replace

import numpy as np
import pytest

from k2.lake.commit.committer import Committer, TradeStore
from k2.lake.ingest.epoch_transition import StartedEpoch, begin_epoch, newest
from k2.lake.ingest.event_rows import LetterRowDecoder
from k2.lake.ingest.event_writer import OpsWriter
from k2.lake.ingest.trade_writer import LakeWriter
from k2.lake.maintenance.maintainer import Maintainer
from k2.lake.maintenance.maintenance_commit import MaintenanceCommitter
from k2.lake.maintenance.orphan_files import OrphanFileRemover
from k2.lake.maintenance.retention import Retention
from k2.market.events import Fault
from k2.market.fold import FoldState, Verdict
from tests.sim.asker import SteppedTail
from tests.sim.hunt import SHARP, is_found_out, name_of
from tests.sim.maintainer import GRACE_MIN_S
from tests.sim.parts import Parts
from tests.sim.store import Files
from tests.sim.tape import Office


class CommitsWithoutComparing(Committer):
    """Takes whatever it has for the next piece, as a commit that is rebased does."""

    def commit(self, batch):
        positions, _, _ = self.base()
        return super().commit([replace(one, start=positions[one.partition]) for one in batch])


class BelievesWhatItWasTold(Committer):
    """An attempt that failed did not land, it thinks, and goes on with what it knew before."""

    def _attempt(self, base, due, commit_id, attempt):
        try:
            return super()._attempt(base, due, commit_id, attempt)
        except Exception:
            self.told = base.positions
            raise

    def _read_base(self):
        base = super()._read_base()
        told, self.told = getattr(self, "told", None), None
        return base if told is None else replace(base, positions=told)


class TidiesUp(Committer):
    """Deletes the files of an attempt that failed."""

    def _attempt(self, base, due, commit_id, attempt):
        store = base.table.io.store
        before = set(store.files)
        try:
            return super()._attempt(base, due, commit_id, attempt)
        except Exception:
            for path in set(store.files) - before:
                if path.endswith(".parquet") and commit_id in path:
                    Files(store).delete(path)
            raise


class ForgetsOnRestart(LakeWriter):
    """Starts where the lake is, with an empty fold."""

    def _assigned(self, partitions):
        positions = super()._assigned(partitions)
        for one in self._reading.slices.values():
            one.state = FoldState()
        return positions


class DoesNotSeek(LakeWriter):
    """Reads on from where it was, after another writer took over."""

    def _settle(self, *given):
        reader = self._reading.reader
        seek, reader.seek = reader.seek, lambda positions: None
        super()._settle(*given)
        reader.seek = seek


class GoesOnAfterAFailure(LakeWriter):
    """Drops the rows of a commit that failed, and not their positions."""

    def commit(self):
        done = super().commit()
        if not done:
            for one in self._reading.slices.values():
                one.pieces = [replace(p, accepted=p.accepted.take(NO_ROWS)) for p in one.pieces]
        return done


class DropsTheRest(LakeWriter):
    """Goes on behind a batch of which it has judged the beginning."""

    def __init__(self, **given):
        super().__init__(**given)
        judge_next = self._reading._judge_next

        def judge_and_drop(held, batch):
            at_once = judge_next(held, batch)
            if not at_once:
                held.unjudged.popleft()
            return at_once

        self._reading._judge_next = judge_and_drop


class JudgesReused(LakeWriter):
    """Judges ids that are used again by another rule; what it says of a batch is `changed`."""

    def __init__(self, **given):
        super().__init__(**given)
        acceptance = self._reading.acceptance
        judge = acceptance.judge
        acceptance.judge = lambda *asked: self.changed(judge(*asked))

    def changed(self, judged):
        reused = judged.faults == Fault.REUSED_ID
        return self.otherwise(judged, reused) if reused.any() else judged


class TakesThemForCopies(JudgesReused):
    """A trade of another life is a duplicate."""

    def otherwise(self, judged, reused):
        verdicts, faults = judged.verdicts.copy(), judged.faults.copy()
        verdicts[reused], faults[reused] = Verdict.DUPLICATE, Fault.NONE
        state, count = judged.state, int(reused.sum())
        state = replace(state, duplicate=state.duplicate + count, dead=state.dead - count)
        return replace(judged, verdicts=verdicts, faults=faults, state=state)


class MovesTheMaximum(JudgesReused):
    """The time of a trade of another life counts for those after it."""

    def otherwise(self, judged, reused):
        columns, seen = judged.columns, dict(judged.state.seen)
        for at in np.flatnonzero(reused):
            instrument = columns.labels[columns.label[at]].instrument
            newest_us = max(seen[instrument].time_max_us, int(columns.event_time[at]))
            seen[instrument] = replace(seen[instrument], time_max_us=newest_us)
        return replace(judged, state=replace(judged.state, seen=seen))


class PublishesLater(Office):
    """Keeps dead letters back until the next ones come."""

    def publish(self, letters, wait_s=10.0):
        kept, self._kept = getattr(self, "_kept", []), list(letters)
        if kept:
            super().publish(kept, wait_s)


class StartsWithoutState(SteppedTail):
    """Starts at the lake's positions with an empty fold."""

    def start(self, positions, states):
        super().start(positions, {})


class EvictsWhatItHas(SteppedTail):
    """Lets rows go though the lake does not hold them yet, and says that it holds them."""

    covers = None

    def start(self, positions, states):
        super().start(positions, states)
        self.covers = positions

    def evict(self, covered):
        self.covers = covered
        return super().evict(self.position())

    def view(self, instruments, end=None):
        return replace(super().view(instruments, end), low=self.covers)


class SweepsWithoutGrace(Maintainer):
    """Removes what nothing names as soon as it sees it."""

    def __init__(self, **given):
        super().__init__(**given)
        self._sweeper = OrphanFileRemover(replacer=self._replacer, clock=self._clock, grace_s=0)


class Fenceless(OrphanFileRemover):
    """Takes what no snapshot names for what none ever will."""

    def _fence(self):
        return self._replacer.load()


class SweepsWithoutFence(Maintainer):
    """Removes what a commit under way may name yet."""

    def __init__(self, *, settings, **given):
        super().__init__(settings=settings, **given)
        self._sweeper = Fenceless(
            replacer=self._replacer, clock=self._clock, grace_s=settings.sweep_grace_s
        )


class MergesAFileTwice(Maintainer):
    """Reads the first file of a merge again, in the place of the last."""

    def _merge(self, table, group):
        return super()._merge(table, (*group[:-1], group[0]))


class RemovesOneMore(MaintenanceCommitter):
    """Lets a file go that was not merged, where there is one."""

    def commit(self, plan):
        def more(table, facts):
            change = plan(table, facts)
            if change is None or not change.removed:
                return change
            live = [
                entry.data_file.file_path
                for manifest in table.metadata.current_snapshot().manifests(table.io)
                if manifest.manifest_path in change.touched
                for entry in manifest.fetch_manifest_entry(table.io)
            ]
            spared = [one for one in live if one not in change.removed]
            return replace(change, removed=change.removed.union(spared[:1]))

        return super().commit(more)


class SaysWhatItSaw(MaintenanceCommitter):
    """Carries the positions of the head that it saw first."""

    def commit(self, plan):
        def stale(table, summary):
            self.seen = getattr(self, "seen", summary)
            return plan(table, replace(self.seen, commit_id=summary.commit_id))

        return super().commit(stale)


class FloorsTooLow(MaintenanceCommitter):
    """Says of what it removes that it was a little older."""

    def commit(self, plan):
        def lower(table, facts):
            change = plan(table, facts)
            if change is None or not change.removed:
                return change
            retained_from_us = change.summary.retained_from_us - 100_000
            return replace(
                change, summary=replace(change.summary, retained_from_us=retained_from_us)
            )

        return super().commit(lower)


class RemovesAtOnce(Retention):
    """Deletes the files that it has removed, though older snapshots name them."""

    def step(self):
        before = files_of(self._replacer.load())
        changed = super().step()
        table = self._replacer.load()
        for path in before - files_of(table):
            table.io.delete(path)
        return changed


def files_of(table):
    """The data files of a table's newest snapshot."""
    head = table.metadata.current_snapshot()
    return {
        entry.data_file.file_path
        for manifest in (head.manifests(table.io) if head else [])
        for entry in manifest.fetch_manifest_entry(table.io)
    }


def tells_nobody(catalog, clock, tape, commit_id):
    """Begins an epoch, and keeps to itself what was lost with the last."""
    return begin_epoch(catalog, clock, replace(tape, on_carry_over=lambda states: None), commit_id)


def carries_elsewhere(catalog, clock, tape, commit_id):
    """Begins an epoch with the ids of an instrument on a partition that is not its own."""
    moved = replace(tape, partition_of=lambda instrument: tape.partition_of(instrument) ^ 1)
    return begin_epoch(catalog, clock, moved, commit_id)


def waits_for_a_row(catalog, clock, tape, commit_id):
    """Lets an empty lake take any tape until it has a row."""
    if newest(catalog, TradeStore()) is None:
        return StartedEpoch(0)
    return begin_epoch(catalog, clock, tape, commit_id)


class KeepsALetterTwice(LetterRowDecoder):
    """Forgets with each batch which letters it has had."""

    def decode(self, batch, state):
        return super().decode(batch, FoldState())


class BelievesItsMemory(LetterRowDecoder):
    """Takes a letter that it has forgotten for a new one."""

    def _stored(self, origin, offsets):
        return ()


class DropsOpsRows(OpsWriter):
    """Goes on after a commit that failed, and not with its rows."""

    def _drop_and_retry(self, error):
        one = self._slice
        super()._drop_and_retry(error)
        if one is not None:
            one.rows = []
            self._slice = one


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NO_ROWS = np.empty(0, np.intp)
UNSURE = {"catalog.reply_lost": 0.5, "catalog.busy": 0.4}
BUSY = {"chances": UNSURE}
DEAF = {"chances": UNSURE | {"tape.deaf": 0.6}, "every_s": {"rebalance": 2}}
OFTEN = {"symbols": 5, "commit_interval_s": 0.3, "latency_s": 0.03}  # writers meet
LATE = {"chances": {"catalog.late": 0.5}, "every_s": {"rebalance": 3}, "commit_interval_s": 0.5}
RESET = {"symbols": 1, "every_s": {"venue.reset": 3}}
# Each in worlds of the kind that shows it: what is given is on, nothing else.
MUTANTS = [
    (Parts(committer=CommitsWithoutComparing), DEAF),
    (Parts(committer=BelievesWhatItWasTold), OFTEN),
    (Parts(committer=TidiesUp), BUSY),
    (Parts(pump=ForgetsOnRestart), {"chances": {"crash": 0.005, "net.double": 0.2}}),
    (Parts(pump=DoesNotSeek), LATE),
    (Parts(pump=GoesOnAfterAFailure), {"chances": {"catalog.busy": 0.5}}),
    (Parts(pump=DropsTheRest), {"chances": {"garbage.schema": 0.05}}),
    (Parts(pump=TakesThemForCopies), RESET),
    (Parts(pump=MovesTheMaximum), RESET),
    (Parts(office=PublishesLater), {"chances": {"poison": 0.1}}),
    (Parts(tail=StartsWithoutState), {"chances": {"tail.restart": 0.3, "tape.ack_lost": 0.3}}),
    (Parts(tail=EvictsWhatItHas), {}),
]
AGAIN = {"chances": {"poison": 0.1, "tape.error": 0.3, "tape.ack_lost": 0.1}}
LETTERS, ASKED = {"letters": 1}, {"backfill": 1}
OF_OPS = [
    (Parts(letter_intake=KeepsALetterTwice), AGAIN),
    (Parts(letter_intake=BelievesItsMemory), {"chances": {"poison": 0.1}, "every_s": LETTERS}),
    (Parts(ops_writer=DropsOpsRows), {"chances": {"catalog.busy": 0.3}, "every_s": ASKED}),
]
# The same for those that maintain; what is given replaces what is below.
OF_MAINTENANCE = [
    (Parts(maintainer=SweepsWithoutGrace), {"seconds": 12, "sweep_interval_s": 1}),
    (Parts(maintainer=SweepsWithoutFence), {"chances": {"freeze": 0.01}, "seconds": 40}),
    (Parts(maintainer=MergesAFileTwice), {}),
    (Parts(replacer=RemovesOneMore), {}),
    (Parts(replacer=SaysWhatItSaw), {}),
]
OF_EPOCHS = [
    Parts(begin=tells_nobody), Parts(begin=carries_elsewhere), Parts(begin=waits_for_a_row),
]  # fmt: skip
OF_RETENTION = [(Parts(replacer=FloorsTooLow), {}), (Parts(retainer=RemovesAtOnce), {})]
MAINTAINED = SHARP | {
    "writers": 1, "maintainers": 1, "maintain_interval_s": 1, "sweep_interval_s": 2,
    "sweep_grace_s": GRACE_MIN_S, "chances": {}, "every_s": {},
}  # fmt: skip
RETAINED = SHARP | {
    "rate": 40, "commit_interval_s": 0.5, "writers": 1, "retainers": 1,
    "retain_interval_s": 0.5, "bytes_max": 30_000, "chances": {}, "every_s": {},
}  # fmt: skip
RENEWED = SHARP | {
    "seconds": 6, "chances": {}, "every_s": {}, "disaster": "recreated",
}  # fmt: skip


@pytest.mark.parametrize(("mutant", "fields"), MUTANTS, ids=name_of)
def test_a_mutant_is_found_out(runs, mutant, fields):
    is_found_out(runs, mutant, **SHARP | {"chances": {}} | fields)


@pytest.mark.parametrize(("mutant", "fields"), OF_OPS, ids=name_of)
def test_a_mutant_of_the_ops_tables_is_found_out(runs, mutant, fields):
    is_found_out(runs, mutant, **SHARP | {"ops_writers": 1, "every_s": {}} | fields)


@pytest.mark.parametrize(("mutant", "fields"), OF_MAINTENANCE, ids=name_of)
def test_a_mutant_of_maintenance_is_found_out(runs, mutant, fields):
    is_found_out(runs, mutant, **MAINTAINED | fields)


@pytest.mark.parametrize(("mutant", "fields"), OF_RETENTION, ids=name_of)
def test_a_mutant_of_retention_is_found_out(runs, mutant, fields):
    is_found_out(runs, mutant, **RETAINED | fields)


@pytest.mark.parametrize("mutant", OF_EPOCHS, ids=name_of)
def test_a_mutant_of_epochs_is_found_out(runs, mutant):
    is_found_out(runs, mutant, **RENEWED)


class Trips(Maintainer):
    """Fails in a way that nobody foresaw; its loop logs that and goes on."""

    def compact(self, *given, **named):
        raise ValueError("unforeseen")


def test_what_a_loop_lives_through_is_found_too(runs):
    _, error = runs.run(100, Parts(maintainer=Trips), **MAINTAINED | {"seconds": 5})
    assert isinstance(error, ValueError)
