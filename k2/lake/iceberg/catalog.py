"""The catalog and durable access to the warehouse's files.

The catalog names the newest metadata of each table. Everything that metadata names must survive a
power loss before the catalog names the metadata, so files of a local warehouse are synced when they
are closed, and so are the directories above them (pyiceberg syncs nothing). SQLite runs in WAL with
full synchronisation: a commit that it has acknowledged is on disk. Object stores are durable by
themselves.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias, TypeVar

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties
from sqlalchemy import URL, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from k2 import limits
from k2.clock import Clock
from k2.errors import Invalid, K2Error, Overloaded, Reason, Unavailable
from k2.settings import Settings

Catalog: TypeAlias = SqlCatalog
T = TypeVar("T")

CATALOG_NAME = "k2"
CLOCK = "k2.clock"  # catalog property that hands the clock to the file access
_FILE_IO = "k2.lake.iceberg.retrying_io.RetryingFileIO"
_LOCAL = "file://"
_OPEN_ATTEMPTS = 5
_PRIMARY = 0xFF  # of SQLite's extended codes of errors
# SQLite reports the second where the index of the WAL cannot grow.
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_log = logging.getLogger(__name__)


def open_catalog(settings: Settings, clock: Clock) -> SqlCatalog:
    """Open the catalog that `settings` name; its own tables and folders are made when absent.

    Args:
        settings: say which, and where its warehouse is.
        clock: waits before an operation on a file is tried again.

    Raises:
        Invalid: BAD_SETTING for a kind of catalog that K2 does not speak.
        Unavailable: LAKE_UNAVAILABLE when it cannot be reached.
    """
    logging.getLogger("pyiceberg.io").setLevel(logging.WARNING)  # else it logs every read
    uri = settings.catalog_uri
    if not uri.startswith(("sqlite:///", "postgresql")):
        raise Invalid(Reason.BAD_SETTING, f"no such catalog: {uri}; K2 speaks sqlite, postgresql")
    files: dict[str, Any] = {"py-io-impl": _FILE_IO, CLOCK: clock}
    with reaching_lake():
        if uri.startswith("sqlite:///"):
            path = uri.removeprefix("sqlite:///")
            _prepare_sqlite(Path(path))
            quoted = URL.create(
                "sqlite", database=path, query={"timeout": f"{limits.CATALOG_BUSY_S:g}"}
            )
            uri = quoted.render_as_string()
        for attempt in range(1, _OPEN_ATTEMPTS + 1):
            try:
                return _reopening(
                    SqlCatalog(
                        CATALOG_NAME,
                        uri=uri,
                        warehouse=settings.warehouse,
                        schema_version="v1",
                        **files,
                    )
                )
            except SQLAlchemyError:  # two processes made the catalog's own tables at once
                if attempt == _OPEN_ATTEMPTS:
                    raise
    raise AssertionError("the loop returns or raises")


def _reopening(catalog: SqlCatalog) -> SqlCatalog:
    """Make the catalog discard a connection that met an error of its file.

    A connection that SQLite opened while the folder was not writable would stay read-only.
    """

    def judge(context: ExceptionContext) -> None:
        code = getattr(context.original_exception, "sqlite_errorcode", 0)
        if code & _PRIMARY in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
            context.is_disconnect = True

    event.listen(catalog.engine, "handle_error", judge)
    return catalog


@contextmanager
def reaching_lake() -> Iterator[None]:
    """Turn errors of the catalog and the warehouse into K2's errors.

    Raises:
        Overloaded: DISK_FULL.
        Unavailable: LAKE_UNAVAILABLE for any other failure to reach them.
    """
    try:
        yield
    except (K2Error, CommitFailedException):
        raise
    except (OSError, SQLAlchemyError, sqlite3.Error) as error:
        if _is_full(error):
            raise Overloaded(Reason.DISK_FULL, f"the lake's disk is full: {error}") from error
        raise Unavailable(
            Reason.LAKE_UNAVAILABLE, f"the lake cannot be reached: {error}", retry_after_s=1.0
        ) from error


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlite_errorcode", None) in _NO_ROOM


class Conflict(Exception):
    """Another commit came first; the commit that the message names did not land."""


def retry_conflicts(
    attempt: Callable[[int], T], retry_after_s: float = limits.COMMIT_RETRY_MIN_S
) -> T:
    """Run an attempt to commit until no other commit comes first; returns its result.

    Args:
        attempt: reads the head again and commits on it; it gets its number, from 1 on.
        retry_after_s: of the error that is raised when every attempt was overtaken.

    Raises:
        Unavailable: LAKE_UNAVAILABLE after `limits.COMMIT_ATTEMPTS_MAX` conflicts.
    """
    for number in range(1, limits.COMMIT_ATTEMPTS_MAX + 1):
        try:
            return attempt(number)
        except Conflict as conflict:
            _log.info("another commit came before %s", conflict)
    raise Unavailable(
        Reason.LAKE_UNAVAILABLE,
        f"{limits.COMMIT_ATTEMPTS_MAX} commits in a row were overtaken by other writers",
        retry_after_s=retry_after_s,
    )


def metadata_location(catalog: SqlCatalog, identifier: Identifier) -> str | None:
    """Look up the table's newest metadata file; None when there is no table. Cheap to poll."""
    with reaching_lake(), catalog.engine.connect() as connection:
        row = connection.execute(
            _LOCATION, {"c": catalog.name, "n": ".".join(identifier[:-1]), "t": identifier[-1]}
        ).first()
    return str(row[0]) if row else None


