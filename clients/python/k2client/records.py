"""Defines K2's answers as frozen records: times are datetimes in UTC, ids are integers.

The fields are those of the messages in `protos/k2/v1`, which document them. The value of an
enumeration is its name without prefix (`NORMAL`, `SERVING`, `COMPLETE`); an unset field is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class OffsetVector:
    """A position on the tape: the next offset of each partition of an epoch."""

    epoch: int
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class TimeRange:
    """A half-open range of event times; None is unbounded."""

    start_time: datetime | None
    end_time: datetime | None


@dataclass(frozen=True)
class Gap:
    """A run of trade ids that K2 has not seen, between two that it has; both ends inclusive."""

    exchange: str
    symbol: str
    first_trade_id: int
    last_trade_id: int


@dataclass(frozen=True)
class MissingPart:
    """A side (`lake` or `tail`) that an answer lacks, and why."""

    part: str
    reason: str
    message: str


@dataclass(frozen=True)
class Provenance:
    """The origin of an answer; its `token` requests the same rows again at any later time."""

    snapshot_id: int | None
    snapshot_commit_time: datetime | None
    lake_positions: OffsetVector
    end_positions: OffsetVector
    planned_time: datetime | None
    level: str
    source: str
    completeness: str
    gaps: tuple[Gap, ...]
    gaps_total: int
    missing: tuple[MissingPart, ...]
    rows_lake: int | None
    rows_tail: int | None
    freshness_ms: float | None
    newest_receive_time: datetime | None
    token: str | None
    range: TimeRange
    covered_until_time: datetime | None
    as_of_ahead_ms: float | None


@dataclass(frozen=True)
class Estimate:
    """The cost of reading a planned query; `rows` is an upper bound."""

    files: int
    chunks: int
    bytes: int
    rows: int


@dataclass(frozen=True)
class PartitionCounters:
    """The records of one partition since the epoch began, counted by outcome."""

    partition: int
    accepted: int
    duplicate: int
    dead: int


@dataclass(frozen=True)
class Snapshot:
    """One committed state of the lake."""

    snapshot_id: int
    parent_id: int | None
    commit_time: datetime | None
    positions: OffsetVector
    counters: tuple[PartitionCounters, ...]
    rows_total: int
    rows_added: int
    files_total: int
    bytes_total: int
    operation: str
    writer_id: str
    commit_id: str
    topic_id: str
    cluster_id: str


@dataclass(frozen=True)
class Pressure:
    """One signal of one process; a `reading` of None is a failed reading and counts as high."""

    signal: str
    reading: float | None
    pressure: float
    injected: bool


@dataclass(frozen=True)
class ProcessDegradation:
    """The level of one process and its pressures, highest first."""

    process: str
    state: str
    level: str
    pressures: tuple[Pressure, ...]
    report_time: datetime | None


@dataclass(frozen=True)
class Override:
    """An operator's level, which replaces the platform's until it expires."""

    level: str
    reason: str
    set_time: datetime | None
    expire_time: datetime | None


@dataclass(frozen=True)
class Degradation:
    """The level of the platform: an override's, else the one that follows from its processes.

    With `shadow`, levels are published and not obeyed.
    """

    level: str
    summary: str
    override: Override | None
    injected: bool
    shadow: bool
    processes: tuple[ProcessDegradation, ...]
    time: datetime | None


@dataclass(frozen=True)
class Transition:
    """A change of the level, or of an override; `process` and `signal` are empty of an override."""

    time: datetime | None
    from_level: str
    to_level: str
    cause: str
    process: str
    signal: str
    reading: float | None
    pressure: float
    threshold: float
    injected: bool
    reason: str


@dataclass(frozen=True)
class SymbolFeed:
    """The counters of one symbol of a feed since its process started."""

    symbol: str
    acknowledged_trade_id: int | None
    gaps: int
    ids_missing: int
    duplicates: int
    reordered: int
    resets: int


@dataclass(frozen=True)
class Feed:
    """A process that reads the stream of one venue."""

    name: str
    state: str
    exchange: str
    source: str
    venue_url: str
    connected: bool
    symbols: tuple[SymbolFeed, ...]
    trades_acknowledged: int
    frames_skipped: int
    frames_malformed: int
    reconnects: int
    counters: Mapping[str, str]
    report_time: datetime | None


@dataclass(frozen=True)
class GapRecord:
    """A run of missed trade ids, both ends inclusive, and its state in the ledger."""

    exchange: str
    symbol: str
    first_trade_id: int
    last_trade_id: int
    state: str
    cause: str
    detect_time: datetime | None
    record_time: datetime | None
    fill_time: datetime | None
    reason: str
    feed: str


@dataclass(frozen=True)
class BackfillPlan:
    """An accepted request to fetch trade ids, and its cost; `eta_s` is a lower bound."""

    exchange: str
    symbol: str
    first_trade_id: int
    last_trade_id: int
    requests: int
    eta_s: float


@dataclass(frozen=True)
class Component:
    """One part of the platform, such as the broker or a feed."""

    name: str
    state: str
    pid: int | None
    run_id: str
    addresses: Mapping[str, str]
    level: str | None
    counters: Mapping[str, str]
    report_time: datetime | None


@dataclass(frozen=True)
class Topic:
    """A topic of the tape: its size in offsets, and the records ever written to it."""

    name: str
    partitions: int
    messages: int
    messages_written: int


@dataclass(frozen=True)
class TopicSizes:
    """All topics of the tape at one moment."""

    topics: tuple[Topic, ...]
    time: datetime | None


@dataclass(frozen=True)
class Status:
    """The state of the platform and of each of its components."""

    state: str
    level: str
    source: str
    components: tuple[Component, ...]
    version: str
    time: datetime | None


@dataclass(frozen=True)
class Verification:
    """The result of a verification; `report` is the document that `k2 verify --json` prints."""

    ok: bool
    exit_code: int
    message: str
    report: Mapping[str, object]


@dataclass(frozen=True)
class Compaction:
    """The result of merging small files."""

    merges: int
    files_merged: int
    rows_rewritten: int
    abandoned: int
    files_total: int
    bytes_total: int
    message: str


@dataclass(frozen=True)
class Expiry:
    """The result of expiring snapshots and removing files."""

    snapshots_dropped: int
    snapshots_kept: int
    files_removed: int
    bytes_removed: int
    files_waiting: int
    bytes_waiting: int
    message: str


@dataclass(frozen=True)
class DeadLetter:
    """One record that K2 cannot store as a row.

    `stored` says whether the table of dead letters holds it already. `overruled` says that it is a
    row of the lake after all, because it was judged again before its commit.
    """

    name: str
    origin: str
    origin_epoch: int
    origin_partition: int
    origin_offset: int
    schema_id: int | None
    fault: str
    error: str
    judged_time: datetime | None
    letter_offset: int
    stored: bool
    replay_time: datetime | None
    overruled: bool


@dataclass(frozen=True)
class TradeRecord:
    """One trade as the tape holds it; price and quantity are decimal texts."""

    exchange: str
    symbol: str
    base: str
    quote: str
    asset_class: str
    source: str
    trade_id: int
    event_time: datetime | None
    receive_time: datetime | None
    price: str
    quantity: str
    side: str
    vendor_data: Mapping[str, str]


@dataclass(frozen=True)
class DeadLetterContent:
    """A dead letter and its bytes; `fault_now` and `trade` are the result of decoding them now."""

    letter: DeadLetter
    value: bytes | None
    value_bytes: int
    fault_now: str
    trade: TradeRecord | None


@dataclass(frozen=True)
class ReplayOutcome:
    """The result of replaying a letter: SENT, REFUSED, REPLAYED_BEFORE or OVERRULED."""

    name: str
    state: str
    fault: str
    message: str
    partition: int | None
    offset: int | None
