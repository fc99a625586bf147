"""The lock is written in the form that it is read in, and always the same way."""

from pathlib import Path

from servers.local.artifacts import LOCK_FILE, read_lock
from servers.local.pinning import text_of


def test_what_is_written_is_what_is_read(tmp_path):
    lock = read_lock()
    (tmp_path / "artifacts.lock").write_text(text_of(list(reversed(lock))))
    assert sorted(read_lock(tmp_path / "artifacts.lock"), key=str) == sorted(lock, key=str)


def test_the_committed_lock_is_as_it_would_be_written():
    assert Path(LOCK_FILE).read_text() == text_of(read_lock())
