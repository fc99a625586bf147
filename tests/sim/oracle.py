"""What must be true: after every commit, after every answer, and when all has calmed down.

After a commit, wherever it came from and whatever its writer was told: it adds to its parent's rows
exactly the accepted ones between its parent's positions and its own, publishes the counters and the
fold's state of just there, comes later than its parent, and every record it passes that is no row
has its dead letter acknowledged already. By induction every snapshot is exact. A commit of
maintenance holds its parent's rows and says of the tape what its parent said; what it dropped is no
longer kept, and whatever a kept snapshot names must stay on disk.
"""

import io
from bisect import bisect_right
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
from pyiceberg.table.snapshots import Operation

from k2.lake.catalog import local_path
from k2.lake.snapshot import carried, current_of, read_states
from k2.market.fold import FoldState
from tests.sim.reference import rows_of
from tests.sim.store import Files


class Violation(BaseException):
    """K2 broke a guarantee, or the simulation is wrong.

    No `Exception`: it is raised in the midst of K2, which lives through those.
    """


def require(true, what, *details):
    if not true:
        raise Violation(f"{what}: {', '.join(map(str, details))}")


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
        self._head = self._reachable = None
        self.found = None
        self.snapshots = []
        self.tagged = set()

    @property
    def positions(self):
        """Of the newest snapshot."""
        zero = (0,) * len(self._world.tape.logs)
        return self.snapshots[-1].positions.offsets if self.snapshots else zero

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
        snapshot, before = current_of(metadata), self.positions
        kept = {one.snapshot_id for one in metadata.snapshots}
        require(self.tagged <= kept, "a tagged snapshot was dropped", self.tagged - kept)
        after = snapshot.positions.offsets
        if self.snapshots:
            parent = self.snapshots[-1]
            if snapshot.snapshot_id == parent.snapshot_id:
                return  # other metadata changed
            require(snapshot.parent_id == parent.snapshot_id, "a commit is not on the head")
            require(snapshot.committed_at_us > parent.committed_at_us, "commit times go back")
            if snapshot.operation != Operation.APPEND.value:
                self._says_the_same(snapshot, parent)
        moved = all(high >= low for low, high in zip(before, after, strict=True))
        require(moved, "positions moved back", before, after)
        self._rows(metadata.current_snapshot(), before, after)
        self._published(snapshot, after)
        self._letters(before, after)
        rows = sum(accepted for accepted, _, _ in snapshot.counters.values())
        require(snapshot.rows_total == rows, "rows in the summary", snapshot.rows_total, rows)
        self.snapshots.append(snapshot)
        self._world.note("lake", f"holds {after} by {snapshot.operation}")

    def _says_the_same(self, snapshot, parent):
        """Maintenance says of the tape what its parent says."""
        for name in ("positions", "counters", "state_path", "epochs", "floor_us"):
            have, had = getattr(snapshot, name), getattr(parent, name)
            require(have == had, f"maintenance changes {name}", had, have)

    def _rows(self, head, before, after):
        """An append adds the rows between; whatever rewrites files must hold all of them."""
        appends = head.summary.operation is Operation.APPEND
        manifests = head.manifests(self._files)
        if appends:
            manifests = [one for one in manifests if one.added_snapshot_id == head.snapshot_id]
        entries = [
            entry
            for manifest in manifests
            for entry in manifest.fetch_manifest_entry(self._files)
            if not appends or entry.snapshot_id == head.snapshot_id
        ]
        start = before if appends else (0,) * len(after)
        want = self._world.reference.accepted(start, after)
        same(self.read([entry.data_file.file_path for entry in entries]), want)

    def _published(self, snapshot, after):
        states = read_states(self._files, snapshot)
        reference = self._world.reference
        for partition, end in enumerate(after):
            state, counts = states.get(partition, FoldState()), reference.count(partition, end)
            have = state.accepted, state.duplicate, state.dead
            require(have == counts, "counters", partition, have, counts)
            want = reference.seen(partition, end)
            require(set(state.seen) == set(want), "instruments seen", partition)
            for instrument, (ids, newest) in want.items():
                seen = state.seen[instrument]
                require(seen.time_max_us == newest, "newest time", instrument)
                expanded = [range(first, last + 1) for first, last in seen.intervals.tolist()]
                exact = {one for each in expanded for one in each} == ids
                apart = bool((np.diff(seen.intervals.ravel())[1::2] > 1).all())
                require(exact and apart, "ids seen", instrument)

    def _letters(self, before, after):
        letters = {
            (letter.partition, letter.offset)
            for letter in self._world.tape.letters
            if letter.topic == self._world.tape.topic
        }
        dead = self._world.reference.dead(before, after)
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

    def removes(self, path):
        """A file is about to go: nothing that is kept may name it."""
        require(path not in self.reachable(), "a file that a kept snapshot names goes", path)

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
            for facts in map(carried, filter(None, spoken)):
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
        """A snapshot holds what it held: the accepted rows below its positions."""
        zero = (0,) * len(self._world.tape.logs)
        want = self._world.reference.accepted(zero, snapshot.positions.offsets)
        same(self.read([file.path for file in files]), want)

    def no_letter_is_undue(self):
        """A record has a letter only if it is no row and no duplicate."""
        dead = self._world.reference.dead((0,) * len(self.positions), self._world.reference.ends())
        for letter in self._world.tape.letters:
            if letter.topic == self._world.tape.topic:
                place = letter.partition, letter.offset
                require(place in dead, "a letter of a good record", place, letter.fault)

    # --- answers ----------------------------------------------------------------------------------

    def answered(self, request, end, rows, missing):
        """An answer was given; one that says what it lacks holds nothing undue, in order."""
        if missing:
            limited = replace(request, limit=None)
            whole = self._world.reference.answer(limited, end)
            given = set(rows)
            partial = given <= set(whole) and len(given) == len(rows)
            require(partial, "a wrong partial answer", request, end, missing)
            require(rows == [row for row in whole if row in given], "out of order", request)
            return
        want = self._world.reference.answer(request, end)
        require(
            rows == want, "a wrong answer", request, end,
            f"{len(rows)} rows, {len(want)} expected",
            f"undue {sorted(set(rows) - set(want))[:3]}",
            f"missing {sorted(set(want) - set(rows))[:3]}",
        )  # fmt: skip


def same(rows, want):
    """These rows, each once."""
    have = {(row.partition, row.offset): row for row in rows}
    require(len(have) == len(rows), "doubled", len(rows) - len(have))
    missing, undue = want.keys() - have.keys(), have.keys() - want.keys()
    require(not missing, "lost", len(missing), sorted(missing)[:5])
    require(not undue, "undue", len(undue), sorted(undue)[:5])
    require(have == want, "changed", [place for place in want if have[place] != want[place]][:5])
