"""Acceptance of the tape's records: decode, check the place and the values, fold.

Writer, tail, verification and dead-letter replay judge by this one path, so they reach the same
verdicts. What is judged is a prefix of a batch: where something about a later record cannot be
found out now (its schema id has to be looked up first), the rest of the batch is judged in a later
step. Verdicts do not depend on how the tape is cut into batches.

Most faults depend only on the record's bytes and on the time the broker appended it. Three depend
on the process that judges (`events.RETRIABLE_FAULTS`): a schema id that the registry does not know
may be registered later, a symbol without a partition may be placed later, and a record that this
version of K2 fails on is good to one without the defect. The commit decides on those
(`lake/dead_letters/superseded.py`).

A defect of K2 must not stop every symbol: a batch that raises an unforeseen error is halved until
the record that raises stands alone, and that record is the fault INTERNAL. Only so many are taken
in an hour; beyond them the partition stands still, since the defect is then in no single record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from k2 import limits
from k2.clock import Clock
from k2.errors import K2Error, Reason, Unavailable
from k2.market.events import ANYWHERE, Bools, Bytes, Fault, TradeColumns, check
from k2.market.fold import FoldState, Verdict, fold
from k2.market.instrument import Instrument
from k2.tape.avro.trade_codec import Decoder
from k2.tape.consumer import RawBatch
from k2.tape.ports import Placement

Recorded: TypeAlias = Callable[[TradeColumns], TradeColumns]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """Records before the fold.

    Attributes:
        batch: as they are on the tape.
        columns: decoded, each with its fault.
        undecided: which faults a process that knows more may not find. bool[n]
        rest: the records after them, to be judged in a later step; None where there are none.
    """

    batch: RawBatch
    columns: TradeColumns
    undecided: Bools
    rest: RawBatch | None


@dataclass(frozen=True)
class Judged(Checked):
    """Records after the fold.

    Attributes:
        verdicts: a `Verdict` per record. uint8[n]
        faults: why each record is dead; NONE for the others. uint8[n]
        state: what the fold remembers after them.
        late: see `fold.Judgement`.
    """

    verdicts: Bytes
    faults: Bytes
    state: FoldState
    late: Mapping[Instrument, int]

    def accepted(self) -> TradeColumns:
        """Select the records that are rows."""
        accepted = self.verdicts == Verdict.ACCEPTED
        return self.columns if accepted.all() else self.columns.take(accepted)


class Acceptance:
    """Judges the batches of one reader. One thread uses it.

    Args:
        decoder, placement: see their classes.
        clock: for the age of outages and of faults of K2's own.
        internal_max: records of a partition that K2 may fail on in an hour.
    """

    def __init__(
        self,
        decoder: Decoder,
        placement: Placement,
        clock: Clock,
        internal_max: int = limits.INTERNAL_FAULTS_MAX,
    ) -> None:
        self._decoder = decoder
        self._placement = placement
        self._clock = clock
        self._internal_max = internal_max
        self._internal: dict[int, dict[int, float]] = {}  # partition → offset → when it was found
        self._standing: dict[int, tuple[float, Unavailable]] = {}
        self._outages: dict[int, _Outage] = {}

    def decode_together(self, batches: Sequence[RawBatch]) -> dict[int, TradeColumns]:
        """Decode small batches at once, each of another partition: one costs as much as all.

        Returns:
            By partition what `judge` may be given; nothing where it could differ from what each
                batch gives: where a record is no plain trade, or cannot be decoded now.
        """
        values = [value for batch in batches for value in batch.values]
        offsets = np.concatenate([batch.offset for batch in batches])
        columns = None
        with suppress(Exception):  # `judge` meets it again, in the partition where it belongs
            columns = self._decoder.decode(RawBatch(ANYWHERE, offsets, values, 0))
        if columns is None or len(columns) < len(values) or not _are_plain(columns):
            return {}
        ends = np.cumsum([len(batch) for batch in batches]).tolist()
        return {
            batch.partition: columns.between(end - len(batch), end)
            for batch, end in zip(batches, ends, strict=True)
        }

    def judge(
        self,
        batch: RawBatch,
        state: FoldState,
        recorded: Recorded | None = None,
        decoded: TradeColumns | None = None,
    ) -> Judged:
        """Judge the next records of a partition, at least one of them.

        Args:
            batch: of one partition.
            state: what the fold remembers of the records before it.
            decoded: what `decode_together` gave for the batch.
            recorded: gives the records as they were judged before: with the faults recorded then,
                without duplicates of rows that are gone; None: the records as they are found now.

        Raises:
            Unavailable: REGISTRY_UNAVAILABLE or TAPE_UNAVAILABLE when the first record cannot be
                judged before a part is back; INTERNAL when K2 fails on too many records of the
                partition. Other partitions are not concerned.
            Data: SCHEMA_CONFLICT, CHECKSUM_MISMATCH: what a schema id means is in doubt.
        """
        rest: RawBatch | None = None
        while True:
            self._assert_goes_on(batch.partition)
            try:
                return _folded(self._checked(batch, decoded), state, recorded, rest)
            except (K2Error, OSError, MemoryError):
                raise
            except Exception as error:  # a defect: the record that shows it is set aside
                decoded = None
                if len(batch) > 1:
                    half = len(batch) // 2
                    later = batch.between(half, len(batch))
                    rest = later if rest is None else joined(later, rest)
                    batch = batch.between(0, half)
                elif int(batch.offset[0]) in self._internal.get(batch.partition, ()):
                    raise  # it fails without the record's bytes, too
                else:
                    self.set_aside(batch.partition, [int(batch.offset[0])], error)

    def _assert_goes_on(self, partition: int) -> None:
        until_s, why = self._standing.get(partition, (0.0, None))
        if why is not None and self._clock.monotonic_s() < until_s:
            raise why.with_traceback(None)  # else it would hold what every call before had at hand

    def set_aside(self, partition: int, offsets: Collection[int], error: Exception) -> None:
        """Judge these records as the fault INTERNAL from now on; the error is logged.

        Once more are set aside than may be in an hour, `judge` raises for the partition until the
        hour is over.
        """
        now_s = self._clock.monotonic_s()
        where = {"partition": partition, "offsets": sorted(offsets)}
        _log.error("K2 fails on records of the tape", exc_info=error, extra=where)
        found = self._internal.setdefault(partition, {})
        recent = [at_s for at_s in found.values() if now_s - at_s < limits.INTERNAL_FAULTS_S]
        new = set(offsets) - found.keys()
        if len(recent) + len(new) <= self._internal_max:
            found |= dict.fromkeys(new, now_s)
            return
        over_s = min(recent, default=now_s) + limits.INTERNAL_FAULTS_S
        failure = Unavailable(
            Reason.PARTITION_STOPPED,
            f"K2 failed on more than {self._internal_max} records of partition {partition} in an"
            f" hour ({error!r}): it stands still; report the defect with a dead letter of it",
            retry_after_s=limits.COMMIT_RETRY_MAX_S,
            metadata={"partition": str(partition)},
        )
        self._standing[partition] = over_s, failure

    # --- before the fold ------------------------------------------------------------------------

    def _checked(self, batch: RawBatch, decoded: TradeColumns | None) -> Checked:
        """Decode the longest prefix that can be decoded now and check its values and its place."""
        aside = self._internal.get(batch.partition, {})
        internal = np.isin(batch.offset, np.array(sorted(aside), dtype=np.int64))
        blanked = batch
        if internal.any():
            values = [None if bad else one for bad, one in zip(internal, batch.values, strict=True)]
            blanked = replace(batch, values=values)
        try:
            known = decoded if blanked is batch else None
            columns = known or self._decoder.decode(blanked)
        except Unavailable as error:
            if error.reason is not Reason.REGISTRY_UNAVAILABLE or not self._unasked(batch):
                raise
            only = batch.between(0, 1)
            columns = self._decoder.decode(replace(only, values=[None]))
            columns.fault[:] = Fault.UNKNOWN_SCHEMA
            return _prefix(batch, columns, np.ones(1, np.bool_))
        columns.fault[internal[: len(columns)]] = Fault.INTERNAL
        homes = self._placement.refresh_for(_instruments(columns))
        appended = batch.append_time
        columns = check(
            columns,
            homes,
            batch.partition,
            None if appended is None else appended[: len(columns)],
        )
        return _prefix(batch, columns, _undecided(columns, homes))

    def _unasked(self, batch: RawBatch) -> bool:
        """Return whether the first record is judged though its schema id cannot be asked for."""
        now_s = self._clock.monotonic_s()
        outage = self._outages.get(batch.partition)
        if outage is None or now_s - outage.last_s > limits.UNASKED_OVER_S:
            outage = self._outages[batch.partition] = _Outage(now_s, now_s)
        outage.last_s = now_s
        waited = now_s - outage.since_s >= limits.UNASKED_AFTER_S
        if not (self._decoder.warm and waited and outage.judged < limits.UNASKED_MAX):
            return False
        outage.judged += 1
        return True


@dataclass
class _Outage:
    """A registry that did not answer, as one partition met it."""

    since_s: float
    last_s: float
    judged: int = 0


def _folded(
    checked: Checked, state: FoldState, recorded: Recorded | None, rest: RawBatch | None
) -> Judged:
    columns = checked.columns if recorded is None else recorded(checked.columns)
    after, verdicts, late, faults = fold(state, columns)
    if rest is not None and checked.rest is not None:
        rest = joined(checked.rest, rest)
    return Judged(
        checked.batch,
        columns,
        checked.undecided,
        rest or checked.rest,
        verdicts,
        faults,
        after,
        late,
    )


def _are_plain(columns: TradeColumns) -> bool:
    beside = columns.vendor_data is not None or columns.optional is not None
    return not (beside or columns.fault.any())


def _prefix(batch: RawBatch, columns: TradeColumns, undecided: Bools) -> Checked:
    count = len(columns)
    rest = batch.between(count, len(batch)) if count < len(batch) else None
    return Checked(batch.between(0, count), columns, undecided, rest)


def _instruments(columns: TradeColumns) -> Collection[Instrument]:
    """Return the instruments of records without a fault: only their place matters."""
    good = columns.label[columns.fault == Fault.NONE]
    used = np.flatnonzero(np.bincount(good, minlength=1)) if len(good) else good
    return {columns.labels[code].instrument for code in used.tolist()}


def _undecided(columns: TradeColumns, known: Mapping[Instrument, int]) -> Bools:
    """Which faults come of what this process does not know, or of its version."""
    unplaced = np.array([label.instrument not in known for label in columns.labels] + [False])
    undecided: Bools = (
        (columns.fault == Fault.UNKNOWN_SCHEMA)
        | (columns.fault == Fault.INTERNAL)
        | ((columns.fault == Fault.WRONG_PARTITION) & unplaced[columns.label])
    )
    return undecided


def joined(first: RawBatch, then: RawBatch) -> RawBatch:
    """Two batches of one partition, the second right behind the first."""
    appended = None
    if first.append_time is not None and then.append_time is not None:
        appended = np.concatenate((first.append_time, then.append_time))
    return RawBatch(
        first.partition,
        np.concatenate((first.offset, then.offset)),
        first.values + then.values,
        then.next_offset,
        append_time=appended,
    )
