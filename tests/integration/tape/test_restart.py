"""A broker that is killed and started again: nothing lost, nothing twice, nothing out of order."""

import threading
from contextlib import suppress

import pytest

from k2.errors import Overloaded, Unavailable
from k2.settings import TapeSettings
from k2.tape import topics
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.consumer import TapeReader
from k2.tape.dead_letter_topic import DeadLetterTopic
from k2.tape.producer import TapeProducer
from servers.local import broker as kafka
from servers.local.child_process import Child
from tests.conftest import free_ports
from tests.contract.real_tape import NoRegistry
from tests.contract.test_notices import letter
from tests.support.eventually import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PATIENCE_S = 90  # a broker starts in three seconds, or in twenty on a busy machine


class OwnBroker:
    """A broker of these tests alone, to be killed; each test leaves it running."""

    def __init__(self, folder, artifacts):
        self._folder = folder
        self._ports = kafka.BrokerPorts(*free_ports(2))
        self._jars = artifacts.jars("kafka")
        self.bootstrap = kafka.bootstrap(self._ports)
        self._child = None

    def start(self):
        command = kafka.prepare(self._folder / "kafka", self._ports, self._jars, "6" * 32)
        self._child = Child(command, self._folder / "broker.log")
        eventually(lambda: kafka.answers(self._ports), PATIENCE_S)

    def kill(self):
        self._child.kill()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory, artifacts):
    made = OwnBroker(tmp_path_factory.mktemp("own"), artifacts)
    made.start()
    yield made
    made.kill()


class Sender:
    """Sends numbers without an end, in a thread; remembers what was acknowledged where."""

    def __init__(self, tape):
        self._producer = TapeProducer(tape, queue_max=50_000)
        self._stop = threading.Event()
        self.acked = {}
        self.failed = []
        self.sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        pause = threading.Event()
        while not self._stop.is_set():
            with suppress(Overloaded):
                for _ in range(20):
                    self._send(self.sent)
                    self.sent += 1
            self._producer.poll(0)
            pause.wait(0.01)

    def _send(self, number):
        self._producer.send(
            b"k", b"%d" % number, 0, None, lambda offset, error: self._ack(number, offset, error)
        )

    def _ack(self, number, offset, error):
        if error is None:
            self.acked[number] = offset
        else:
            self.failed.append(error)

    def finish(self):
        self._stop.set()
        self._thread.join()
        left = self._producer.flush(60)
        self._producer.close()
        return left


def end_of(admin, tape):
    """Where partition 0 ends; before anything while the broker is not ready."""
    try:
        return admin.log_ends(tape.topic, 8)[0]
    except Unavailable:
        return -1


def test_records_survive_kills_of_the_broker(own_broker):
    tape = TapeSettings(bootstrap=own_broker.bootstrap, topic="survives")
    topics.deploy(tape, NoRegistry())
    reader = TapeReader.assigned(tape, {0: 0, 1: 0})
    admin = topics.TapeAdmin(own_broker.bootstrap)
    sender = Sender(tape)
    values = []

    def read_some():
        for batch in reader.read(1000, 0.05):
            values.extend(batch.values)

    for _ in range(2):
        before = len(values)
        eventually(lambda before=before: read_some() or len(values) > before + 200, PATIENCE_S)
        own_broker.kill()
        eventually(lambda: read_some() or not reader.connected, PATIENCE_S)
        with pytest.raises(Unavailable):
            admin.log_ends(tape.topic, 8)
        own_broker.start()
        eventually(lambda: read_some() or reader.connected, PATIENCE_S)
        eventually(lambda: end_of(admin, tape) >= len(sender.acked), PATIENCE_S)

    assert sender.finish() == 0
    assert not sender.failed
    eventually(lambda: read_some() or len(values) >= sender.sent, PATIENCE_S)
    assert values == [b"%d" % number for number in range(sender.sent)]
    assert sender.acked == {number: number for number in range(sender.sent)}
    reader.close()
    admin.close()


@pytest.mark.slow
def test_members_boards_and_letters_wait_for_the_broker(own_broker):
    """Static members go on where they were."""
    tape = TapeSettings(bootstrap=own_broker.bootstrap, topic="waits")
    topics.deploy(tape, NoRegistry())
    position, values = {}, []
    reader = TapeReader.joined(
        tape, "g", "w", lambda given: {each: position.get(each, 0) for each in given},
        lambda taken: position.update(reader.positions),
    )  # fmt: skip

    def read_until(count):
        def enough():
            for batch in reader.read(1000, 0.05):
                values.extend(batch.values)
            return len(values) >= count

        eventually(enough, PATIENCE_S)

    producer = TapeProducer(tape)
    producer.send(b"k", b"1", 0)
    read_until(1)
    writer = CompactedTopic(own_broker.bootstrap, topics.HEARTBEATS)
    follower = CompactedTopic(own_broker.bootstrap, topics.HEARTBEATS)
    office = DeadLetterTopic(own_broker.bootstrap)
    writer.put("a", {"n": 1}, wait_s=10)
    assert follower.current() == {"a": {"n": 1}}

    own_broker.kill()
    producer.send(b"k", b"2", 0)
    assert reader.read(10, 0.2) == []
    with pytest.raises(Unavailable):
        writer.put("a", {"n": 2}, wait_s=0.3)
    writer.put("a", {"n": 3})
    with pytest.raises(Unavailable):
        office.publish([letter("waits", 1, b"x")], 0.3)
    with pytest.raises(Unavailable):
        writer.read_all()
    assert follower.current() == {"a": {"n": 1}}

    own_broker.start()
    read_until(2)
    assert values == [b"1", b"2"]
    eventually(lambda: follower.current() == {"a": {"n": 3}}, PATIENCE_S)
    office.publish([letter("waits", 1, b"x")], 20)
    assert {each.offset for each in office.read_all()} == {1}
    for part in (producer, reader, writer, follower, office):
        part.close()
