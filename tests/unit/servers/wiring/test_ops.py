"""The ops tables' writers as the lake's process runs them, with the tape away."""

from k2.clock import SystemClock
from k2.lake.catalog import open_catalog
from k2.lake.tables import DEAD_LETTERS, GAPS
from k2.settings import Settings, TapeSettings
from k2.tape.topics import TapeAdmin
from servers.runtime import Runtime
from servers.wiring.ops import OpsTables
from tests.eventually import eventually


class NoLetters:
    def publish(self, letters, wait_s):
        raise AssertionError("nothing is read")


def test_tables_are_made_and_a_tape_that_is_away_is_waited_for(tmp_path):
    settings = Settings(data_dir=tmp_path, tape=TapeSettings(bootstrap="127.0.0.1:1"))
    runtime = Runtime(SystemClock(), "run")
    catalog, admin = open_catalog(settings, SystemClock()), TapeAdmin("127.0.0.1:1")
    ops = OpsTables(settings, runtime, catalog, admin, NoLetters())
    assert catalog.table_exists(GAPS)
    assert catalog.table_exists(DEAD_LETTERS)
    assert ops.counters()["ops.gaps.failures"] == 0
    ops.start()
    eventually(lambda: ops.counters()["ops.gaps.failures"] == 1, 40)
    assert "ops.gaps.halted" not in ops.counters()
    assert ops.stop()
    admin.close()
    catalog.close()
