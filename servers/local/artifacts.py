"""Fetches the artefacts of the embedded stack: Kafka's jars and the registry, as pinned.

Each file is named by its coordinate, checked against its SHA-256 and kept once per user, outside
every data directory, under the name of its checksum. A file appears there whole and checked or not
at all; one that is there is not fetched again, so an interrupted fetch goes on where it stopped.
Several processes may fetch at once: one does, the others wait for it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib
import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from k2 import limits
from k2.clock import Clock
from k2.errors import Data, Invalid, K2Error, Overloaded, Reason, Unavailable
from k2.shipped_files import shipped_file

LOCK_FILE = shipped_file("artifacts.lock")

Progress = Callable[[str, int, int], None]
"""Called with (what, bytes done, bytes in all) while artefacts are fetched, from several threads.

It may give up the fetch by raising DRAINING; what has arrived is kept.
"""


@dataclass(frozen=True)
class Artifact:
    """One pinned file.

    Attributes:
        group: which component needs it: kafka or registry.
        coordinate: group:artifact:version[:classifier]:packaging.
        sha256: of its bytes, in hexadecimal.
        size: in bytes.
    """

    group: str
    coordinate: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        """As Maven names it."""
        _, artifact, version, *rest = self.coordinate.split(":")
        return f"{'-'.join([artifact, version, *rest[:-1]])}.{rest[-1]}"


class Fetch(Protocol):
    """Downloads one coordinate into a folder; see `servers.local.maven.fetch`."""

    def __call__(self, coordinate: str, folder: Path, report: Callable[[int], None]) -> Path:
        """Download one file; returns its path."""
        ...


def read_lock(path: Path = LOCK_FILE) -> list[Artifact]:
    """Read the artefacts that `artifacts.lock` pins.

    Raises:
        Invalid: BAD_SETTING, naming the line that is not understood.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise Invalid(Reason.BAD_SETTING, f"artifacts.lock cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or line.startswith("#"):
            continue
        if len(fields) != 4 or len(fields[2]) != 64 or not fields[3].isdigit():
            raise Invalid(Reason.BAD_SETTING, f"{path}, line {number}: {line!r} is not understood")
        found.append(Artifact(fields[0], fields[1], fields[2], int(fields[3])))
    return found


class Artifacts:
    """The artefacts a user has, and how to get those that are missing.

    Args:
        cache_dir: the user's cache.
        clock: for the pauses between tries.
        lock: what is pinned; None reads `artifacts.lock`.
        fetch: how a file is downloaded; None takes Maven's public repository.
    """

    def __init__(
        self,
        cache_dir: Path,
        clock: Clock,
        lock: list[Artifact] | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self._root = cache_dir.expanduser() / "artifacts"
        self._clock = clock
        self._lock = read_lock() if lock is None else lock
        self._fetch = fetch

    def jars(self, group: str) -> list[Path]:
        """List the files of a group; call `ensure` first."""
        return [self._path(artifact) for artifact in self._of(group)]

    def unpacked(self, group: str) -> Path:
        """Return the folder of a group's unpacked archive; call `ensure` first."""
        (archive,) = self._of(group)
        return self._folder(archive)

    def missing(self) -> list[Artifact]:
        """List the artefacts to fetch; compares sizes, not contents."""
        return [artifact for artifact in self._lock if not self._is_here(artifact)]

    def ensure(self, progress: Progress) -> None:
        """Have every artefact, checked and unpacked; a cache that lacks nothing is not written to.

        Raises:
            Unavailable: PEER_UNAVAILABLE when the repository cannot be reached after several tries.
            Data: CHECKSUM_MISMATCH when it answers other bytes than were pinned.
            Overloaded: DISK_FULL.
            Invalid: NOT_WRITABLE.
        """
        try:
            with ExitStack() as held:
                try:
                    self._root.mkdir(parents=True, exist_ok=True)
                    waiting = partial(progress, "waiting for another fetch", 0, 0)
                    held.enter_context(self._exclusively(waiting))
                except OSError as error:
                    self._accept_unlocked(error)
                    return
                self._drop_damaged()
                self._fetch_missing(progress)
                for artifact in self._lock:
                    if _is_archive(artifact):
                        self._unpack(artifact, progress)
        except OSError as error:
            raise _refused_by_disk(error, self._root) from error

    @contextmanager
    def _exclusively(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the cache; the operating system gives it back if this process dies."""
        with (self._root / "lock").open("w") as file:
            while not _locked(file.fileno()):
                waiting()
                self._clock.sleep(limits.FETCH_POLL_S)
            yield

    def _accept_unlocked(self, error: OSError) -> None:
        """Do with a cache that cannot be written to, as long as nothing has to be.

        Raises:
            Invalid: NOT_WRITABLE, naming what is missing.
            Overloaded: DISK_FULL.
        """
        lacking = [artifact.filename for artifact in self._lock if not self._is_sound(artifact)]
        if lacking:
            raise _refused_by_disk(
                error,
                self._root,
                f"; {lacking[0]} is missing there, and {len(lacking) - 1} more: let it be written "
                "to, or set K2_CACHE_DIR to a folder that can be",
            ) from error

    # --- fetching -------------------------------------------------------------------------------

    def _of(self, group: str) -> list[Artifact]:
        return [artifact for artifact in self._lock if artifact.group == group]

    def _path(self, artifact: Artifact) -> Path:
        return self._root / artifact.sha256 / artifact.filename

    def _folder(self, artifact: Artifact) -> Path:
        return self._root / "unpacked" / artifact.sha256

    def _is_here(self, artifact: Artifact) -> bool:
        if _is_archive(artifact) and _is_whole(self._folder(artifact)):
            return True
        path = self._path(artifact)
        return path.is_file() and path.stat().st_size == artifact.size

    def _is_sound(self, artifact: Artifact) -> bool:
        """Whether it can be used as it is: unpacked, or of the bytes that were pinned."""
        if _is_archive(artifact):
            return _is_whole(self._folder(artifact))
        return self._is_here(artifact) and sha256_of(self._path(artifact)) == artifact.sha256

    def _drop_damaged(self) -> None:
        """Remove files whose content is not what was pinned."""
        for artifact in self._lock:
            path = self._path(artifact)
            if path.exists() and sha256_of(path) != artifact.sha256:
                path.unlink()

    def _fetch_missing(self, progress: Progress) -> None:
        missing = self.missing()
        if not missing:
            return
        count = _Count(sum(artifact.size for artifact in missing), progress)
        scratch = self._root / "partial"
        shutil.rmtree(scratch, ignore_errors=True)
        fetch = self._fetch or importlib.import_module("servers.local.maven").fetch
        with ThreadPoolExecutor(limits.FETCHES_AT_ONCE) as pool:
            jobs = [pool.submit(self._fetch_one, one, scratch, fetch, count) for one in missing]
            try:
                for job in jobs:
                    job.result()
            finally:
                for job in jobs:
                    job.cancel()
        shutil.rmtree(scratch, ignore_errors=True)

    def _fetch_one(self, artifact: Artifact, scratch: Path, fetch: Fetch, count: _Count) -> None:
        folder = scratch / artifact.sha256
        for attempt in range(1, limits.FETCH_ATTEMPTS_MAX + 1):
            try:
                self._place(artifact, fetch(artifact.coordinate, folder, count.of(artifact)))
                return
            except K2Error as error:
                if attempt == limits.FETCH_ATTEMPTS_MAX or error.reason is Reason.DRAINING:
                    raise
            except (OSError, RuntimeError) as error:
                if attempt == limits.FETCH_ATTEMPTS_MAX or _is_disk(error):
                    raise _not_fetched(artifact, error) from error
            count.again(artifact)
            self._clock.sleep(limits.FETCH_PAUSE_S * attempt)

    def _place(self, artifact: Artifact, fetched: Path) -> None:
        found = sha256_of(fetched)
        if found != artifact.sha256:
            fetched.unlink()
            raise Data(
                Reason.CHECKSUM_MISMATCH,
                f"{artifact.coordinate} has the SHA-256 {found}, artifacts.lock says "
                f"{artifact.sha256}: it was changed on the way, or at its source",
                metadata={"coordinate": artifact.coordinate},
            )
        self._path(artifact).parent.mkdir(parents=True, exist_ok=True)
        fetched.rename(self._path(artifact))

    # --- unpacking ------------------------------------------------------------------------------

    def _unpack(self, artifact: Artifact, progress: Progress) -> None:
        target = self._folder(artifact)
        if _is_whole(target):
            return
        shutil.rmtree(target, ignore_errors=True)
        progress(f"unpacking {artifact.filename}", 0, 0)
        scratch = target.with_name(f"{target.name}.partial")
        shutil.rmtree(scratch, ignore_errors=True)
        with tarfile.open(self._path(artifact)) as archive:
            archive.extractall(scratch, filter="data")
        (scratch / _COMPLETE).write_text(_shape_of(scratch))
        scratch.rename(target)
        shutil.rmtree(self._path(artifact).parent)


_COMPLETE = ".complete"


class _Count:
    """Bytes that have arrived over all files, from several threads."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done: dict[str, int] = {}

    def of(self, artifact: Artifact) -> Callable[[int], None]:
        """Make the function that counts the bytes of one file as they arrive."""

        def add(arrived: int) -> None:
            self._done[artifact.sha256] = self._done.get(artifact.sha256, 0) + arrived
            self._progress(artifact.filename, sum(list(self._done.values())), self._total)

        return add

    def again(self, artifact: Artifact) -> None:
        """Start a file from its beginning."""
        self._done[artifact.sha256] = 0


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_archive(artifact: Artifact) -> bool:
    return artifact.filename.endswith(".tar.gz")


def _is_whole(folder: Path) -> bool:
    try:
        return (folder / _COMPLETE).read_text() == _shape_of(folder)
    except FileNotFoundError:
        return False


def _shape_of(folder: Path) -> str:
    """Count the files and bytes under a folder."""
    sizes = [
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name != _COMPLETE
    ]
    return f"{len(sizes)} files, {sum(sizes)} bytes\n"


_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def _is_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _DISK_FULL | _READ_ONLY


def _not_fetched(artifact: Artifact, error: Exception) -> K2Error:
    if isinstance(error, OSError) and _is_disk(error):
        return _refused_by_disk(error, Path(artifact.filename))
    return Unavailable(
        Reason.PEER_UNAVAILABLE,
        f"{artifact.coordinate} could not be fetched in {limits.FETCH_ATTEMPTS_MAX} tries: {error}",
        metadata={"coordinate": artifact.coordinate},
    )


def _refused_by_disk(error: OSError, path: Path, more: str = "") -> K2Error:
    if error.errno in _DISK_FULL:
        return Overloaded(Reason.DISK_FULL, f"no space left for artefacts in {path}{more}")
    return Invalid(Reason.NOT_WRITABLE, f"artefacts cannot be kept in {path}: {error}{more}")
