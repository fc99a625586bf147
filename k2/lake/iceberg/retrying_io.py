"""File access that retries an operation while its error may be transient.

A commit is some twenty file operations, and all of them must succeed: with a store that fails three
in ten, nearly every commit would fail. Each operation is therefore retried by itself, a bounded
number of times (`limits.FILE_ATTEMPTS_MAX`). Only transient errors are retried: timeouts and errors
of the device or the network. A full disk, a missing file and a lack of rights are raised at once.

A write is retried as a whole, because the content of a file after a failed sync is unknown, and the
reply may have been lost after the last byte. The first attempt that creates the file owns its name,
so later attempts overwrite it, always with the same bytes; a file that another process made is
still refused, unless the caller allows overwriting.
"""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Callable
from typing import TypeAlias, cast

import pyarrow as pa
from pyarrow.fs import FileSystem
from pyiceberg.io import InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.io.pyarrow import PyArrowFile
from pyiceberg.typedef import Properties
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

from k2 import limits
from k2.clock import Clock
from k2.lake.iceberg.catalog import CLOCK, ClosedStream, DurableFileIO

_log = logging.getLogger(__name__)

_PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)

_Tries: TypeAlias = Callable[[], Retrying]


class RetryingFileIO(DurableFileIO):
    """`DurableFileIO` with retried operations.

    Args:
        properties: of the catalog, which makes this; `CLOCK` among them waits between two tries.
    """

    def __init__(self, properties: Properties) -> None:
        super().__init__(properties)
        self._clock: Clock = properties[CLOCK]

    def new_input(self, location: str) -> PyArrowFile:
        """Return a file to read."""
        return self._retrying(location, super().new_input)

    def new_output(self, location: str) -> PyArrowFile:
        """Return a file to write."""
        return self._retrying(location, super().new_output)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete a file. A retry finds it gone where only the reply of an earlier try was lost."""
        for attempt in self._tries():
            with attempt:
                try:
                    super().delete(location)
                except FileNotFoundError:
                    if attempt.retry_state.attempt_number == 1:
                        raise

    def _retrying(self, location: str, file_of: Callable[[str], PyArrowFile]) -> RetryingFile:
        scheme, host, path = self.parse_location(location, self.properties)
        system = self.fs_by_scheme(scheme, host)
        return RetryingFile(location, path, system, file_of, self._tries)

    def _tries(self) -> Retrying:
        return Retrying(
            stop=stop_after_attempt(limits.FILE_ATTEMPTS_MAX),
            wait=wait_exponential(multiplier=limits.FILE_RETRY_S),
            retry=retry_if_exception(is_transient),
            sleep=self._clock.sleep,
            before_sleep=before_sleep_log(_log, logging.INFO),
            reraise=True,
        )


def is_transient(error: BaseException) -> bool:
    """Return whether the same file operation may succeed a moment later."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


class RetryingFile(PyArrowFile):
    """A file with retried operations.

    Args:
        location: its URI.
        path: the same, as `system` names it.
        system: where it is.
        once: makes the file whose operations run once; called for each try.
        tries: of one operation.
    """

    def __init__(
        self,
        location: str,
        path: str,
        system: FileSystem,
        once: Callable[[str], PyArrowFile],
        tries: _Tries,
    ) -> None:
        super().__init__(location, path, system)
        self._once = once
        self._tries = tries

    def __len__(self) -> int:
        """Return the size, bytes."""
        return self._tries()(lambda: len(self._once(self.location)))

    def exists(self) -> bool:
        """Return whether the file exists."""
        return self._tries()(lambda: self._once(self.location).exists())

    def open(self, seekable: bool = True) -> InputStream:
        """Open the file for reading. A small file is read whole: its stream cannot fail later."""
        return self._tries()(self._open, seekable)

    def _open(self, seekable: bool) -> InputStream:
        stream = cast("pa.NativeFile", self._once(self.location).open(seekable))
        if seekable and stream.size() <= limits.FILE_READ_WHOLE_BYTES:
            with stream:
                stream = pa.BufferReader(stream.read_buffer())
        return cast("InputStream", stream)

    def create(self, overwrite: bool = False) -> OutputStream:
        """Create the file; without `overwrite` it must not exist."""
        first = self._tries()(self._create, overwrite)
        return RetryingStream(first, lambda: self._create(True), self._tries)

    def _create(self, overwrite: bool) -> OutputStream:
        return self._once(self.location).create(overwrite)


class RetryingStream(ClosedStream):
    """Buffers what is written; closing it writes all of it, and retries that as a whole.

    Args:
        first: the stream that created the file, which reserves its name.
        again: opens the file once more, empty.
        tries: of writing it.
    """

    def __init__(
        self, first: OutputStream, again: Callable[[], OutputStream], tries: _Tries
    ) -> None:
        self._first: OutputStream | None = first
        self._again = again
        self._tries = tries
        self._content = io.BytesIO()

    def write(self, b: bytes) -> int:
        """Buffer bytes; returns how many."""
        return self._content.write(b)

    def tell(self) -> int:
        """Return the position, bytes."""
        return self._content.tell()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._content.closed

    def close(self) -> None:
        """Write the file; it is durable when this returns."""
        if self.closed:
            return
        with self._content:
            self._tries()(self._write)

    def _write(self) -> None:
        stream, self._first = self._first or self._again(), None
        with stream, self._content.getbuffer() as content:
            stream.write(cast("bytes", content))
