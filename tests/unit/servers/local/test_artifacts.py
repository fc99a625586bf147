"""Artefacts: pinned, checked, whole or absent, fetched once however many ask."""

import gzip
import hashlib
import io
import multiprocessing
import tarfile
import threading

import pytest

from k2 import limits
from k2.clock import ManualClock, SystemClock
from k2.errors import Data, Invalid, Overloaded, Reason, Unavailable
from servers.local.artifacts import Artifact, Artifacts, read_lock, sha256_of


def archive(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


CONTENT = {
    "g:a:1:jar": b"first jar",
    "g:b:2:jar": b"second jar" * 100,
    "g:app:3:all:tar.gz": archive(**{"run.jar": b"program", "lib.txt": b"more"}),
}


def pinned(coordinate, content=None):
    content = CONTENT[coordinate] if content is None else content
    group = "registry" if "app" in coordinate else "kafka"
    return Artifact(group, coordinate, hashlib.sha256(content).hexdigest(), len(content))


LOCK = [pinned(coordinate) for coordinate in CONTENT]


class Repository:
    """Answers with CONTENT; `failures` are raised or answered first."""

    def __init__(self, *failures):
        self.asked = []
        self._failures = list(failures)
        self._lock = threading.Lock()

    def __call__(self, coordinate, folder, report):
        with self._lock:
            self.asked.append(coordinate)
            failure = self._failures.pop(0) if self._failures else None
        if isinstance(failure, Exception):
            raise failure
        content = CONTENT[coordinate] if failure is None else failure
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "file"
        path.write_bytes(content)
        report(len(content))
        return path


def ensure(tmp_path, repository, lock=LOCK, clock=None, progress=lambda *_: None):
    artifacts = Artifacts(tmp_path, clock or ManualClock(), lock, repository)
    artifacts.ensure(progress)
    return artifacts


def test_what_is_pinned_is_fetched_checked_and_unpacked(tmp_path):
    seen = []
    artifacts = ensure(tmp_path, Repository(), progress=lambda *step: seen.append(step))
    jars = artifacts.jars("kafka")
    assert [path.name for path in jars] == ["a-1.jar", "b-2.jar"]
    assert [path.read_bytes() for path in jars] == [CONTENT["g:a:1:jar"], CONTENT["g:b:2:jar"]]
    assert (artifacts.unpacked("registry") / "run.jar").read_bytes() == b"program"
    assert artifacts.missing() == []
    total = sum(one.size for one in LOCK)
    assert max(done for _, done, _ in seen) == total
    assert ("unpacking app-3-all.tar.gz", 0, 0) in seen


def test_what_is_there_is_not_fetched_again(tmp_path):
    ensure(tmp_path, Repository())
    second = Repository()
    ensure(tmp_path, second)
    assert second.asked == []


def test_an_interrupted_fetch_goes_on_where_it_stopped(tmp_path):
    clock = ManualClock()
    with pytest.raises(Unavailable):
        ensure(tmp_path, Repository(None, *[OSError("cut")] * 50), clock=clock)
    second = Repository()
    ensure(tmp_path, second)
    assert 0 < len(second.asked) < len(LOCK)


def test_failures_that_pass_are_tried_again(tmp_path):
    clock = ManualClock()
    repository = Repository(OSError("cut"), RuntimeError("busy"), b"mangled")
    ensure(tmp_path, repository, clock=clock)
    assert len(repository.asked) == len(LOCK) + 3
    assert clock.monotonic_s() > ManualClock().monotonic_s()


def test_after_several_tries_it_says_what_could_not_be_fetched(tmp_path):
    repository = Repository(*[OSError("no route")] * 50)
    with pytest.raises(Unavailable, match=r"g:a:1:jar .* no route") as failed:
        ensure(tmp_path, repository, lock=LOCK[:1])
    assert failed.value.reason is Reason.PEER_UNAVAILABLE
    assert len(repository.asked) == limits.FETCH_ATTEMPTS_MAX


def test_other_bytes_than_pinned_are_refused(tmp_path):
    with pytest.raises(Data, match="g:a:1:jar") as refused:
        ensure(tmp_path, Repository(*[b"evil"] * 50), lock=LOCK[:1])
    assert refused.value.reason is Reason.CHECKSUM_MISMATCH
    assert not list(tmp_path.rglob("*.jar"))


@pytest.mark.parametrize("content", [b"first jar, longer", b"FIRST JAR", b""])
def test_a_file_that_was_damaged_is_fetched_again(tmp_path, content):
    artifacts = ensure(tmp_path, Repository())
    artifacts.jars("kafka")[0].write_bytes(content)
    second = Repository()
    ensure(tmp_path, second)
    assert second.asked == ["g:a:1:jar"]
    assert artifacts.jars("kafka")[0].read_bytes() == CONTENT["g:a:1:jar"]


def test_a_damaged_folder_is_unpacked_again(tmp_path):
    artifacts = ensure(tmp_path, Repository())
    (artifacts.unpacked("registry") / "lib.txt").unlink()
    second = Repository()
    ensure(tmp_path, second)
    assert second.asked == ["g:app:3:all:tar.gz"]
    assert (artifacts.unpacked("registry") / "lib.txt").read_bytes() == b"more"


def test_a_full_disk_is_named_at_once(tmp_path):
    repository = Repository(*[OSError(28, "No space left on device")] * 50)
    with pytest.raises(Overloaded) as refused:
        ensure(tmp_path, repository, lock=LOCK[:1])
    assert refused.value.reason is Reason.DISK_FULL
    assert len(repository.asked) == 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid) as refused:
        ensure(tmp_path / "file", Repository())
    assert refused.value.reason is Reason.NOT_WRITABLE


