"""The topics of the tape: their names, their deployment, and their description by a cluster."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from k2 import limits
from k2.errors import Data, NotFound, Reason, Unavailable
from k2.market import schema
from k2.market.instrument import Tier
from k2.settings import TapeSettings
from k2.tape.kafka_client import configuration, retry_transient, translate
from k2.tape.schema_registry import SchemaStore

PARTITIONS = "k2.partitions"  # which partition a symbol keeps: `partition_map.py`
HEARTBEATS = "k2.heartbeats"
COVERAGE = "k2.high-water"  # the coverage of each feed, per symbol
BACKFILLS = "k2.backfills"  # operators' requests that no feed has taken yet
DEAD_LETTERS = "k2.dead-letters"
REPLAYS = "k2.replays"  # which dead letters were put back on the tape, by name
DEGRADATION = "k2.degradation"  # the platform's level, an override, injected pressures
TRANSITIONS = "k2.transitions"  # the changes of that level, in order: `transition_topic.py`
GAPS = "k2.gaps"  # which trade ids are missing, and what became of them: `gap_topic.py`

# Why a tape does not fit what a lake holds: only an operator's decision resolves it.
INCOMPATIBLE_TAPE = frozenset(
    {
        Reason.CLUSTER_CHANGED,
        Reason.PARTITIONS_CHANGED,
        Reason.TOPIC_RECREATED,
        Reason.TAPE_TRUNCATED,
        Reason.RETENTION_OVERTOOK,
        Reason.RULES_CHANGED,
    }
)
RECOVERY_HINT = (
    "point K2 at the tape this lake was written from, or end this epoch and go on with the tape as"
    " it is: k2 tape new-epoch"
)

_COMPACTED = (PARTITIONS, HEARTBEATS, COVERAGE, BACKFILLS, REPLAYS, DEGRADATION)
_HOUR_MS = 3_600_000
_OFFSET_END = -1  # librdkafka's logical offsets
_OFFSET_BEGINNING = -2


@dataclass(frozen=True)
class TopicDescription:
    """A cluster's description of a topic, to compare with the one in a snapshot.

    Attributes:
        cluster_id: of the Kafka cluster.
        topic: its name.
        topic_id: changes when a topic of the same name is made again.
        partitions: how many.
        log_start: offset of the oldest record of each partition that retention left.
        log_end: offset the next record of each partition will get.
    """

    cluster_id: str
    topic: str
    topic_id: str
    partitions: int
    log_start: tuple[int, ...]
    log_end: tuple[int, ...]


class TopicSize(NamedTuple):
    """How much a topic holds: offsets from its oldest record to its end, and those ever given."""

    topic: str
    partitions: int
    messages: int
    written: int


def partition_count(tape: TapeSettings) -> int:
    """Partitions of the trades topic: each tier has as many."""
    return len(Tier) * tape.partitions_per_tier


def subject(topic: str) -> str:
    """Return the registry subject of a topic's values."""
    return f"{topic}-value"


def deploy(tape: TapeSettings, schemas: SchemaStore) -> int:
    """Make the topics that are missing, let the others follow the settings, register the schemas.

    It can be repeated.

    Returns:
        The schema id that producers put on trades.

    Raises:
        Data: PARTITIONS_CHANGED when the trades topic exists with another partition count.
        Unavailable: TAPE_UNAVAILABLE or REGISTRY_UNAVAILABLE.
    """
    admin = AdminClient(configuration(tape.bootstrap))
    wanted = layout(tape)
    made = admin.create_topics(wanted, operation_timeout=10)
    _configure(admin, [topic for topic in wanted if not _created(topic.topic, made[topic.topic])])
    _check_partitions(admin, tape)
    _await_leaders(tape)
    schemas.register(subject(GAPS), schema.avro_schema(schema.GAP))
    return schemas.register(subject(tape.topic), schema.avro_schema(schema.TRADE))


def topic_id(tape: TapeSettings) -> str:
    """Return the id of the present trades topic: `partition_map.py` keeps a map for each.

    Raises:
        NotFound: there is none.
        Unavailable: TAPE_UNAVAILABLE.
    """
    admin = AdminClient(configuration(tape.bootstrap))
    return str(retry_transient(lambda: _describe(admin, tape.topic)).topic_id)


