"""The registry is away, cold and warm; and another, empty one has taken its place."""

import json
import shutil
import subprocess
import sys
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest

from k2.clock import SystemClock
from k2.errors import Data, Reason
from k2.market import schema
from k2.market.events import Fault
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import TapeReader
from k2.tape.dead_letter_topic import DeadLetterTopic
from k2.tape.schema_registry import SchemaStore
from servers.local import registry as apicurio
from tests.conftest import free_ports, run
from tests.integration.lake.epoch_site import SYMBOLS, Site
from tests.integration.servers.wire import environment, running
from tests.support.eventually import eventually
from tests.support.gate import Gate

OFTEN = {"K2_LAKE__COMMIT_INTERVAL_S": "0.3"}
GAP = schema.avro_schema(schema.GAP)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


@pytest.fixture
def gate(registry):
    made = Gate(urlsplit(registry).port)
    yield made
    made.refuse()


@pytest.fixture
def site(tmp_path, broker, registry, gate):
    return Site(tmp_path / "k2", broker, registry.replace(str(gate.target), str(gate.port)))


@pytest.fixture
def rebuilt(tmp_path, artifacts):
    """The port of a registry that holds nothing yet."""
    ports = apicurio.RegistryPorts(*free_ports(2))
    command = apicurio.prepare(tmp_path / "registry", ports, artifacts.unpacked("registry"))
    log = tmp_path / "registry.log"
    yield from run(command, log, lambda: apicurio.answers(ports), ports.clients)


@contextmanager
def waiting(name, settings, **more):
    """A process that cannot serve yet: returns a reader of what it says first."""
    with (settings.data_dir / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "servers", name],
            env=environment(settings, **more),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        yield lambda: json.loads(child.stdout.readline())
        child.terminate()
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def says(site, name, words):
    return words in (site.settings.data_dir / f"{name}.log").read_text()


def letters(site):
    with closing(DeadLetterTopic(site.tape.bootstrap)) as office:
        return [one for one in office.read_all() if one.topic == site.tape.topic]


def whole(ids):
    return sorted((symbol, one) for symbol in SYMBOLS for one in ids)


def test_without_a_registry_everything_waits_once_and_never_again(site, gate):
    site.put(range(20))
    shutil.rmtree(site.settings.data_dir / "schemas")  # as on a machine that has just begun
    gate.refuse()
    with (
        waiting("lake", site.settings, **OFTEN) as lake,
        waiting("query", site.settings) as query,
        waiting("feed", site.settings, K2_FEED__VENUE_URL="ws://127.0.0.1:1"),
    ):
        assert lake()["event"] == "serving"  # its heart beats; its rows wait
        for name in ("lake", "query", "feed"):
            eventually(lambda name=name: says(site, name, "cannot be asked"), 30, say=name)
        assert site.newest().rows_total == 0
        gate.open()
        site.await_rows(40)
        assert query()["event"] == "serving"
    assert site.in_lake() == whole(range(20))
    assert letters(site) == []

    gate.refuse()
    site.put(range(20, 30))
    with running("lake", site.settings, **OFTEN), running("query", site.settings):
        site.await_rows(60)
        site.put(range(30, 35))
        site.await_rows(70)
    assert site.in_lake() == whole(range(35))
    code, report = site.commanded("verify")
    assert (code, report["problems"]) == (0, [])


@pytest.mark.slow
def test_a_registry_that_gives_ids_another_meaning_is_refused_and_what_is_known_stays(
    site, gate, rebuilt, tmp_path
):
    site.put(range(20))
    site.write(rows=40)
    gate.refuse()
    gate.target = rebuilt
    gate.open()
    stranger = SchemaStore(site.tape.registry_url, tmp_path / "stranger", SystemClock())
    for number in range(1, site.schema_id):
        filler = {"type": "record", "name": f"Filler{number}", "fields": []}
        stranger.register(f"filler-{number}-value", filler)
    assert stranger.register("gaps-value", GAP) == site.schema_id  # the trades' id of old

    with pytest.raises(Data) as caught:
        site.deploy()
    ((code, said),) = site.ran("feed")
    assert (code, said["reason"]) == (6, "SCHEMA_CONFLICT")
    assert caught.value.reason is Reason.SCHEMA_CONFLICT
    for told in (said["message"], caught.value.message):
        assert "not the registry this data was written with" in told
        assert "restore" in told

    site.put(range(20, 30))
    with running("lake", site.settings, **OFTEN), running("query", site.settings):
        site.await_rows(60)
        with site.view() as ask:
            for symbol in SYMBOLS:
                assert [row["trade_id"] for row in ask(symbols=(symbol,))] == [*range(30)]
    code, report = site.commanded("verify")
    assert (code, report["problems"], report["dead"]) == (0, [], 0)

    # Who has kept nothing and asks the wrong registry gets dead letters, and no wrong number.
    decoder = Decoder(SchemaStore(site.tape.registry_url, tmp_path / "nothing", SystemClock()))
    homes = {*site.homes().values()}
    judged = 0
    with closing(TapeReader.assigned(site.tape, dict.fromkeys(homes, 0))) as reader:
        while judged < 60:
            for batch in reader.read(1000, 0.5):
                assert np.all(decoder.decode(batch).fault == Fault.UNKNOWN_SCHEMA)
                judged += len(batch.values)
