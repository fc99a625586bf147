"""A lake on a file system of its own: full at any step of a commit, and read-only for a while.

Each scenario runs in a process with a mount namespace of its own, which needs no rights where the
system grants one; where it does not, no small disk can be had, and the tests say so.
"""

import json
import subprocess
import sys

import pytest

from tests.integration.lake.epoch_site import Site
from tests.integration.servers.wire import environment

SCENARIO = """
import json, logging, os, subprocess, sys
from pathlib import Path
from k2 import limits
from tests.support.writer_world import PumpWorld

folder, mounted, kib_max = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def mount(*options):
    subprocess.run(["mount", *options, str(mounted)], check=True)

class Reasons(logging.Handler):
    def emit(self, record):
        if reason := getattr(record, "reason", None):
            heard.append(reason)

heard = []
logging.getLogger("k2.lake.ingest.trade_writer").addHandler(Reasons())
limits.CATALOG_BUSY_S = 1.0
mount("-t", "tmpfs", "-o", "size=4m", "tmpfs")
if mounted.name == "lake":  # the catalog alone is on the small disk
    (folder / "warehouse").mkdir()
    (mounted / "warehouse").symlink_to(folder / "warehouse")
world = PumpWorld(folder)
pump = world.pump()
printed = 0

def put():
    global printed
    world.put(*range(printed, printed + 100))
    printed += 100
    pump.step()

def settle():
    world.clock.advance(limits.COMMIT_RETRY_MAX_S)
    assert any(pump.commit() for _ in range(3)), "there is room again"
    assert world.ids() == list(range(printed))

def ballast(kib_left):
    free = os.statvfs(mounted)
    size = max(0, free.f_bavail * free.f_frsize - kib_left * 1024)
    (mounted / "ballast").write_bytes(bytes(size))

put()
settle()
told, fitted = {}, []
for kib in range(0, kib_max, 4):
    ballast(kib)
    put()
    before = world.on_disk()
    if pump.commit():
        fitted.append(kib)
    else:
        told[kib] = heard[-1]
        left = [path for path in world.on_disk() - before if os.stat(path).st_size == 0]
        for again in range(3):
            pump.commit()
        assert not left, left
        assert world.ids() == list(range(printed - 100)), "what was there can be read"
    (mounted / "ballast").unlink()
    settle()

put()
world.catalog.engine.dispose()  # nothing may be open for writing; what is needed is opened again
mount("-o", "remount,ro")
assert not pump.commit()
read_only = heard[-1]
mount("-o", "remount,rw")
settle()
report = {"full": told, "fitted": fitted, "read_only": read_only, "ok": world.verified()["ok"]}
print(json.dumps(report))
"""

START = """
import os, subprocess, sys
from pathlib import Path
from k2.clock import SystemClock
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.iceberg.snapshot import SnapshotReader
from k2.lake.iceberg.tables import ensure_lake
from k2.settings import load
from tests.support.eventually import eventually

settings, log, made = load(), Path(sys.argv[1]), sys.argv[2]
folder = settings.data_dir
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
if made == "tables":
    catalog = open_catalog(settings, SystemClock())
    ensure_lake(catalog)
free = os.statvfs(folder)
(folder / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize))
with log.open("wb") as told:
    lake = subprocess.Popen([sys.executable, "-m", "servers", "lake"], stdout=told, stderr=told)
try:
    eventually(lambda: log.read_text().count("the lake's disk is full") > 1, 30)
    assert lake.poll() is None
    (folder / "ballast").unlink()
    if made == "nothing":
        catalog = eventually(lambda: open_catalog(settings, SystemClock()), 30)
    newest = SnapshotReader(catalog).current
    eventually(lambda: (one := newest()) and one.rows_total == 6, 30)
    lake.terminate()
    assert lake.wait(30) == 0
finally:
    lake.kill()
    lake.wait()
"""
_IN_NAMESPACE = ("unshare", "--map-root-user", "--mount")

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def in_namespace():
    """Runs a script, with arguments, where it may mount; what it printed."""
    if subprocess.run([*_IN_NAMESPACE, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system gives no mount namespace to its users")

    def run(script, *arguments, env=None):
        done = subprocess.run(
            [*_IN_NAMESPACE, sys.executable, "-c", script, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=env,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


@pytest.mark.parametrize("place", ["lake", pytest.param("catalog", marks=pytest.mark.slow)])
def test_a_full_and_a_read_only_disk_are_named_and_outlived(tmp_path, in_namespace, place):
    folder = tmp_path / "k2"
    mounted = folder if place == "lake" else folder / "lake"
    mounted.mkdir(parents=True)
    kib_max, full = (80, 8) if place == "lake" else (20, 1)  # the catalog writes a page or two
    report = json.loads(in_namespace(SCENARIO, folder, mounted, kib_max))
    assert len(report["full"]) >= full
    assert report["fitted"]  # so it was full at every step before
    assert set(report["full"].values()) == {"DISK_FULL"}
    assert (report["read_only"], report["ok"]) == ("LAKE_UNAVAILABLE", True)


@pytest.mark.slow
@pytest.mark.parametrize("made", ["nothing", "tables"])
def test_a_first_start_on_a_full_disk_waits_for_room(
    tmp_path, in_namespace, broker, registry, made
):
    site = Site(tmp_path / "k2", broker, registry)
    site.put(range(3))
    often = {"K2_LAKE__COMMIT_INTERVAL_S": "0.3"}
    in_namespace(START, tmp_path / "lake.log", made, env=environment(site.settings, **often))
