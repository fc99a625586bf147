"""Connects to K2: one control address for requests, Flight connections for rows."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Self, TypeVar

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from k2.v1 import (
    dead_letter_service_pb2,
    dead_letter_service_pb2_grpc,
    degradation_service_pb2,
    degradation_service_pb2_grpc,
    feed_service_pb2,
    feed_service_pb2_grpc,
    platform_service_pb2,
    platform_service_pb2_grpc,
    query_service_pb2_grpc,
    snapshot_service_pb2,
    snapshot_service_pb2_grpc,
)
from k2client import records, stack
from k2client.caller_name import CLIENT_HEADER, caller_name
from k2client.convert import (
    backfill_plan,
    degradation_level,
    duration,
    gap_state,
    micros,
    record,
    trade_message,
)
from k2client.deadline import Deadline, Retry
from k2client.error_mapping import from_rpc
from k2client.errors import Internal, Invalid
from k2client.flights import FlightPool
from k2client.shape_questions import ShapeQuestion
from k2client.shape_verbs import ShapeVerbs
from k2client.times import Duration, Time, from_us
from k2client.trace_context import traceparent
from k2client.trades import Trades
from k2client.trades_request import Names, TradesQuestion, moment, name_of, names_of, snapshot_id_of

CLASS_HEADER = "k2-class"
CLASSES = ("critical", "interactive", "batch")
DEADLINE_S = 60.0
ROWS_DEADLINE_S = 3600.0
VERIFY_DEADLINE_S = 3600.0
PAGE_SIZE = 1000
SERVICES = (
    "k2.v1.QueryService",
    "k2.v1.SnapshotService",
    "k2.v1.DegradationService",
    "k2.v1.FeedService",
    "k2.v1.PlatformService",
    "k2.v1.DeadLetterService",
)

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)
R = TypeVar("R")

_CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
)


class Client(ShapeVerbs):
    """A connection; `k2client.connect` makes one. Safe for several threads.

    Every method raises `k2client.errors.K2Error` with a reason.

    Args:
        address: `host:port` of the control server.
        api_key: sent with every call; None when none is needed.
        deadline_s: the longest time of any one call, its retries included.
        retry: when to retry a call.
        request_class: how urgent its queries are; None: as the server has it by default.
    """

    def __init__(
        self,
        address: str,
        api_key: str | None,
        deadline_s: float,
        retry: Retry,
        request_class: str | None = None,
    ) -> None:
        self.address = address
        self._deadline_s = deadline_s
        self._retry = retry
        headers = {CLIENT_HEADER: secrets.token_hex(8)}  # one caller, over both planes
        if request_class is not None:
            headers[CLASS_HEADER] = request_class
        self._metadata: tuple[tuple[str, str | bytes], ...] = (
            *((("x-api-key", api_key),) if api_key else ()),
            *headers.items(),
        )
        self._channel = grpc.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._flights = FlightPool(api_key, headers)
        self._flights.kept = self._channel
        self._query = query_service_pb2_grpc.QueryServiceStub(self._channel)
        self._snapshot = snapshot_service_pb2_grpc.SnapshotServiceStub(self._channel)
        self._degradation = degradation_service_pb2_grpc.DegradationServiceStub(self._channel)
        self._feed = feed_service_pb2_grpc.FeedServiceStub(self._channel)
        self._platform = platform_service_pb2_grpc.PlatformServiceStub(self._channel)
        self._letters = dead_letter_service_pb2_grpc.DeadLetterServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; reading rows then fails.

        A forked child closes nothing: the connections belong to its parent.
        """
        if not self._flights.inherited:
            self._flights.close()
            self._channel.close()

    def trades(  # noqa: PLR0913 one parameter per part of the question, by name
        self,
        symbols: Names | None,
        *,
        exchanges: Names | None = None,
        start: Time | None = None,
        end: Time | None = None,
        last: Duration | None = None,
        limit: int | None = None,
        order: str = "asc",
        columns: Names | None = None,
        consistency: str | None = None,
        as_of: Time | None = None,
        allow_partial: bool = False,
        deadline_s: float | None = None,
    ) -> Trades:
        """Query trades of symbols in a half-open range of event times, from lake and tail as one.

        This call plans and pins the answer; the answer reads its rows on demand.

        Args:
            symbols: one or several: `"BTCUSDT"`, `["BTCUSDT", "ETHUSDT"]`, a column of a frame;
                None: all.
            exchanges: the exchanges to read; unset: every exchange that knows the symbol.
            start: the first time inside: a datetime (also of numpy or pandas), ISO 8601 text or
                microseconds since 1970.
            end: the first time outside.
            last: the length of a range that ends now, such as `"15m"`, instead of `start` and
                `end`. Without any range: all.
            limit: the largest number of rows, the first in `order`.
            order: `asc`, oldest first, or `desc`.
            columns: the columns to return, in this order; unset: all.
            consistency: `union` (default; lake and tail) or `committed` (lake only).
            as_of: a snapshot's id; a time: the newest snapshot committed by then; or the read
                token of an answer, `provenance.token`: the same rows as that answer.
            allow_partial: answer although a side is missing; `provenance` says which.
            deadline_s: the longest time of planning, and of reading; unset: the connection's
                deadline to plan, an hour to read.
        """
        return self.ask(
            TradesQuestion(
                symbols=symbols,
                exchanges=exchanges,
                start=start,
                end=end,
                last=last,
                limit=limit,
                order=order,
                columns=columns,
                consistency=consistency,
                as_of=as_of,
                allow_partial=allow_partial,
            ),
            deadline_s=deadline_s,
        )

    def ask(
        self, question: TradesQuestion | ShapeQuestion, *, deadline_s: float | None = None
    ) -> Trades:
        """Query trades, or a shape of them, by a prepared question."""
        plan = self._call(self._query.PlanQuery, question.request(), deadline_s)
        return Trades(plan, self._flights, self._retry, deadline_s or ROWS_DEADLINE_S)

    def snapshots(self, limit: int | None = None) -> list[records.Snapshot]:
        """List the retained snapshots of the lake, newest first; at most `limit`."""
        request = snapshot_service_pb2.ListSnapshotsRequest()
        method = self._snapshot.ListSnapshots
        return self._list(records.Snapshot, method, request, "snapshots", limit)

    def snapshot(self, as_of: Time | None = None) -> records.Snapshot:
        """Return a snapshot: by its id, as of a time, or the current one."""
        request = snapshot_service_pb2.GetSnapshotRequest()
        if as_of is not None:
            if (snapshot_id := snapshot_id_of(as_of)) is not None:
                request.snapshot_id = snapshot_id
            else:
                request.as_of_time.CopyFrom(moment(as_of))
        answer = self._call(self._snapshot.GetSnapshot, request)
        return record(records.Snapshot, answer.snapshot)

    def degradation(self) -> records.Degradation:
        """Return the degradation level of the platform and the pressures behind it."""
        request = degradation_service_pb2.GetDegradationRequest()
        answer = self._call(self._degradation.GetDegradation, request)
        return record(records.Degradation, answer.degradation)

    def watch_degradation(self) -> Iterator[records.Degradation]:
        """Yield the degradation level: now, at each change, and every few seconds; without retries.

        After a failure, watch again: the first state is the current one.
        """
        self._flights.check_process()
        request = degradation_service_pb2.WatchDegradationRequest()
        answers = self._degradation.WatchDegradation(request, metadata=self._traced_metadata())
        try:
            for answer in answers:
                yield record(records.Degradation, answer.degradation)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
        finally:
            answers.cancel()

    def set_override(self, level: str, for_s: float, reason: str) -> records.Override:
        """Replace the platform's degradation level for a while, downward too.

        Args:
            level: `NORMAL`, `SOFT`, `GRACEFUL`, `AGGRESSIVE` or `CIRCUIT_BREAK`, in any case.
            for_s: seconds until it expires.
            reason: kept with it, and in `transitions`.
        """
        request = degradation_service_pb2.SetOverrideRequest(
            level=degradation_level(level), duration=duration(for_s), reason=reason
        )
        answer = self._call(self._degradation.SetOverride, request)
        return record(records.Override, answer.override)

    def clear_override(self) -> records.Override | None:
        """End the override of the degradation level; returns the one that ended."""
        request = degradation_service_pb2.ClearOverrideRequest()
        answer = self._call(self._degradation.ClearOverride, request)
        return record(records.Override, answer.ended) if answer.HasField("ended") else None

    def transitions(self, limit: int | None = None) -> list[records.Transition]:
        """List the changes of the degradation level, newest first; at most `limit`."""
        request = degradation_service_pb2.ListTransitionsRequest()
        method = self._degradation.ListTransitions
        return self._list(records.Transition, method, request, "transitions", limit)

    def inject_pressure(
        self, signal: str, pressure: float, for_s: float, process: str = ""
    ) -> datetime:
        """Set the pressure of a signal for a while; returns when that ends.

        Args:
            signal: its name, as in `records.Pressure`.
            pressure: from 0 to 1.
            for_s: seconds until it ends.
            process: by its name in heartbeats; empty: every process.
        """
        request = degradation_service_pb2.InjectPressureRequest(
            signal=signal, pressure=pressure, duration=duration(for_s), process=process
        )
        answer = self._call(self._degradation.InjectPressure, request)
        return from_us(micros(answer.expire_time))

    def feeds(self) -> list[records.Feed]:
        """List the feeds: their venues, symbols, states and counters."""
        request = feed_service_pb2.ListFeedsRequest()
        return self._list(records.Feed, self._feed.ListFeeds, request, "feeds")

    def gaps(
        self,
        symbol: str | None = None,
        *,
        exchange: str | None = None,
        state: str | None = None,
        limit: int | None = None,
    ) -> list[records.GapRecord]:
        """List the runs of trade ids that were missed, with their states, by symbol and id.

        Args:
            symbol: only gaps of this symbol.
            exchange: only gaps of this exchange.
            state: only gaps in this state: `open`, `filled`, `unfillable` or `void`.
            limit: the largest number of gaps.
        """
        request = feed_service_pb2.ListGapsRequest(
            exchange=name_of("exchange", exchange),
            symbol=name_of("symbol", symbol),
            state=gap_state(state),
        )
        return self._list(records.GapRecord, self._feed.ListGaps, request, "gaps", limit)

    def backfill(
        self, symbol: str, first_trade_id: int, last_trade_id: int, exchange: str | None = None
    ) -> records.BackfillPlan:
        """Ask the feed to fetch trade ids from its venue; `gaps` shows the progress.

        Args:
            symbol: the symbol of the ids.
            first_trade_id: the first id to fetch.
            last_trade_id: the last id to fetch, inclusive.
            exchange: the symbol's exchange; unset: that of the one feed that reads the symbol.
        """
        request = feed_service_pb2.BackfillRequest(
            exchange=name_of("exchange", exchange),
            symbol=name_of("symbol", symbol),
            first_trade_id=first_trade_id,
            last_trade_id=last_trade_id,
        )
        return backfill_plan(self._call(self._feed.Backfill, request))

    def health(self) -> dict[str, str]:
        """Return the health of each service by name; the empty name is the whole server."""
        check = health_pb2.HealthCheckRequest
        status = health_pb2.HealthCheckResponse.ServingStatus
        answers = {
            name: self._call(self._health.Check, check(service=name)) for name in ("", *SERVICES)
        }
        return {name: status.Name(answer.status) for name, answer in answers.items()}

    def status(self) -> records.Status:
        """Return every component of the platform: state, process, addresses, counters."""
        request = platform_service_pb2.GetStatusRequest()
        return record(records.Status, self._call(self._platform.GetStatus, request))

    def topics(self) -> records.TopicSizes:
        """Return how much each topic of the tape holds, and when that was read."""
        request = platform_service_pb2.ListTopicsRequest()
        return record(records.TopicSizes, self._call(self._platform.ListTopics, request))

    def settings(self) -> dict[str, object]:
        """Return the settings of the control process by name; secrets are masked."""
        request = platform_service_pb2.GetSettingsRequest()
        answer = self._call(self._platform.GetSettings, request)
        return {setting.name: json.loads(setting.value) for setting in answer.settings}

    def verify(
        self,
        progress: Callable[[str, int, int], None] | None = None,
        deadline_s: float = VERIFY_DEADLINE_S,
    ) -> records.Verification:
        """Fold the tape again and check that the lake holds everything exactly once.

        Args:
            progress: takes the present step, the amount done and the total (0: unknown).
            deadline_s: the longest time it may take; it is not retried.
        """
        request = platform_service_pb2.VerifyIntegrityRequest()
        result = self._follow(self._platform.VerifyIntegrity, request, progress, deadline_s)
        return _verification(result)

    def compact(
        self,
        progress: Callable[[str, int, int], None] | None = None,
        deadline_s: float = VERIFY_DEADLINE_S,
    ) -> records.Compaction:
        """Merge small files of the lake until nothing is worth merging; no row changes.

        Args:
            progress: takes the present step, the number of merges done and the total.
            deadline_s: the longest time it may take; it is not retried, and finished merges stay.
        """
        request = platform_service_pb2.CompactRequest()
        result = self._follow(self._platform.Compact, request, progress, deadline_s)
        return record(records.Compaction, result)

    def expire(
        self, older_than: Time | None = None, deadline_s: float = VERIFY_DEADLINE_S
    ) -> records.Expiry:
        """Expire snapshots, and remove files unreferenced for the whole grace period.

        Args:
            older_than: expire snapshots committed before this time; unset: none.
            deadline_s: the longest time it may take; it is not retried.
        """
        request = platform_service_pb2.ExpireSnapshotsRequest()
        if older_than is not None:
            request.older_than_time.CopyFrom(moment(older_than))
        result = self._follow(self._platform.ExpireSnapshots, request, None, deadline_s)
        return record(records.Expiry, result)

    def dead_letters(
        self,
        *,
        start: Time | None = None,
        end: Time | None = None,
        fault: str = "",
        origin: str = "",
        limit: int | None = None,
    ) -> list[records.DeadLetter]:
        """List records that K2 could not store as rows, newest first, without their bytes.

        Args:
            start: only letters judged at this time or later.
            end: only letters judged before this time.
            fault: only letters with this fault, such as `TRUNCATED`.
            origin: only letters of this topic or run of a feed.
            limit: the largest number of letters.
        """
        request = dead_letter_service_pb2.ListDeadLettersRequest(
            fault=name_of("fault", fault),
            origin=name_of("origin", origin),
        )
        if start is not None:
            request.range.start_time.CopyFrom(moment(start))
        if end is not None:
            request.range.end_time.CopyFrom(moment(end))
        method = self._letters.ListDeadLetters
        return self._list(records.DeadLetter, method, request, "letters", limit)

    def dead_letter(self, name: str) -> records.DeadLetterContent:
        """Return a dead letter by its name, with its bytes and the result of decoding them now."""
        request = dead_letter_service_pb2.GetDeadLetterRequest(name=name_of("name", name))
        answer = self._call(self._letters.GetDeadLetter, request)
        return record(records.DeadLetterContent, answer)

    def replay_dead_letters(
        self,
        names: Names,
        *,
        value: bytes | None = None,
        trade: Mapping[str, Any] | None = None,
        again: bool = False,
    ) -> list[records.ReplayOutcome]:
        """Send dead letters to the tape again, as they are or repaired.

        Args:
            names: names of the letters, at most 100; exactly one with a repair.
            value: a whole message that replaces the letter's bytes.
            trade: the fields of `records.TradeRecord` instead, times as ISO 8601 texts.
            again: whether to replay letters that were replayed before.
        """
        request = dead_letter_service_pb2.ReplayDeadLettersRequest(
            names=names_of("names", names), again=again
        )
        if value is not None:
            request.value = value
        if trade is not None:
            request.trade.CopyFrom(trade_message(trade))
        answer = self._call(self._letters.ReplayDeadLetters, request)
        return [record(records.ReplayOutcome, outcome) for outcome in answer.outcomes]

    def _follow(
        self,
        method: grpc.UnaryStreamMultiCallable[Any, Any],
        request: Message,
        progress: Callable[[str, int, int], None] | None,
        deadline_s: float,
    ) -> Any:  # noqa: ANN401 the result of any streamed call
        """Follow a long call to its end and return its result."""
        self._flights.check_process()
        try:
            for event in method(request, timeout=deadline_s, metadata=self._traced_metadata()):
                if event.HasField("result"):
                    return event.result
                if progress is not None:
                    step = event.progress
                    progress(step.message, step.done, step.total)
        except grpc.RpcError as error:
            raise from_rpc(error, self.address) from error
        raise Internal("INTERNAL", "the work ended without a result")

    def _traced_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        metadata, parent, name = self._metadata, traceparent(), caller_name()
        if name:
            own = tuple(pair for pair in metadata if pair[0] != CLIENT_HEADER)
            metadata = (*own, (CLIENT_HEADER, name))
        return (*metadata, ("traceparent", parent)) if parent else metadata

    def _list(
        self,
        kind: type[R],
        method: grpc.UnaryUnaryMultiCallable[Any, Any],
        request: Any,  # noqa: ANN401 any list call
        field: str,
        limit: int | None = None,
    ) -> list[R]:
        """Read the pages of a list, up to `limit` records of that field of each page."""
        request.page_size = PAGE_SIZE if limit is None else min(limit, PAGE_SIZE)
        listed: list[R] = []
        while True:
            page = self._call(method, request)
            listed += [record(kind, message) for message in getattr(page, field)]
            request.page_token = page.next_page_token
            if not request.page_token or (limit is not None and len(listed) >= limit):
                return listed[:limit]

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Q, A],
        request: Q,
        deadline_s: float | None = None,
    ) -> A:
        """Send a call, with retries, and return its answer."""
        self._flights.check_process()
        deadline = Deadline(deadline_s or self._deadline_s)

        def once() -> A:
            try:
                timeout = max(deadline.left_s(), 0.001)
                return method(request, timeout=timeout, metadata=self._traced_metadata())
            except grpc.RpcError as error:
                raise from_rpc(error, self.address) from error

        return self._retry.run(once, deadline)


