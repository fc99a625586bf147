"""Commits of maintenance: they change no row, and keep the tape positions of their parent.

Such a commit may be made beside the writer, in its process or another: the compare-and-swap lets
one of two win, and the other tries again on the new head. In the writer's own process it waits
until the writer has committed, and hands it the new head, so that neither loses work to the other.

A commit of this kind that changes no file is a *fence* (`orphan_files.py`): whatever was prepared
on a head before it can no longer be committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot

from k2 import limits
from k2.clock import Clock
from k2.errors import K2Error
from k2.lake.commit.committer import Store, TradeStore
from k2.lake.commit.snapshot_commit import RewriteFiles, TableCatalog, load_ours, replace
from k2.lake.iceberg.catalog import reaching_lake, retry_conflicts
from k2.lake.iceberg.snapshot import CommitSummary, ancestors_of, current_of

Plan = Callable[[Table, CommitSummary], RewriteFiles | None]
Excluding = Callable[[], AbstractContextManager[Callable[[Table], None]]]

log = logging.getLogger(__name__)


@contextmanager
def no_exclusion() -> Iterator[Callable[[Table], None]]:
    """Exclude no writer: there is none in this process."""
    yield lambda table: None


class MaintenanceCommitter:
    """Commits for one maintainer of one table. One thread.

    Args:
        catalog: of the lake.
        clock: of commit times.
        maintainer_id: unique among writers and maintainers; leads the names of its files.
        excluding: keeps the writer of this process from committing (`Committer.excluded`).
        store: of the table; the trades' by default.
    """

    def __init__(
        self,
        *,
        catalog: TableCatalog,
        clock: Clock,
        maintainer_id: str,
        excluding: Excluding = no_exclusion,
        store: Store | None = None,
    ) -> None:
        self.store: Store = store or TradeStore()
        self._catalog = catalog
        self._clock = clock
        self._id = maintainer_id
        self._excluding = excluding
        self._names = 0

    def name(self) -> str:
        """Return an unused name."""
        self._names += 1
        return f"{self._id}-{self._names}"

    def load(self) -> Table:
        """Load the table as it is now.

        Raises:
            Unavailable: LAKE_UNAVAILABLE. Data: LAKE_CORRUPT.
        """
        return load_ours(self._catalog, self.store.layout)

    def commit(self, plan: Plan) -> Table | None:
        """Commit what `plan` makes of the head; it is called again when another commit came first.

        Args:
            plan: gets the table and the summary of a commit on it; returns None for no commit.

        Returns:
            The table after the commit; None when there was none to make.

        Raises:
            Unavailable: LAKE_UNAVAILABLE. Overloaded: DISK_FULL. Data: LAKE_CORRUPT.
        """
        name = self.name()

        def attempt(_: int) -> Table | None:
            with self._excluding() as on_commit, reaching_lake():
                table = self.load()
                head = current_of(table.metadata)
                change = plan(table, head.carry_over(self._id, name)) if head else None
                if change is None:
                    return None
                after = replace(self._catalog, table, change, self._clock.now_us())
                on_commit(after)
                return after

        return retry_conflicts(attempt, limits.COMMIT_RETRY_MAX_S)


def is_fence(snapshot: Snapshot) -> bool:
    """Return whether a snapshot is a commit of maintenance that changed no file."""
    summary = snapshot.summary
    return (
        summary is not None
        and summary.operation is Operation.REPLACE
        and "added-data-files" not in summary.additional_properties
    )


def unfenced(metadata: TableMetadata, since_id: int) -> bool:
    """Return whether files made when the head was `since_id` may be committed on this head."""
    for ancestor in ancestors_of(metadata, metadata.current_snapshot()):
        if ancestor.snapshot_id == since_id:
            return True
        if is_fence(ancestor):
            return False
    return False


def succeeds(task: str, work: Callable[[], object]) -> bool:
    """Run a step of a maintenance loop; logs its error, and returns whether there was none."""
    try:
        work()
    except K2Error as error:
        log.warning("%s: %s", task, error.message, extra={"reason": error.reason})
    except Exception:
        log.exception("%s failed", task)
    else:
        return True
    return False
