import pytest

from k2.errors import Reason, Unavailable
from k2.lake.retain import Retainer
from k2.market.offsets import OffsetVector
from k2.settings import LakeSettings, TapeSettings
from k2.tape.danger import TapeWatch
from k2.tape.topics import TapeFacts
from servers.heartbeat import Sample
from servers.wiring.retention import Retention
from tests.eventually import eventually
from tests.lake_world import LakeWorld


@pytest.fixture
def lake(tmp_path):
    world = LakeWorld(tmp_path)
    yield world
    world.close()


def unreachable():
    raise Unavailable(Reason.TAPE_UNAVAILABLE, "away")


def watch(lake, facts=unreachable):
    return TapeWatch(
        facts=facts,
        offsets_since=lambda time_us: (9,),
        positions=lambda: OffsetVector(0, (3,)),
        clock=lake.clock,
        settings=TapeSettings(),
    )


def test_both_run_and_the_heart_tells_of_them(lake):
    lake.commit_each([0], times=[lake.clock.now_us() - 5 * 86_400_000_000])
    lake.commit_each([1])
    settings = LakeSettings(retention_hours=1, retain_interval_s=0.01)
    retainer = Retainer(replacer=lake.replacer("r"), clock=lake.clock, settings=settings)
    one = watch(lake, lambda: TapeFacts("c", "t", "id", 1, (0,), (10,)))
    one.look()
    retention = Retention(retainer, one)
    told = retention.told(lambda: Sample(counters={"rows": 7}))
    with retention:
        eventually(lambda: told().counters["retain_rows"] == 1)
    counters = told().counters
    assert counters["rows"] == 7
    assert counters["retain_files"] == 1
    assert "partition 0: 7 records" in counters["alerts"][0]


def test_it_ends_while_the_tape_is_away(lake):
    retainer = Retainer(replacer=lake.replacer("r"), clock=lake.clock, settings=LakeSettings())
    retention = Retention(retainer, watch(lake))
    with retention:
        pass
    assert retention.told(Sample)().counters["alerts"] == []