_LOCATION = text(
    "SELECT metadata_location FROM iceberg_tables"
    " WHERE catalog_name = :c AND table_namespace = :n AND table_name = :t"
)


def _prepare_sqlite(path: Path) -> None:
    """Make the database file in WAL mode, which the file keeps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=limits.CATALOG_BUSY_S)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    sync_directory(str(path.parent))
    _sync_ancestors(str(path.parent))


# --- files ---------------------------------------------------------------------------------------


def sync_directory(path: str) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class DurableFileIO(PyArrowFileIO):
    """pyiceberg's file access; a write to a local file is durable when its stream is closed."""

    @staticmethod
    def parse_location(location: str, properties: Properties = EMPTY_DICT) -> tuple[str, str, str]:
        """Split a location; after `file://` comes a path as it is, with `#`, `?` and `%`."""
        if location.startswith(_LOCAL):
            return "file", "", local_path(location)
        return PyArrowFileIO.parse_location(location, properties)

    def new_output(self, location: str) -> PyArrowFile:
        """Return a file to write, whose local stream syncs on close."""
        output = super().new_output(location)
        scheme, _, path = self.parse_location(location, self.properties)
        if scheme != "file":
            return output
        return DurableFile(location, path, self.fs_by_scheme(scheme, ""))


class DurableFile(PyArrowFile):
    """A local file whose `create` returns a stream that syncs on close."""

    def create(self, overwrite: bool = False) -> OutputStream:
        """Create the file; without `overwrite` it must not exist."""
        return SyncedStream(self._path, overwrite=overwrite)


class ClosedStream(ABC):
    """An `OutputStream` whose `with` block closes it, also after an error."""

    @abstractmethod
    def close(self) -> None:
        """Make durable what was written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SyncedStream(ClosedStream):
    """Writes a local file; after close, the file and every directory above it are durable."""

    def __init__(self, path: str, *, overwrite: bool) -> None:
        self._path = path
        self._directory = os.path.dirname(path)
        self._new = not os.path.exists(path)
        os.makedirs(self._directory, exist_ok=True)
        self._file: BinaryIO = open(path, "wb" if overwrite else "xb")  # noqa: SIM115 closed by close

    def write(self, b: bytes) -> int:
        """Write bytes; returns how many."""
        with self._whole_or_gone():
            return self._file.write(b)

    def tell(self) -> int:
        """Return the position, bytes."""
        return self._file.tell()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._file.closed

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Sync the file, then its directory."""
        if self._file.closed:
            return
        with self._whole_or_gone():
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        sync_directory(self._directory)
        _sync_ancestors(self._directory)

    @contextmanager
    def _whole_or_gone(self) -> Iterator[None]:
        """Remove a new file that cannot be written whole: retries would fill a full disk."""
        try:
            yield
        except OSError:
            with suppress(OSError):  # it flushes once more
                self._file.close()
            if self._new:
                with suppress(OSError):
                    os.unlink(self._path)
            raise


@cache
def _sync_ancestors(directory: str) -> None:
    """Sync the directories above one, once a process: the process that made them may have died.

    A directory that this user may not write is skipped: this user cannot have made an entry in it.
    """
    parent = os.path.dirname(directory)
    if parent != directory and os.access(parent, os.W_OK):
        sync_directory(parent)
        _sync_ancestors(parent)


def write_file(output: OutputFile, content: bytes | memoryview) -> None:
    """Write a whole new file and make it durable."""
    with output.create() as stream:
        stream.write(content)  # type: ignore[arg-type]  # any buffer will do


def local_path(location: str) -> str:
    """Return a `file:` location as a path; any other location as it is."""
    return location.removeprefix(_LOCAL)