def layout(tape: TapeSettings) -> list[NewTopic]:
    """Every topic of a tape, as it is made: bounded in records and in bytes.

    The age of a record is the broker's word, so retention is right whatever the clock of its writer
    says; by the writer's word, Kafka refuses records from more than an hour ahead.
    """
    record_bytes = limits.RECORD_BYTES_MAX + limits.MESSAGE_OVERHEAD_BYTES_MAX
    trades = {
        "retention.ms": str(tape.retention_hours * _HOUR_MS),
        "retention.bytes": str(tape.retention_bytes_per_partition),
        "segment.bytes": str(min(128 * limits.MIB, tape.retention_bytes_per_partition)),
        "max.message.bytes": str(record_bytes),
    }
    compacted = {
        "cleanup.policy": "compact",
        "segment.bytes": str(4 * limits.MIB),
        "min.cleanable.dirty.ratio": "0.1",
        "max.message.bytes": str(record_bytes),
    }
    dead = {
        "retention.ms": "-1",
        "retention.bytes": str(limits.DEAD_LETTERS_RETENTION_BYTES),
        "max.message.bytes": str(limits.DEAD_LETTER_BYTES_MAX + limits.MESSAGE_OVERHEAD_BYTES_MAX),
    }
    gaps = {
        "retention.ms": "-1",
        "retention.bytes": str(limits.GAPS_RETENTION_BYTES),
        "max.message.bytes": str(record_bytes),
    }
    aged = {"message.timestamp.type": "LogAppendTime"}
    return [
        NewTopic(tape.topic, partition_count(tape), config=trades | aged),
        *(NewTopic(name, 1, config=compacted | aged) for name in _COMPACTED),
        NewTopic(DEAD_LETTERS, 1, config=dead | aged),
        NewTopic(GAPS, 1, config=gaps | aged),
        NewTopic(TRANSITIONS, 1, config=gaps | aged),
    ]


def _configure(admin: AdminClient, topics: Sequence[NewTopic]) -> None:
    """Apply changed settings to existing topics."""
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic.topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in (topic.config or {}).items()
            ],
        )
        for topic in topics
    ]
    if not resources:
        return
    for resource, future in admin.incremental_alter_configs(resources).items():
        try:
            future.result(limits.TAPE_REQUEST_S * 2)
        except KafkaException as error:
            raise translate(error, f"cannot configure topic {resource.name}") from error
        except TimeoutError as error:
            raise _silent(f"configuring topic {resource.name}") from error


def _created(topic: str, future: Future[None]) -> bool:
    """Wait for a topic to be made; whether it was not there before."""
    try:
        future.result(limits.TAPE_REQUEST_S * 2)
        return True
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise translate(error, f"cannot create topic {topic}") from error
        return False
    except TimeoutError as error:
        raise _silent(f"creating topic {topic}") from error


def _check_partitions(admin: AdminClient, tape: TapeSettings) -> None:
    found = retry_transient(lambda: len(_made(admin, tape.topic).partitions))
    wanted = partition_count(tape)
    if found != wanted:
        raise Data(
            Reason.PARTITIONS_CHANGED,
            f"topic {tape.topic} has {found} partitions, settings ask for {wanted}: the count of "
            f"an epoch never changes; set tape.partitions_per_tier to {found // len(Tier)}",
            metadata={"topic": tape.topic, "found": str(found), "wanted": str(wanted)},
        )


def _made(admin: AdminClient, topic: str) -> Any:  # noqa: ANN401 a TopicDescription
    """Describe a topic that was just made, which not every request shows yet."""
    try:
        return _describe(admin, topic)
    except NotFound as error:
        raise Unavailable(Reason.TAPE_UNAVAILABLE, error.message) from error


def _await_leaders(tape: TapeSettings) -> None:
    """Wait until every partition answers: a new topic exists before its leaders do."""
    asker = TapeAdmin(tape.bootstrap)
    try:
        retry_transient(lambda: asker.log_ends(tape.topic, partition_count(tape)))
        for topic in (*_COMPACTED, DEAD_LETTERS, GAPS, TRANSITIONS):
            retry_transient(lambda topic=topic: asker.log_ends(topic, 1))  # type: ignore[misc]
    finally:
        asker.close()


def _describe(admin: AdminClient, topic: str) -> Any:  # noqa: ANN401 a TopicDescription
    futures = admin.describe_topics(TopicCollection([topic]), request_timeout=limits.TAPE_REQUEST_S)
    try:
        return futures[topic].result(limits.TAPE_REQUEST_S * 2)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise NotFound(Reason.UNKNOWN_TOPIC, f"topic {topic} does not exist") from error
        raise translate(error, f"cannot describe topic {topic}") from error
    except TimeoutError as error:
        raise _silent(f"describing topic {topic}") from error


