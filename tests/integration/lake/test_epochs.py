"""Tapes that no longer fit the lake, on a real Kafka: refused by name, and the way out."""

import json
import shutil
import subprocess
import sys
from contextlib import closing

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from k2.clock import SystemClock
from k2.lake.commit.committer import Committer, PartitionBatch
from k2.lake.iceberg.catalog import open_catalog
from k2.lake.ingest.tape_check import identity_of
from k2.market.offsets import ReadToken
from k2.query.request import Consistency
from servers.local import broker as kafka
from servers.local.child_process import Child
from tests.conftest import free_ports
from tests.integration.lake.epoch_site import ROWLESS, SYMBOLS, Site
from tests.integration.servers.wire import environment
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
SLOW = pytest.mark.slow


def remake(site):
    admin = AdminClient({"bootstrap.servers": site.tape.bootstrap})
    admin.delete_topics([site.tape.topic])[site.tape.topic].result(30)

    def gone():
        return site.tape.topic not in admin.list_topics(timeout=10).topics

    eventually(gone, 30)
    site.deploy()


def recreated(site):
    """Only new trades are on the new topic."""
    remake(site)
    return "TOPIC_RECREATED"


def repartitioned(site):
    """The same with another partition count in the settings."""
    site.move(partitions_per_tier=2)
    remake(site)
    return "PARTITIONS_CHANGED"


def overtaken(site):
    """Retention removes what was never committed."""
    admin = AdminClient({"bootstrap.servers": site.tape.bootstrap})
    end = site.facts().log_end
    homes = {*site.homes().values()}
    removed = [TopicPartition(site.tape.topic, home, end[home]) for home in homes]
    for future in admin.delete_records(removed).values():
        future.result(30)
    return "RETENTION_OVERTOOK"


def truncated(site):
    """The broker has lost the last records that the lake went past."""
    with closing(open_catalog(site.settings, SystemClock())) as catalog:
        identity = identity_of(site.facts(), site.newest().positions.epoch)
        writer = Committer(catalog=catalog, clock=SystemClock(), tape=identity, writer_id="w")
        positions, states, _ = writer.base()
        home = site.homes()["BTCUSDT"]
        past = site.facts().log_end[home] + 5
        writer.commit([PartitionBatch(home, positions[home], past, (), states[home])])
    return "TAPE_TRUNCATED"


@pytest.mark.parametrize(
    "misfortune",
    [recreated, *(pytest.param(one, marks=SLOW) for one in (repartitioned, overtaken, truncated))],
)
def test_a_tape_that_does_not_fit_is_refused_and_a_new_epoch_goes_on(
    tmp_path, broker, registry, misfortune
):
    """Another cluster is `integration/k2cli/test_stack.py`."""
    site = Site(tmp_path, broker, registry)
    site.put(range(50))
    site.write(rows=100)
    before = site.newest()
    token = ReadToken(before.topic_id, before.positions)
    as_of = {"consistency": Consistency.AS_OF, "as_of_snapshot": before.snapshot_id}
    of_token = {"consistency": Consistency.AS_OF, "as_of_token": token}
    with site.view() as ask:
        held = ask(**as_of)
        assert ask(**of_token) == held
    assert len(held) == 100
    site.put(range(50, 60))  # acknowledged, and not committed
    site.promise(59)
    told = len(site.lost())
    reason = misfortune(site)
    survived = misfortune is truncated

    for code, said in site.ran("lake", "query"):
        assert (code, said["event"], said["reason"]) == (6, "failed", reason)
        assert "k2 tape new-epoch" in said["message"]
    code, said = site.commanded("new-epoch", "--yes")
    assert (code, said["ended"], said["epoch"], said["reason"]) == (0, True, 0, reason)
    assert said["lost"] == (20 if misfortune is overtaken else None)

    site.put(range(45, 55))  # in part what the lake has, in part what was lost
    site.put(range(70, 80))
    kept = {*range(55), *range(70, 80)} | ({*range(50, 60)} if survived else set())
    site.write(rows=2 * len(kept))
    site.put(range(75, 90))  # of the tail
    whole = sorted(kept | {*range(75, 90)})

    assert site.in_lake() == sorted((symbol, number) for symbol in SYMBOLS for number in kept)
    assert site.lost()[told:] == [*((symbol, 50, 59) for symbol in SYMBOLS), (ROWLESS, 5, 59)]
    newest = site.newest()
    assert newest.positions.epoch == 1
    assert [end.epoch for end in newest.epochs.past] == [0]
    with site.view() as ask:
        for symbol in SYMBOLS:
            assert [row["trade_id"] for row in ask(symbols=(symbol,))] == whole
        assert ask(**as_of) == held
        assert ask(**of_token) == held
    code, report = site.commanded("verify")
    assert (code, report["problems"], report["epoch"]) == (0, [], 1)
    assert report["rows_of_earlier_epochs"] == 100
    lost = {(hole["first_id"], hole["last_id"]) for hole in report["holes"]}
    assert lost == {(60 if survived else 55, 69)}


