"""Documents on a board, without a broker. Reading and following are in the contract."""

import pytest
from confluent_kafka import KafkaError, KafkaException, Message

from k2.errors import Unavailable
from k2.tape.compacted_topic import CompactedTopic, News, apply, parse


def record(key, value):
    return Message(topic="t", key=key, value=value)


def test_documents_are_json_objects():
    assert parse(record(b"k", b'{"a": 1}')) == ("k", {"a": 1})
    assert parse(record(b"k", None)) == ("k", None)


@pytest.mark.parametrize(
    "foreign",
    [
        record(None, b"{}"),
        record(b"", b"{}"),
        record(b"\xff", b"{}"),
        record(b"k", b"{"),
        record(b"k", b"[1]"),
        record(b"k", b"\xff"),
    ],
)
def test_foreign_records_are_passed_over(foreign):
    assert parse(foreign) is None


def test_the_newest_holds_until_it_is_taken_away():
    documents = {}
    apply(documents, "a", {"n": 1})
    apply(documents, "a", {"n": 2})
    apply(documents, "b", {"n": 3})
    apply(documents, "b", None)
    apply(documents, "c", None)
    assert documents == {"a": {"n": 2}}


def test_a_put_that_must_be_acknowledged_fails_without_a_broker():
    board = CompactedTopic("127.0.0.1:1", "t")
    with pytest.raises(Unavailable):
        board.put("k", {"a": 1}, wait_s=0.05)
    board.put("k", {"a": 2})
    board.close(drain_s=0.05)
    with pytest.raises(Unavailable):
        board.put("k", {"a": 3})
    with pytest.raises(Unavailable):
        board.current()


def test_closing_what_was_never_used():
    CompactedTopic("127.0.0.1:1", "t").close()


def test_following_without_a_broker_can_be_ended():
    board = CompactedTopic("127.0.0.1:1", "t")
    board.start()
    assert board.version == 0
    assert board.wait_change(0, 0.05) == 0
    board.close()


class Topic:
    """A consumer of a compacted topic: records by offset, and an end that may lie above them."""

    def __init__(self, records, end):
        self.records = records
        self.end = end
        self.at = 0
        self.away = False
        self.reads = 0

    def get_watermark_offsets(self, partition, timeout):
        if self.away:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return 0, self.end

    def assign(self, partitions):
        self.at = 0

    def consume(self, most, timeout):
        self.reads += 1
        if self.away:
            return []
        found = [(at, each) for at, each in sorted(self.records.items()) if at >= self.at][:1]
        if not found:
            self.at = self.end
            return [
                Message(topic="t", error=KafkaError(KafkaError._PARTITION_EOF), offset=self.end)
            ]
        self.at = found[0][0] + 1
        return [Message(topic="t", key=found[0][1][0], value=found[0][1][1], offset=found[0][0])]

    def close(self):
        pass


def reading(topic):
    board = CompactedTopic("127.0.0.1:1", "t")
    reader = board.log_reader()
    reader._consumer = reader._ends._consumer = topic
    return board, reader


def test_a_log_is_read_on_from_where_it_was_and_only_when_its_end_moved():
    topic = Topic({2: (b"a", b'{"n": 1}'), 5: (b"b", b'{"n": 2}')}, end=8)
    _, reader = reading(topic)
    assert reader.advance() == News([("a", {"n": 1}), ("b", {"n": 2})], from_start=True)
    reads = topic.reads
    assert reader.advance() == News([], from_start=False)
    assert topic.reads == reads
    topic.records[8], topic.end = (b"a", None), 9
    assert reader.advance() == News([("a", None)], from_start=False)


def test_a_log_that_became_shorter_is_read_from_its_start():
    topic = Topic({0: (b"a", b"{}"), 1: (b"b", b"{}")}, end=2)
    _, reader = reading(topic)
    reader.advance()
    topic.records, topic.end = {0: (b"c", b"{}")}, 1
    assert reader.advance() == News([("c", {})], from_start=True)


def test_what_is_no_document_is_skipped_and_counted():
    topic = Topic({0: (b"a", b"{"), 1: (None, b"{}"), 2: (b"\xff", b"{}"), 3: (b"b", b"[]")}, end=4)
    board, reader = reading(topic)
    given = reader.advance().records
    assert [value for _, value in given] == [None] * 4
    assert [key for key, _ in given if key in ("a", "b")] == ["a", "b"]
    assert board.skipped == 4


def test_what_was_read_before_the_broker_fell_silent_is_not_lost(monkeypatch):
    monkeypatch.setattr("k2.tape.topic_reader._SILENT_MAX", 2)
    topic = Topic({0: (b"a", b"{}"), 1: (b"b", b"{}")}, end=2)
    _, reader = reading(topic)
    consume = topic.consume

    def silent(most, timeout):
        topic.away = topic.at == 1
        return consume(most, timeout)

    topic.consume = silent
    with pytest.raises(Unavailable):
        reader.advance()
    with pytest.raises(Unavailable):
        reader.advance()
    topic.away, topic.consume = False, consume
    assert reader.advance() == News([("a", {}), ("b", {})], from_start=True)


def test_a_closed_log_is_not_read():
    board, reader = reading(Topic({}, end=0))
    board.close()
    with pytest.raises(Unavailable):
        reader.advance()
