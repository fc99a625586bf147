"""The common part of K2's Kafka clients: settings, logs, errors, retries and shared answers.

librdkafka reconnects by itself without end. So an error is one of three: it passes (`Unavailable`,
try again), the tape contradicts what we remember of it (`Data`), or the request is wrong.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from confluent_kafka import KafkaError, KafkaException

from k2 import limits
from k2.errors import K2Error, Overloaded, Reason, Unavailable, error_of

T = TypeVar("T")

_log = logging.getLogger(__name__)
_log.setLevel(logging.ERROR)  # below: each lost connection, which `connected` shows

_REASONS: dict[int, Reason] = {
    KafkaError._QUEUE_FULL: Reason.QUEUE_FULL,
    KafkaError.OFFSET_OUT_OF_RANGE: Reason.RETENTION_OVERTOOK,
    KafkaError._AUTO_OFFSET_RESET: Reason.RETENTION_OVERTOOK,
    KafkaError._LOG_TRUNCATION: Reason.TAPE_TRUNCATED,
    KafkaError.MSG_SIZE_TOO_LARGE: Reason.LIMIT_OUT_OF_BOUNDS,
    KafkaError.INVALID_MSG_SIZE: Reason.LIMIT_OUT_OF_BOUNDS,
}
_CRITICAL = 2  # librdkafka's levels are syslog's
_SILENCE = frozenset({"_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE"})


def configuration(bootstrap: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 librdkafka's
    """Make a client's settings; keywords have underscores where librdkafka's names have dots."""
    return {
        "bootstrap.servers": bootstrap,
        "client.id": "k2",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": int(limits.RECONNECT_MAX_S * 1000),
        "socket.keepalive.enable": True,
        "allow.auto.create.topics": False,
        "log_level": _CRITICAL,
        # A fenced broker may answer without naming any broker. Without rebootstrap, a client then
        # has no broker left to ask.
        "metadata.recovery.strategy": "rebootstrap",
        "metadata.recovery.rebootstrap.trigger.ms": 5000,
        "logger": _log,
    } | {_dotted(name): value for name, value in more.items()}


def _dotted(name: str) -> str:
    return name if name.endswith("_cb") else name.replace("_", ".")


def translate(error: KafkaError | KafkaException, doing: str) -> K2Error:
    """Return the K2 error that a Kafka error means; an unknown one is taken to be transient."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    reason = _REASONS.get(cause.code(), Reason.TAPE_UNAVAILABLE)
    meant = error_of(reason, f"{doing}: {cause.str()}", metadata={"kafka": cause.name()})
    if isinstance(meant, Unavailable | Overloaded):
        meant.retry_after_s = limits.RECONNECT_MAX_S
    return meant


class SharedAnswer(Generic[T]):
    """Asks one question for all callers that wait together. Thread-safe.

    A call that waits for another takes its answer, or its failure, if that was asked for after the
    call began. So no answer is older than its question.

    Attributes:
        asking: held while the question is asked.
    """

    def __init__(self, question: Callable[[], T]) -> None:
        self.asking = threading.RLock()
        self._question = question
        self._asked = 0
        self._answer: tuple[int, T | Unavailable | None] = (0, None)

    def ask(self) -> T:
        """Return the answer; raises what the question raises."""
        arrived = self._asked
        with self.asking:
            number, answer = self._answer
            if answer is None or number <= arrived:
                number = self._asked = self._asked + 1
                try:
                    answer = self._question()
                except Unavailable as error:
                    answer = error
                self._answer = number, answer
        if isinstance(answer, Unavailable):
            raise answer
        return answer


def retry_transient(attempt: Callable[[], T], pause_s: float = limits.TAPE_RETRY_S) -> T:
    """Return what `attempt` returns, tried again while the broker says "not yet".

    For what passes by itself within seconds, such as leaders that are being elected. A broker that
    does not answer at all has been waited for by the attempt itself.

    Raises:
        Unavailable: the last failure, after `limits.TAPE_ATTEMPTS_MAX` tries.
    """
    pause = threading.Event()
    for _ in range(limits.TAPE_ATTEMPTS_MAX - 1):
        try:
            return attempt()
        except Unavailable as error:
            if error.metadata.get("kafka") in _SILENCE:
                raise
            pause.wait(pause_s)
    return attempt()
