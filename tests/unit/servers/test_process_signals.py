"""Signals of every process, from files as Linux has them."""

import pytest

from k2.degrade.signals import Signal
from servers.process_signals import ProcessSignals, SignalReading

STALLED = "some avg10={} avg60=1.00 avg300=0.50 total=1\nfull avg10=0.00 avg60=0.00 total=0\n"
GROUP = "memory.max", "memory.current", "memory.stat"
GROUP_1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"


@pytest.fixture
def linux(tmp_path):
    """A folder of sources: `write(path, text)`, and `signals()` that are read from them."""
    return Linux(tmp_path)


class Linux:
    def __init__(self, folder):
        self.folder = folder

    def write(self, path, text):
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def member_of(self, *lines):
        self.write("proc/self/cgroup", "".join(f"{line}\n" for line in lines))

    def group(self, folder, names, limit, used, stat=""):
        for name, text in zip(names, (limit, used, stat), strict=True):
            self.write(f"cgroup/{folder}/{name}", f"{text}\n")

    def signals(self):
        return ProcessSignals(self.folder, self.folder / "proc", self.folder / "cgroup")


def test_every_process_reads_its_memory_and_its_disk(linux):
    found = linux.signals().read()
    assert found.keys() == {Signal.RSS_BYTES, Signal.DISK_FREE_BYTES}, "the rest is absent here"
    assert min(found.values()) > 0


def test_a_disk_that_cannot_be_read_is_none(tmp_path):
    found = ProcessSignals(tmp_path / "absent", tmp_path, tmp_path).read()
    assert found[Signal.DISK_FREE_BYTES] is None


def test_where_work_waits_is_a_share_of_the_last_ten_seconds(linux):
    for name, share in (("cpu", 98.73), ("memory", 0.0), ("io", 50.0)):
        linux.write(f"proc/pressure/{name}", STALLED.format(share))
    signals = linux.signals()
    found = signals.read()
    assert found[Signal.CPU_PRESSURE] == pytest.approx(0.9873)
    assert (found[Signal.MEMORY_PRESSURE], found[Signal.IO_PRESSURE]) == (0.0, 0.5)
    linux.write("proc/pressure/cpu", "")
    (linux.folder / "proc/pressure/io").unlink()
    found = signals.read()
    assert (found[Signal.CPU_PRESSURE], found[Signal.IO_PRESSURE]) == (None, None), "it was there"
    assert found[Signal.MEMORY_PRESSURE] == 0.0


def test_the_memory_of_a_group_without_what_can_be_taken_back(linux):
    linux.member_of("0::/k2/lake")
    linux.group("k2/lake", GROUP, 1000, 900, "anon 500\ninactive_file 100\nactive_file 300\n")
    assert linux.signals().read()[Signal.CGROUP_BYTES] == 0.5


def test_the_tightest_limit_around_a_process_counts(linux):
    linux.member_of("0::/k2/lake")
    linux.group("k2/lake", GROUP, "max", 400)
    linux.group("k2", GROUP, 1000, 800)
    linux.group("", GROUP, 10_000, 4000)
    signals = linux.signals()
    assert signals.read()[Signal.CGROUP_BYTES] == 0.8
    linux.write("cgroup/k2/memory.max", "max\n")
    assert signals.read()[Signal.CGROUP_BYTES] == 0.4
    linux.write("cgroup/k2/memory.current", "?\n")
    linux.write("cgroup/k2/memory.max", "1000\n")
    assert signals.read()[Signal.CGROUP_BYTES] is None


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_a_group_without_a_limit_is_no_signal(linux, limit):
    linux.member_of("0::/", "4:memory:/")
    linux.group("", GROUP, "max", 400)
    linux.group("memory", GROUP_1, limit if limit.isdigit() else 2**62, 400)
    assert Signal.CGROUP_BYTES not in linux.signals().read()


def test_a_group_of_version_1_that_a_container_sees_as_the_root(linux):
    linux.member_of("9:name=systemd:/", "4:memory:/docker/5088", "1:cpu:/docker/5088")
    linux.group("memory", GROUP_1, 1000, 700, "total_inactive_file 100\ntotal_active_file 0\n")
    assert linux.signals().read()[Signal.CGROUP_BYTES] == 0.6


def test_the_highest_pressure_of_a_reading():
    assert SignalReading(pressures={"a": 0.2, "b": 0.4}).pressure == 0.4
    assert SignalReading().pressure == 0.0
