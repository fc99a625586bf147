"""What the lake process does about retention: it holds the lake to it, and watches the tape's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from typing import Any, Self

from k2 import limits
from k2.lake.append import TableCatalog
from k2.lake.commit import Committer
from k2.lake.pump import Pump
from k2.lake.replacer import Replacer
from k2.lake.retain import Retainer
from k2.settings import Settings
from k2.tape.danger import TapeWatch
from k2.tape.topics import TapeAdmin
from servers.heartbeat import Sample
from servers.runtime import Runtime


class Retention:
    """Both, in threads of their own while the `with` block runs."""

    def __init__(self, retainer: Retainer, watch: TapeWatch) -> None:
        self._retainer = retainer
        self._watch = watch
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=one.run, args=(self._stopping,), name=name, daemon=True)
            for name, one in (("retention", retainer), ("tape watch", watch))
        ]

    def told(self, sample: Callable[[], Sample]) -> Callable[[], Sample]:
        """A sample with what there is to be said of retention."""

        def more() -> Sample:
            told = sample()
            counters: dict[str, Any] = {
                f"retain_{name}": count for name, count in asdict(self._retainer.stats).items()
            }
            return replace(
                told, counters={**told.counters, **counters, "alerts": self._watch.alerts}
            )

        return more

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(limits.DRAIN_S / len(self._threads))  # a broker that is away holds it up


def retention_of(
    settings: Settings,
    runtime: Runtime,
    catalog: TableCatalog,
    committer: Committer,
    admin: TapeAdmin,
    pump: Pump,
) -> Retention:
    """Retention of the lake and the tape of this process, which `pump` writes and reads.

    While the `committer` commits, retention does not; `admin` is asked of the tape.
    """
    topic = settings.tape.topic
    facts = cache(lambda: admin.facts(topic))  # what changes of them is asked for each time

    def offsets_since(time_us: int) -> tuple[int, ...]:
        return admin.offsets_since(topic, facts().partitions, time_us)

    replacer = Replacer(
        catalog=catalog,
        clock=runtime.clock,
        maintainer_id=f"{runtime.run_id}-retain",
        excluding=committer.excluded,
    )
    return Retention(
        Retainer(replacer=replacer, clock=runtime.clock, settings=settings.lake),
        TapeWatch(
            facts=lambda: admin.bounds(facts()),
            offsets_since=offsets_since,
            positions=lambda: pump.stats.positions,
            clock=runtime.clock,
            settings=settings.tape,
        ),
    )
