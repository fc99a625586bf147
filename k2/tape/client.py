"""What every Kafka client of K2 has in common: its settings, its logs and the names of its errors.

librdkafka reconnects for ever by itself. So an error is one of three: it passes (`Unavailable`,
try again), the tape contradicts what we remember of it (`Data`), or the request is wrong.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from k2 import limits
from k2.errors import Data, Invalid, K2Error, Overloaded, Reason, Unavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)
_log.setLevel(logging.ERROR)  # below: each lost connection, told by `connected` and `last_error`

_REASONS: dict[int, tuple[type[K2Error], Reason]] = {
    KafkaError._QUEUE_FULL: (Overloaded, Reason.QUEUE_FULL),
    KafkaError.OFFSET_OUT_OF_RANGE: (Data, Reason.RETENTION_OVERTOOK),
    KafkaError._AUTO_OFFSET_RESET: (Data, Reason.RETENTION_OVERTOOK),
    KafkaError._LOG_TRUNCATION: (Data, Reason.TAPE_TRUNCATED),
    KafkaError.MSG_SIZE_TOO_LARGE: (Invalid, Reason.LIMIT_OUT_OF_BOUNDS),
    KafkaError.INVALID_MSG_SIZE: (Invalid, Reason.LIMIT_OUT_OF_BOUNDS),
}
_CRITICAL = 2  # librdkafka's levels are syslog's
_SILENCE = frozenset({"_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE"})


def configuration(bootstrap: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 librdkafka's
    """Settings of a client; keywords have underscores where librdkafka's names have dots."""
    return {
        "bootstrap.servers": bootstrap,
        "client.id": "k2",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": int(limits.RECONNECT_MAX_S * 1000),
        "socket.keepalive.enable": True,
        "allow.auto.create.topics": False,
        "log_level": _CRITICAL,
        # A broker that stood still and is fenced for a moment names no brokers at all; a client
        # that heard this and does not begin anew asks nobody any more.
        "metadata.recovery.strategy": "rebootstrap",
        "metadata.recovery.rebootstrap.trigger.ms": 5000,
        "logger": _log,
    } | {_dotted(name): value for name, value in more.items()}


def _dotted(name: str) -> str:
    return name if name.endswith("_cb") else name.replace("_", ".")


def translate(error: KafkaError | KafkaException, doing: str) -> K2Error:
    """The K2 error that a Kafka error means; one that is not known is taken to pass."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    kind, reason = _REASONS.get(cause.code(), (Unavailable, Reason.TAPE_UNAVAILABLE))
    passing = kind in (Unavailable, Overloaded)
    return kind(
        reason,
        f"{doing}: {cause.str()}",
        metadata={"kafka": cause.name()},
        retry_after_s=limits.RECONNECT_MAX_S if passing else None,
    )


def retry_transient(attempt: Callable[[], T], pause_s: float = limits.TAPE_RETRY_S) -> T:
    """What `attempt` returns, tried again while the broker says "not yet".

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