def _silent(doing: str) -> Unavailable:
    return Unavailable(
        Reason.TAPE_UNAVAILABLE,
        f"the broker does not answer ({doing})",
        retry_after_s=limits.RECONNECT_MAX_S,
    )


class TapeAdmin:
    """Asks the cluster about topics. Thread-safe.

    Concurrent `log_ends` share requests: one that waits takes the answer of any request that began
    after it asked, so readers may be many and requests stay few, and no answer is older than its
    question.
    """

    def __init__(self, bootstrap: str) -> None:
        self._admin = AdminClient(configuration(bootstrap))
        self._asker = Consumer(
            configuration(bootstrap, group_id="k2-admin", enable_auto_commit=False)
        )
        self._lock = threading.Lock()
        self._started = 0
        self._answers: dict[tuple[str, int], tuple[int, tuple[int, ...]]] = {}

    def facts(self, topic: str, *, patient: bool = True) -> TopicDescription:
        """Describe a topic, in three round trips.

        Args:
            topic: its name.
            patient: whether to try again for a while when the broker does not answer.

        Raises:
            NotFound: the topic does not exist.
            Unavailable: TAPE_UNAVAILABLE.
        """
        return retry_transient(lambda: self._facts(topic)) if patient else self._facts(topic)

    def _facts(self, topic: str) -> TopicDescription:
        described = _describe(self._admin, topic)
        try:
            cluster = self._admin.describe_cluster(request_timeout=limits.TAPE_REQUEST_S)
            cluster_id = cluster.result(limits.TAPE_REQUEST_S * 2).cluster_id
        except KafkaException as error:
            raise translate(error, "cannot describe the cluster") from error
        except TimeoutError as error:
            raise _silent("describing the cluster") from error
        partitions = len(described.partitions)
        return TopicDescription(
            cluster_id=str(cluster_id),
            topic=topic,
            topic_id=str(described.topic_id),
            partitions=partitions,
            log_start=self._ask(topic, partitions, _OFFSET_BEGINNING),
            log_end=self.log_ends(topic, partitions),
        )

    def bounds(self, facts: TopicDescription) -> TopicDescription:
        """Return the description with the topic's present log starts and ends.

        Cheap while the broker is away, when asking the cluster who it is costs a core.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        start = self._ask(facts.topic, facts.partitions, _OFFSET_BEGINNING)
        return replace(facts, log_start=start, log_end=self.log_ends(facts.topic, facts.partitions))

    def log_ends(self, topic: str, partitions: int) -> tuple[int, ...]:
        """Return the offset that each partition's next record will get, in one round trip.

        Every record acknowledged before the call lies below the answer.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        arrived = self._started
        if not self._lock.acquire(timeout=limits.TAPE_REQUEST_S):
            raise _silent(f"asking where {topic} ends")  # others have waited for as long
        try:
            number, ends = self._answers.get((topic, partitions), (0, ()))
            if number > arrived:
                return ends
            self._started += 1
            ends = self._ask(topic, partitions, _OFFSET_END)
            self._answers[topic, partitions] = (self._started, ends)
            return ends
        finally:
            self._lock.release()

    def sizes(self, tape: TapeSettings) -> tuple[TopicSize, ...]:
        """Return the size of each topic of a tape, in two round trips each.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        found = []
        for made in layout(tape):
            start = self._ask(made.topic, made.num_partitions, _OFFSET_BEGINNING)
            written = sum(self.log_ends(made.topic, made.num_partitions))
            size = TopicSize(made.topic, made.num_partitions, written - sum(start), written)
            found.append(size)
        return tuple(found)

    def offsets_since(self, topic: str, partitions: int, time_us: int) -> tuple[int, ...]:
        """Return per partition the first offset written at or after a time, or its end if none.

        Raises:
            Unavailable: TAPE_UNAVAILABLE.
        """
        found = self._ask(topic, partitions, time_us // 1000)
        ends = self.log_ends(topic, partitions)
        return tuple(end if at < 0 else at for at, end in zip(found, ends, strict=True))

    def _ask(self, topic: str, partitions: int, logical: int) -> tuple[int, ...]:
        asked = [TopicPartition(topic, each, logical) for each in range(partitions)]
        try:
            answered = self._asker.offsets_for_times(asked, timeout=limits.TAPE_REQUEST_S)
        except KafkaException as error:
            raise translate(error, f"cannot list the offsets of {topic}") from error
        offsets = [0] * partitions
        for position in answered:
            if position.error is not None:
                raise translate(position.error, f"cannot list the offsets of {topic}")
            offsets[position.partition] = position.offset
        return tuple(offsets)

    def close(self) -> None:
        """Let the connections go."""
        self._asker.close()