def read_only(tmp_path):
    """Make the cache one whose lock cannot be taken, as in a folder of another user."""
    lock = tmp_path / "artifacts" / "lock"
    lock.unlink(missing_ok=True)
    lock.mkdir(parents=True)  # refused to root as well, who may write anywhere


def test_a_whole_cache_need_not_be_writable(tmp_path):
    ensure(tmp_path, Repository())
    read_only(tmp_path)
    repository = Repository()
    assert ensure(tmp_path, repository).missing() == []
    assert repository.asked == []


@pytest.mark.parametrize("lacks", ["jar", "archive", "damage"])
def test_what_a_read_only_cache_lacks_is_named(tmp_path, lacks):
    artifacts = ensure(tmp_path, Repository())
    if lacks == "jar":
        artifacts.jars("kafka")[0].unlink()
    elif lacks == "damage":
        artifacts.jars("kafka")[0].write_bytes(b"FIRST JAR")
    else:
        (artifacts.unpacked("registry") / "run.jar").unlink()
    read_only(tmp_path)
    name = "app-3-all.tar.gz" if lacks == "archive" else "a-1.jar"
    with pytest.raises(Invalid, match=f"{name} is missing there, and 0 more: .*K2_CACHE_DIR") as no:
        ensure(tmp_path, Repository())
    assert no.value.reason is Reason.NOT_WRITABLE


def test_a_folder_that_refuses_a_file_is_named_at_once(tmp_path):
    repository = Repository(*[PermissionError(13, "Permission denied")] * 50)
    with pytest.raises(Invalid) as refused:
        ensure(tmp_path, repository, lock=LOCK[:1])
    assert refused.value.reason is Reason.NOT_WRITABLE
    assert len(repository.asked) == 1


def fetch_in_process(folder, asked):
    def repository(coordinate, scratch, report):
        asked.put(coordinate)
        return Repository()(coordinate, scratch, report)

    Artifacts(folder, SystemClock(), LOCK, repository).ensure(lambda *_: None)


def test_of_two_that_fetch_at_once_one_does(tmp_path):
    context = multiprocessing.get_context("spawn")
    asked = context.Queue()
    both = [context.Process(target=fetch_in_process, args=(tmp_path, asked)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(50)
        assert process.exitcode == 0
    fetched = [asked.get(timeout=5) for _ in LOCK]
    assert sorted(fetched) == sorted(CONTENT)
    assert asked.empty()


def test_a_fetch_can_be_given_up(tmp_path):
    def give_up(what, done, total):
        raise Unavailable(Reason.DRAINING, "asked to stop")

    repository = Repository()
    with pytest.raises(Unavailable) as given_up:
        ensure(tmp_path, repository, lock=LOCK[:1], progress=give_up)
    assert given_up.value.reason is Reason.DRAINING
    assert len(repository.asked) == 1


def test_an_archive_is_not_kept_once_it_is_unpacked(tmp_path):
    ensure(tmp_path, Repository())
    assert not list(tmp_path.rglob("*.tar.gz"))


def test_the_lock_pins_kafka_and_the_registry():
    lock = read_lock()
    assert any(one.coordinate == "org.apache.kafka:kafka_2.13:4.4.0:jar" for one in lock)
    assert [one.filename for one in lock if one.group == "registry"] == [
        "apicurio-registry-app-3.3.3-all.tar.gz"
    ]
    assert len({one.coordinate for one in lock}) == len(lock)


def test_a_lock_that_is_not_understood_names_the_line(tmp_path):
    path = tmp_path / "artifacts.lock"
    with pytest.raises(Invalid, match="cannot be read"):
        read_lock(path)
    path.write_text("# comment\n\nkafka g:a:1:jar beef 3\n")
    with pytest.raises(Invalid, match="line 3"):
        read_lock(path)


def test_a_checksum_is_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