def _verification(result: platform_service_pb2.VerifyResult) -> records.Verification:
    report = json.loads(result.report_json) if result.report_json else {}
    return records.Verification(result.ok, result.exit_code, result.message, report)


def connect(
    address: str | None = None,
    api_key: str | None = None,
    *,
    data_dir: str | None = None,
    deadline_s: float = DEADLINE_S,
    retry: Retry | None = None,
    request_class: str | None = None,
) -> Client:
    """Connect to K2; nothing is sent before the first call.

    Args:
        address: `host:port` of the control server; unset: `K2_ADDRESS`, else the stack of the data
            directory.
        api_key: unset: `K2_API_KEY`, else none (a stack on one machine needs none).
        data_dir: the data directory of the stack; unset: `K2_DATA_DIR`, else `./.k2`.
        deadline_s: the longest time of any one call, its retries included.
        retry: when to retry; `Retry(attempts_max=1)` never does.
        request_class: how urgent the queries are: `critical`, `interactive` (default) or `batch`;
            each class has places of its own on the server.

    Raises:
        Invalid: BAD_REQUEST when there is no such class.
        NotFound: STACK_NOT_RUNNING when no address is given or found.
    """
    if request_class is not None and request_class not in CLASSES:
        raise Invalid("BAD_REQUEST", f"{request_class!r} is none of {', '.join(CLASSES)}")
    return Client(
        stack.control_address(address, data_dir),
        stack.api_key(api_key),
        deadline_s,
        retry or Retry(),
        request_class,
    )
