"""What must be true: after every commit, after every answer, and when all has calmed down.

After a commit, wherever it came from and whatever its writer was told: it adds to its parent's rows
exactly the accepted ones between its parent's positions and its own, publishes the counters and the
fold's state of just there, comes later than its parent, and every record it passes that is no row
has its dead letter acknowledged already. By induction every snapshot is exact. A commit of
maintenance holds its parent's rows and says of the tape what its parent said; what it dropped is no
longer kept, and whatever a kept snapshot names must stay on disk.

A commit of retention lets rows go, all of them older than the floor that it and every later commit
carry; their ids stay known. An epoch that has ended takes no row any more, and the next one begins
where its tape does, with the ids of all rows; what a feed had promised above them is in the ledger
by then.
"""

import io
import operator
from bisect import bisect_right
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
from pyiceberg.table.snapshots import Operation

from k2.errors import Reason
from k2.lake.iceberg.catalog import local_path
from k2.lake.iceberg.snapshot import current_of, read_states, summary_of
from k2.market.events import DAY_US, Fault
from k2.market.fold import FoldState
from k2.query.provenance import Completeness
from tests.sim.maintainer import SKEW_S
from tests.sim.process import EPOCH_US
from tests.sim.reference import identity_of, rows_of
from tests.sim.store import Files
from tests.sim.violation import Violation, require


