"""A folder is a backup when its description is written, and stays one until the next is."""

import errno
import hashlib
import json
import stat

import pytest

from k2.errors import Data, Invalid, Overloaded, Reason
from servers.local import backup_store
from servers.local.backup_store import Backup, Vault, copy_file, read_backup, target_error, writing


def tick(_size):
    pass


def described(*entries):
    return Backup(1, "live", "BINANCE", 1, "file:///w", ({"name": "t"},), tuple(entries))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"x" * 3_000_000)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vault").mkdir()
    return tmp_path / "vault"


def test_a_copy_is_whole_measured_and_as_private(source, tmp_path):
    source.chmod(0o600)
    moved = []
    found = copy_file(source, tmp_path / "a" / "b", moved.append)
    assert found == (3_000_000, hashlib.sha256(source.read_bytes()).hexdigest())
    assert sum(moved) == 3_000_000
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_a_backup_describes_itself(source, folder):
    made = Vault(folder, "1", tick)
    entry = made.keep(source, "stamp.json")
    shared, copied = made.share(source, "t/a", 3_000_000, "lake/warehouse/t/a")
    made.finish(described(entry, shared))
    assert copied
    assert read_backup(folder) == described(entry, shared)
    assert read_backup(folder).size == 6_000_000


def test_data_files_are_copied_once_and_removed_when_nobody_needs_them(source, folder):
    first = Vault(folder, "1", tick)
    files = [first.share(source, name, 3_000_000, name)[0] for name in ("a", "b")]
    first.finish(described(*files))
    source.write_bytes(b"y" * 3_000_000)  # never happens: it would be noticed here
    second = Vault(folder, "2", tick)
    assert second.holds("a", 3_000_000)
    assert not second.holds("a", 1)
    assert not second.holds("c", 3_000_000)
    entry, copied = second.share(source, "a", 3_000_000, "a")
    assert (entry, copied) == (files[0], False)
    second.finish(described(entry))
    assert [path.name for path in (folder / "data").iterdir()] == ["a"]


def test_what_a_stopped_backup_left_is_measured_again(source, folder):
    Vault(folder, "1", tick).share(source, "a", 3_000_000, "a")
    entry, copied = Vault(folder, "2", tick).share(source, "a", 3_000_000, "a")
    assert not copied
    assert entry.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


def test_the_earlier_backup_stays_until_the_next_is_whole(source, folder):
    first = Vault(folder, "1", tick)
    before = described(first.keep(source, "stamp.json"))
    first.finish(before)
    second = Vault(folder, "2", tick)
    entry = second.keep(source, "stamp.json")
    assert read_backup(folder) == before
    assert (folder / before.files[0].path).exists()
    second.abandon()
    assert not (folder / entry.path).exists()
    assert (folder / before.files[0].path).exists()
    third = Vault(folder, "3", tick)
    third.finish(described(third.keep(source, "stamp.json")))
    assert not (folder / before.files[0].path).exists()


def test_a_folder_with_other_things_is_not_written_to(folder):
    (folder / "thesis.tex").write_text("")
    with pytest.raises(Invalid, match=r"thesis\.tex") as refused, writing(folder):
        pass
    assert refused.value.reason is Reason.NOT_EMPTY


def test_one_writes_at_a_time(folder):
    with writing(folder):
        with pytest.raises(Invalid) as refused, writing(folder):
            pass
        assert refused.value.reason is Reason.ALREADY_RUNNING
    with writing(folder):
        pass


def test_a_folder_that_cannot_be_made_is_named(source):
    with pytest.raises(Invalid) as refused, writing(source / "below"):
        pass
    assert refused.value.reason is Reason.NOT_WRITABLE


@pytest.mark.parametrize("content", [None, "{", "[]", '{"version": 1}', '{"version": 99}'])
def test_what_is_no_backup_is_refused(folder, content):
    if content is not None:
        (folder / "backup.json").write_text(content)
    with pytest.raises(Data) as refused:
        read_backup(folder)
    assert refused.value.reason is Reason.BACKUP_INVALID


def test_the_description_is_plain_json(source, folder):
    made = Vault(folder, "1", tick)
    made.finish(described(made.keep(source, "stamp.json")))
    found = json.loads((folder / "backup.json").read_text())
    assert found["version"] == backup_store.VERSION
    assert found["files"][0]["path"] == "state-1/stamp.json"


def test_a_full_disk_has_a_name(tmp_path):
    full = target_error(OSError(errno.ENOSPC, "full"), tmp_path)
    assert isinstance(full, Overloaded)
    assert full.reason is Reason.DISK_FULL
    assert target_error(OSError(errno.EROFS, "read-only"), tmp_path).reason is Reason.NOT_WRITABLE