@SLOW
def test_a_restored_older_lake_goes_on_and_no_query_server_follows_it_into_another_epoch(
    tmp_path, broker, registry
):
    site = Site(tmp_path, broker, registry)
    site.put(range(10))
    site.write(rows=20)
    older = tmp_path / "older"
    shutil.copytree(tmp_path / "lake", older)
    site.put(range(10, 30))
    site.write(rows=60)
    shutil.rmtree(tmp_path / "lake")
    older.rename(tmp_path / "lake")
    assert site.newest().rows_total == 20
    site.write(rows=60)
    whole = sorted((symbol, one) for symbol in SYMBOLS for one in range(30))
    assert site.in_lake() == whole
    code, report = site.commanded("verify")
    assert (code, report["problems"], report["epoch"]) == (0, [], 0)

    server = subprocess.Popen(
        [sys.executable, "-m", "servers", "query"],
        env=environment(site.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert json.loads(server.stdout.readline())["event"] == "serving"
        assert site.commanded("new-epoch", "--force")[1]["ended"]
        site.write(rows=60)  # begins the next epoch
        said = [json.loads(line) for line in server.stdout]
        assert (server.wait(30), said[-1]["reason"]) == (6, "EPOCH_ENDED")
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert site.in_lake() == whole
    code, report = site.commanded("verify")
    assert (code, report["problems"], report["epoch"]) == (0, [], 1)


class OwnBroker:
    """A Kafka that can lose power."""

    def __init__(self, folder, artifacts):
        self.ports = kafka.BrokerPorts(*free_ports(2))
        self.folder = folder
        self.command = kafka.prepare(folder, self.ports, artifacts.jars("kafka"), "7" * 32)
        self.address = kafka.bootstrap(self.ports)
        self.child = None
        self.start()

    def start(self):
        self.child = Child(self.command, self.folder / "log")
        eventually(lambda: kafka.answers(self.ports), 60)

    def lose_power(self, topic, partition):
        """It ends at once, and half of what it wrote of a partition never reached the disk."""
        self.child.kill()
        (log,) = (self.folder / "data" / f"{topic}-{partition}").glob("*.log")
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size // 2)

    def close(self):
        self.child.stop(grace_s=5)


@SLOW
def test_a_broker_that_lost_records_and_got_others_is_known(tmp_path, registry, artifacts):
    with closing(OwnBroker(tmp_path / "kafka", artifacts)) as broker:
        site = Site(tmp_path / "k2", broker.address, registry)
        for first in range(0, 50, 10):  # some batches
            site.put(range(first, first + 10))
        site.write(rows=100)
        home = site.homes()["BTCUSDT"]
        before = site.facts().log_end[home]
        broker.lose_power(site.tape.topic, home)
        broker.start()
        kept = site.facts().log_end[home]
        assert 0 < kept < before
        site.put(range(100, 150))  # above every position again
        assert site.facts().log_end[home] > before
        ((code, said),) = site.ran("lake")
        assert (code, said["reason"]) == (6, "TAPE_TRUNCATED")
        assert "filled again" in said["message"]
        code, said = site.commanded("new-epoch", "--yes")
        assert (code, said["ended"], said["reason"]) == (0, True, "TAPE_TRUNCATED")
        site.write(rows=200)
        ids = [*range(50), *range(100, 150)]
        assert site.in_lake() == sorted((symbol, one) for symbol in SYMBOLS for one in ids)
        code, report = site.commanded("verify")
        assert (code, report["problems"]) == (0, [])


@SLOW
def test_a_topic_that_is_made_again_under_a_running_writer_ends_it(tmp_path, broker, registry):
    site = Site(tmp_path, broker, registry)
    site.put(range(10))
    writer = subprocess.Popen(
        [sys.executable, "-m", "servers", "lake"],
        env=environment(site.settings, K2_LAKE__COMMIT_INTERVAL_S="0.3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert json.loads(writer.stdout.readline())["event"] == "serving"
        site.await_rows(20)
        remake(site)
        site.put(range(20, 50))  # above the reader's position: it goes on there
        said = [json.loads(line) for line in writer.stdout]
        assert (writer.wait(60), said[-1]["reason"]) == (6, "TOPIC_RECREATED")
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert site.newest().rows_total == 20