class Oracle:
    """Judges a world.

    Attributes:
        snapshots: of every commit that landed, oldest first.
        found: the first violation by a commit: what others see of it comes after.
        tagged: ids of snapshots that a person has named: they are kept.
    """

    def __init__(self, world):
        self._world = world
        self._files = Files(world.store)
        self._known = {}
        self._entries = {}
        self._gone = {}
        self._read_until = []
        self._head = self._reachable = None
        self.found = None
        self.snapshots = []
        self.tagged = set()

    @property
    def newest(self):
        """The newest snapshot, if there is any."""
        return self.snapshots[-1] if self.snapshots else None

    @property
    def positions(self):
        """Of the newest snapshot."""
        zero = (0,) * len(self._world.tape.logs)
        return self.newest.positions.offsets if self.newest else zero

    def gone(self, snapshot_id):
        """Places of the rows that retention had removed by a snapshot."""
        return self._gone.get(snapshot_id, frozenset())

    # --- commits ----------------------------------------------------------------------------------

    def landed(self, metadata, location):
        """A commit has swung the head; where its metadata is."""
        if self.found is not None:  # whoever is on its way out may commit once more
            raise self.found
        try:
            self._judge(metadata)
        except Violation as violation:
            self.found = violation
            raise
        except Exception as error:
            self.found = Violation(f"a commit cannot be read: {error!r}")
            raise self.found from error
        self._head, self._reachable = (metadata, location), None
        self._world.note("lake", f"keeps {len(metadata.snapshots)} snapshots")

    def _judge(self, metadata):
        snapshot, parent = current_of(metadata), self.newest
        kept = {one.snapshot_id for one in metadata.snapshots}
        require(self.tagged <= kept, "a tagged snapshot was dropped", self.tagged - kept)
        if parent:
            if snapshot.snapshot_id == parent.snapshot_id:
                return  # other metadata changed
            self._follows(snapshot, parent)
        before, after = self._before(snapshot, parent), snapshot.positions.offsets
        moved = all(high >= low for low, high in zip(before, after, strict=True))
        require(moved, "positions moved back", before, after)
        gone = self._rows(metadata.current_snapshot(), before, snapshot)
        self._published(snapshot, after)
        self._letters(before, after)
        rows = len(self._world.reference.held(snapshot.positions)) - len(gone)
        require(snapshot.rows_total == rows, "rows in the summary", snapshot.rows_total, rows)
        self._gone[snapshot.snapshot_id] = gone
        self.snapshots.append(snapshot)
        self._world.note("lake", f"holds {after} by {snapshot.operation}")

    def _follows(self, snapshot, parent):
        """What every commit may say of itself, by what its parent said."""
        require(snapshot.parent_id == parent.snapshot_id, "a commit is not on the head")
        require(snapshot.committed_at_us > parent.committed_at_us, "commit times go back")
        if snapshot.operation != Operation.DELETE.value:
            kept = snapshot.retained_from_us == parent.retained_from_us
            require(kept, "another floor", parent.retained_from_us, snapshot.retained_from_us)
        if snapshot.positions.epoch != parent.positions.epoch:
            self._begins(snapshot, parent)
        elif snapshot.operation != Operation.APPEND.value:
            self._says_the_same(snapshot, parent, "epochs")
        elif snapshot.epochs.ended:
            require(not parent.epochs.ended, "an ended epoch grows", snapshot.positions)
            ended = replace(snapshot.epochs, ended="")
            require(ended == parent.epochs, "its end changes an epoch", parent.epochs, ended)
            self._says_the_same(snapshot, parent)
        else:
            require(not parent.epochs.ended, "an ended epoch goes on", snapshot.positions)

    def _before(self, snapshot, parent):
        """From where on a commit adds rows; the first of all adds none: it says where it begins."""
        if parent and parent.positions.epoch == snapshot.positions.epoch:
            return parent.positions.offsets
        start = snapshot.first_positions.offsets
        if not parent:
            begun = snapshot.positions.offsets
            require(begun == start, "a lake has rows before it has begun", start, begun)
            left = self._left_from(start)
            self._world.reference.begin_anew(left)
            self._world.awaits_epoch = False
        return start

    def _left_from(self, start):
        """What the tape has of each partition from where retention has left it."""
        logs = self._world.tape.logs
        begins = [log.start for log in logs]
        possible = all(map(operator.ge, start, begins))
        require(possible, "an epoch begins before the tape", start, begins)
        left = []
        for log, first in zip(logs, start, strict=True):
            at = first - log.start
            left.append((first, list(zip(log.values[at:], log.stamps[at:], strict=True))))
        return left

    def _begins(self, snapshot, parent):
        """The first commit of an epoch: on the tape that is there, behind all that was."""
        logs, stands = self._world.tape.logs, parent.positions.offsets
        require(parent.epochs.ended, "an epoch begins before the last has ended")
        require(snapshot.positions.epoch == parent.positions.epoch + 1, "an epoch is left out")
        past = (*parent.epochs.past, parent.positions)
        require(snapshot.epochs.past == past, "past epochs", snapshot.epochs.past, past)
        known = snapshot.topic_id == self._world.tape.topic_id
        require(known, "the epoch of another topic", snapshot.topic_id)
        start = [log.start for log in logs]
        if parent.epochs.ended == Reason.RETENTION_OVERTOOK:
            start = list(map(max, start, stands))
        begun = list(snapshot.positions.offsets)
        require(begun == start, "an epoch begins elsewhere", begun, start)
        lost = self._world.reference.begin_epoch(stands, self._left_from(start))
        self._world.awaits_epoch = False
        self._world.ops.told_what_is_lost(lost)

    def _says_the_same(self, snapshot, parent, *more):
        """Maintenance says of the tape what its parent says."""
        for name in ("positions", "counters", "state_path", *more):
            have, had = getattr(snapshot, name), getattr(parent, name)
            require(have == had, f"maintenance changes {name}", had, have)

    def _rows(self, head, before, snapshot):
        """An append adds the rows between; whatever rewrites files must hold all of them.

        Returns:
            Places of the rows that retention has removed, by now.
        """
        operation, reference = head.summary.operation, self._world.reference
        gone = self.gone(head.parent_snapshot_id)
        appends = operation is Operation.APPEND
        manifests = head.manifests(self._files)
        if appends:
            manifests = [one for one in manifests if one.added_snapshot_id == head.snapshot_id]
        entries = [
            entry
            for manifest in manifests
            for entry in manifest.fetch_manifest_entry(self._files)
            if not appends or entry.snapshot_id == head.snapshot_id
        ]
        rows = self.read([entry.data_file.file_path for entry in entries])
        if appends:
            self._decided(before, snapshot.positions.offsets, rows)
            same(rows, reference.accepted(before, snapshot.positions.offsets))
            return gone
        want = without(reference.held(snapshot.positions), gone)
        if operation is Operation.DELETE:
            gone |= self._removed(snapshot, rows, want)
            want = without(want, gone)
        same(rows, want)
        return gone

    def _removed(self, snapshot, rows, want):
        """What retention removed now: rows below the floor, for a reason, and not the newest."""
        parent, retained_from_us = self.newest, snapshot.retained_from_us
        gone = want.keys() - {row.place for row in rows}
        above = [want[place] for place in gone if want[place].event_time >= retained_from_us]
        require(not above, "gone from above the floor", retained_from_us, *above[:3])
        higher = parent.retained_from_us is None or parent.retained_from_us <= retained_from_us
        require(higher, "the floor sinks", parent.retained_from_us, retained_from_us)
        require(rows, "retention leaves nothing")
        newest = max(want[place].event_time for place in gone) if gone else 0
        due = parent.bytes_total > self._world.swarm.bytes_max or self._is_of_yesterday(newest)
        require(due, "retention of what was not due", parent.bytes_total, newest)
        self._world.note("lake", f"lets {len(gone)} rows go, the newest of {newest}")
        return frozenset(gone)

    def _is_of_yesterday(self, time_us):
        """Whether a day has ended since, and is kept no longer."""
        latest_us = EPOCH_US + int((self._world.scheduler.now_s + SKEW_S) * 1e6)
        kept = self._world.swarm.retention_hours
        return kept is not None and time_us // DAY_US < latest_us // DAY_US

    def _published(self, snapshot, after):
        states = read_states(self._files, snapshot)
        reference = self._world.reference
        for partition, end in enumerate(after):
            state, counts = states.get(partition, FoldState()), reference.count(partition, end)
            have = state.accepted, state.duplicate, state.dead
            dead = have[2] - counts[2]
            either = 0 <= dead <= self._undecided(partition, end) and sum(have) == sum(counts)
            right = have == counts or (either and have[0] == counts[0])
            require(right, "counters", partition, have, counts)
            want = reference.seen(partition, end)
            require(set(state.seen) == set(want), "instruments seen", partition)
            for instrument, (ids, newest, reused_us) in want.items():
                seen = state.seen[instrument]
                require(seen.reused_us == reused_us, "ids used again", instrument, reused_us)
                require(seen.time_max_us == newest, "newest time", instrument)
                expanded = [range(first, last + 1) for first, last in seen.intervals.tolist()]
                exact = {one for each in expanded for one in each} == ids
                apart = bool((np.diff(seen.intervals.ravel())[1::2] > 1).all())
                require(exact and apart, "ids seen", instrument)

    def _decided(self, before, after, rows):
        """Follow a commit in what became of records whose schema its writer could not ask for."""
        reference, have = self._world.reference, {row.place for row in rows}
        letters = self._places(Fault.UNKNOWN_SCHEMA) if reference.doubtful else set()
        for partition, (low, high) in enumerate(zip(before, after, strict=True)):
            for offset in reference.doubtful_between(partition, low, high):
                place = reference.epoch, partition, offset
                if place in letters - have and reference.row(partition, offset) is not None:
                    self._world.note("lake", f"decides that {place} is dead")
                    reference.decide(partition, offset)

    def _undecided(self, partition, end):
        """How many duplicates below an offset may have been dead to the writer that passed them."""
        reference = self._world.reference
        first = reference.partitions[partition].first
        offsets = reference.doubtful_between(partition, first, end)
        return sum(reference.row(partition, offset) is None for offset in offsets)

    def _places(self, *faults):
        """Of the letters of this topic, those of some faults where they are given."""
        return {
            (letter.epoch, letter.partition, letter.offset)
            for letter in self._world.tape.letters
            if letter.topic == self._world.tape.topic and (not faults or letter.fault in faults)
        }

    def _letters(self, before, after):
        letters = self._places()
        dead = self._world.reference.dead_between(before, after)
        require(dead <= letters, "passed without a dead letter", sorted(dead - letters)[:5])

    def read(self, locations):
        """All rows of some data files; each is read once, as long as its bytes are the same."""
        rows = []
        for location in locations:
            content = self._world.store.read(location)
            path = local_path(location)
            known = self._known.get(path)
            if known is None or known[0] is not content:
                table = pq.read_table(io.BytesIO(content), use_threads=False)
                known = self._known[path] = content, rows_of(table)
            rows += known[1]
        return rows

    # --- what is kept -----------------------------------------------------------------------------

    def keeps(self, snapshot_id):
        """Whether a snapshot is kept now; 0 is the empty lake."""
        metadata = self._head and self._head[0]
        return not snapshot_id or bool(metadata and metadata.snapshot_by_id(snapshot_id))

    def may_be_as_of(self, time_us, snapshot_id):
        """Whether it is the newest of a time, but for such as are kept no longer."""
        times = [one.committed_at_us for one in self.snapshots]
        for one in reversed(self.snapshots[: bisect_right(times, time_us)]):
            if one.snapshot_id == snapshot_id:
                return True
            if self.keeps(one.snapshot_id):
                return False
        return False

    def may_be_read(self, snapshot_id, until_s):
        """A query may read a snapshot's files until then, if the snapshot is kept now."""
        if snapshot_id and self.keeps(snapshot_id):
            metadata, _ = self._head
            manifests = metadata.snapshot_by_id(snapshot_id).manifests(self._files)
            files = {local_path(each) for one in manifests for each in self._files_of(one)}
            self._read_until = [one for one in self._read_until if one[0] >= self._now_s]
            self._read_until.append((until_s, files))

    def removes(self, path):
        """A file is about to go: nothing that is kept may name it, and no query read it."""
        require(path not in self.reachable(), "a file that a kept snapshot names goes", path)
        read = any(path in files for until_s, files in self._read_until if until_s >= self._now_s)
        require(not read, "a file that a query may read goes", path)

    @property
    def _now_s(self):
        return self._world.scheduler.now_s

    def reachable(self):
        """Paths of all that the table's newest metadata names, itself included."""
        if self._reachable is None and self._head is not None:
            metadata, location = self._head
            found = {location, *(entry.metadata_file for entry in metadata.metadata_log)}
            spoken = [metadata.properties]
            for snapshot in metadata.snapshots:
                spoken.append(snapshot.summary.additional_properties)
                found.add(snapshot.manifest_list)
                for manifest in snapshot.manifests(self._files):
                    found |= {manifest.manifest_path, *self._files_of(manifest)}
            for facts in map(summary_of, filter(None, spoken)):
                found |= {facts.state_path, facts.epochs.start_state} if facts else set()
            self._reachable = {local_path(one) for one in found if one}
        return self._reachable or set()

    def _files_of(self, manifest):
        """The data files that a manifest names; it never changes."""
        path = manifest.manifest_path
        if path not in self._entries:
            entries = manifest.fetch_manifest_entry(self._files, discard_deleted=True)
            self._entries[path] = [entry.data_file.file_path for entry in entries]
        return self._entries[path]

    def snapshot_reads_the_same(self, snapshot, files):
        """A snapshot holds what it held: the accepted rows below its positions that were kept."""
        held = self._world.reference.held(snapshot.positions)
        rows = self.read([file.path for file in files])
        same(rows, without(held, self.gone(snapshot.snapshot_id)))

    def no_letter_is_undue(self):
        """A record has a letter only if it is no row and no duplicate, and for the right fault."""
        for letter in self._world.tape.letters:
            if letter.topic == self._world.tape.topic:
                place = letter.epoch, letter.partition, letter.offset
                dead, reused = self._world.reference.dead, self._world.reference.reused
                doubtful = self._world.reference.doubtful
                if letter.fault is Fault.UNKNOWN_SCHEMA and place in doubtful:
                    continue  # a commit may have taken the record
                require(place in dead, "a letter of a good record", *place, letter.fault)
                right = (letter.fault is Fault.REUSED_ID) == (place in reused)
                require(right, "a letter of another fault", *place, letter.fault)

    def is_held_to_retention(self):
        """Whether the newest snapshot keeps what is due no longer, and older ones went with it."""
        if not self.newest:
            return True
        fits = self.newest.bytes_total <= self._world.swarm.bytes_max
        floors = [
            one.retained_from_us
            for one in self.snapshots
            if self.keeps(one.snapshot_id) and one.snapshot_id not in self.tagged
        ]
        return (fits or self.newest.files_total == 1) and set(floors) == {
            self.newest.retained_from_us
        }

    # --- answers ----------------------------------------------------------------------------------

    def answered(self, request, end, rows, provenance):
        """An answer was given; one that says what it lacks holds nothing undue, in order."""
        missing = provenance.missing
        if provenance.completeness is Completeness.COMPLETE:
            self._world.note("oracle", "is told that an answer is complete")
            self._is_complete(request, end)
        if self._world.reference.doubtful and not self._world.settled:
            self._answered_in_doubt(request, end, rows, missing)
        elif not missing:
            want = self._world.reference.answer(request, end)
            require(
                rows == want, "a wrong answer", request, end,
                f"{len(rows)} rows, {len(want)} expected",
                f"undue {sorted(set(rows) - set(want))[:3]}",
                f"missing {sorted(set(want) - set(rows))[:3]}",
            )  # fmt: skip
        else:
            self._answered_in_part(request, end, rows, provenance)

    def _is_complete(self, request, end):
        """An answer calls itself COMPLETE: no id is missing, nor was any used again before its end.

        A range that begins at some time may lie behind what is missing.
        """
        reference, times, symbols = self._world.reference, request.range, request.symbols
        for instrument, reused_us in reference.reused_below(end).items():
            past = times.end_us is None or times.end_us > reused_us
            wrong = past and (not symbols or instrument.symbol in symbols)
            require(not wrong, "COMPLETE with ids used again", request, end, instrument)
        if times.start_us is None and not reference.doubtful:
            holes = {one.symbol for one in reference.holes_below(end)}
            wrong = holes.intersection(symbols) if symbols else holes
            require(not wrong, "COMPLETE with ids missing", request, end, wrong)

    def _answered_in_doubt(self, request, end, rows, missing):
        """What a commit decides on is left aside; of all else nothing is undue, or missing unsaid.

        The tail may have judged those records otherwise than the commit that came or will come.
        """
        apart = self._world.reference.doubtful_trades
        whole = self._world.reference.answer(replace(request, limit=None), end)
        want = [row for row in whole if identity_of(row) not in apart]
        have = [row for row in rows if identity_of(row) not in apart]
        if missing:
            given = set(have)
            want = [row for row in want if row in given]
        cut = request.limit is not None and len(rows) >= request.limit
        right = have == want[: len(have)] if cut else have == want
        require(
            right, "a wrong answer", request, end,
            f"undue {sorted(set(have) - set(want))[:3]}",
            f"missing {sorted(set(want) - set(have))[:3]}",
        )  # fmt: skip

    def _answered_in_part(self, request, end, rows, provenance):
        """An answer that says what it lacks holds nothing undue, in order."""
        missing = provenance.missing
        whole, given = self._world.reference.answer(replace(request, limit=None), end), set(rows)
        partial = given <= set(whole) and len(given) == len(rows)
        require(partial, "a wrong partial answer", request, end, missing)
        require(rows == [row for row in whole if row in given], "out of order", request)
        if not lacks_more_than_old_rows(missing):
            gone = self.gone(provenance.snapshot_id)
            due = [row for row in whole if row.place not in gone or row in given]
            require(rows == due[: request.limit], "an answer lacks more than it says", request, end)


def lacks_more_than_old_rows(missing):
    """Whether an answer lacks anything but what retention removed."""
    return any(one.part != "retention" for one in missing)


def without(rows, places):
    """Those of other places."""
    return {place: row for place, row in rows.items() if place not in places} if places else rows


def same(rows, want):
    """These rows, each once."""
    have = {row.place: row for row in rows}
    require(len(have) == len(rows), "doubled", len(rows) - len(have))
    missing, undue = want.keys() - have.keys(), have.keys() - want.keys()
    require(not missing, "lost", len(missing), sorted(missing)[:5])
    require(not undue, "undue", len(undue), sorted(undue)[:5])
    require(have == want, "changed", [place for place in want if have[place] != want[place]][:5])
