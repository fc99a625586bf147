"""One operation on a file, tried again: how often, after which errors, and what is on disk then."""

import errno
import os

import pytest

from k2 import limits
from k2.clock import ManualClock
from k2.lake.iceberg.catalog import CLOCK, DurableFileIO, local_path, write_file
from k2.lake.iceberg.retrying_io import RetryingFileIO, is_transient

PASSING = (
    OSError(errno.EIO, "500"),
    OSError(errno.ETIMEDOUT, "no answer"),
    TimeoutError("no number"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
)
FINAL = (
    OSError(errno.ENOSPC, "full"),
    OSError(errno.EDQUOT, "full for you"),
    OSError(errno.EROFS, "read-only"),
    PermissionError(errno.EACCES, "forbidden"),
    FileNotFoundError(errno.ENOENT, "absent"),
    FileExistsError(errno.EEXIST, "there"),
    OSError("an error without a number"),
    ValueError("no error of files"),
)


class Faults:
    """Errors to raise, by the place where; each is used once, in order."""

    def __init__(self):
        self.due = {}
        self.calls = []

    def __call__(self, where):
        self.calls.append(where)
        if self.due.get(where):
            raise self.due[where].pop(0)


class FaultyFileIO(DurableFileIO):
    """Fails where `faults` say, before or after the work was done."""

    def new_input(self, location):
        return FaultyFile(super().new_input(location), self.properties["faults"])

    def new_output(self, location):
        return FaultyFile(super().new_output(location), self.properties["faults"])

    def delete(self, location):
        self.properties["faults"]("delete")
        super().delete(location)
        self.properties["faults"]("deleted")


class FaultyFile:
    def __init__(self, inner, faults):
        self._inner, self._faults = inner, faults

    def __len__(self):
        self._faults("len")
        return len(self._inner)

    def exists(self):
        self._faults("exists")
        return self._inner.exists()

    def open(self, seekable):
        self._faults("open")
        return self._inner.open(seekable)

    def create(self, overwrite):
        self._faults("create")
        return FaultyStream(self._inner.create(overwrite), self._faults)


class FaultyStream:
    def __init__(self, inner, faults):
        self._inner, self._faults = inner, faults

    def write(self, content):
        self._inner.write(content[: len(content) // 2])
        self._inner.flush()
        self._faults("half written")
        return self._inner.write(content[len(content) // 2 :])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._inner.close()
        self._faults("written")


class Store(RetryingFileIO, FaultyFileIO):
    """Patience above faults."""


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
def store(clock, faults):
    return Store({CLOCK: clock, "faults": faults})


@pytest.fixture
def place(tmp_path):
    return f"file://{tmp_path}/a/file"


def content_of(place):
    with open(local_path(place), "rb") as file:
        return file.read()


@pytest.mark.parametrize("where", ["create", "half written", "written"])
def test_a_write_is_tried_again_with_the_same_bytes(store, faults, clock, place, where):
    faults.due[where] = list(PASSING)
    began_s = clock.monotonic_s()
    write_file(store.new_output(place), b"the content")
    assert content_of(place) == b"the content"
    assert faults.calls.count(where) == len(PASSING) + 1
    assert clock.monotonic_s() - began_s == pytest.approx(limits.FILE_RETRY_S * 15)


def test_reads_and_looks_are_tried_again(store, faults, place):
    write_file(store.new_output(place), b"content")
    for where in ("open", "len", "exists"):
        faults.due[where] = list(PASSING)
    found = store.new_input(place)
    assert found.exists()
    assert len(found) == 7
    assert found.open().read() == b"content"
    assert not any(faults.due.values())


@pytest.mark.parametrize("size", [limits.FILE_READ_WHOLE_BYTES, limits.FILE_READ_WHOLE_BYTES + 1])
def test_only_a_small_file_is_read_as_it_is_opened(store, place, size):
    write_file(store.new_output(place), bytes(size))
    with store.new_input(place).open() as stream:
        with open(local_path(place), "wb"):
            pass  # emptied
        whole = size <= limits.FILE_READ_WHOLE_BYTES
        assert len(stream.read()) == (size if whole else 0)


@pytest.mark.parametrize("where", ["delete", "deleted"])
def test_a_removal_is_tried_again_until_the_file_is_gone(store, faults, place, where):
    write_file(store.new_output(place), b"content")
    faults.due[where] = list(PASSING)
    store.delete(place)
    assert not store.new_input(place).exists()
    with pytest.raises(FileNotFoundError):
        store.delete(place)


def test_the_tries_and_the_wait_are_bounded(store, faults, clock, place):
    faults.due["create"] = [PASSING[0]] * 100
    began_s = clock.monotonic_s()
    with pytest.raises(OSError, match="500"):
        write_file(store.new_output(place), b"content")
    assert faults.calls == ["create"] * limits.FILE_ATTEMPTS_MAX
    waits = 2 ** (limits.FILE_ATTEMPTS_MAX - 1) - 1
    assert clock.monotonic_s() - began_s == pytest.approx(limits.FILE_RETRY_S * waits)


@pytest.mark.parametrize("error", FINAL, ids=repr)
@pytest.mark.parametrize("where", ["create", "half written"])
def test_a_permanent_error_is_raised_at_once(store, faults, clock, place, where, error):
    assert not is_transient(error)
    faults.due[where] = [error]
    began_s = clock.monotonic_s()
    with pytest.raises(type(error)) as caught:
        write_file(store.new_output(place), b"content")
    assert caught.value is error
    assert faults.calls.count(where) == 1
    assert clock.monotonic_s() == began_s


def test_a_name_that_another_took_is_refused_at_any_try(store, faults, place):
    write_file(DurableFileIO().new_output(place), b"theirs")
    faults.due["create"] = [PASSING[0]]
    with pytest.raises(FileExistsError):
        write_file(store.new_output(place), b"ours")
    assert content_of(place) == b"theirs"


def test_a_stream_that_gave_up_is_closed(store, faults, place):
    faults.due["written"] = [PASSING[0]] * 100
    stream = store.new_output(place).create()
    stream.write(b"content")
    with pytest.raises(OSError, match="500"):
        stream.close()
    assert stream.closed
    stream.close()
    assert faults.calls.count("written") == limits.FILE_ATTEMPTS_MAX


@pytest.mark.parametrize(("number", "tries"), [(errno.ENOSPC, 1), (errno.EIO, 6)])
def test_no_file_is_left_that_could_not_be_synced(store, place, monkeypatch, number, tries):
    synced = []

    def fail(descriptor):
        synced.append(descriptor)
        raise OSError(number, "not synced")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="not synced"):
        write_file(store.new_output(place), b"content")
    assert len(synced) == tries
    assert not os.path.exists(local_path(place))
