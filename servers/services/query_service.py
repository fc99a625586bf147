"""QueryService: plans where the tail is held, forwards from every other process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from k2 import limits, tracing
from k2.clock import Clock
from k2.degrade.level import Level
from k2.errors import Reason, Unavailable
from k2.metrics import counter, histogram
from k2.query.admission import Admission
from k2.query.gate import QueryGate, cancelled
from k2.query.provenance import Completeness
from k2.query.request import Caller, TradesRequest
from k2.query.view import OpenQuery, PlannedQuery, QueryView
from k2.v1 import market_pb2
from k2.v1 import query_service_pb2 as pb
from k2.v1 import query_service_pb2_grpc as rpc
from servers.network import open_channel
from servers.services.call_spans import traced_metadata
from servers.services.interceptors import CLASS_HEADER, CLIENT_HEADER, caller_of, remaining_s
from servers.services.query_messages import provenance_to, request_from, request_to
from servers.services.rpc_status import DETAILS_KEY, PeerError
from servers.services.ticket import Signer
from servers.services.wire_values import time_to, vector_from, vector_to

_PLAN_SECONDS = histogram("k2_query_plan_seconds", "Time to plan a query, without its ticket.")
_INCOMPLETE = counter(
    "k2_query_incomplete_total",
    "Answers opened that may lack rows, by what is known of them.",
    "completeness",
)

NAME: Final = pb.DESCRIPTOR.services_by_name["QueryService"].full_name
_PASSED_ON: Final = frozenset(
    {"traceparent", "tracestate", "authorization", "x-api-key", CLASS_HEADER}
)


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Plans queries and opens their tickets, for gRPC and Flight alike.

    Attributes:
        plans: fixes answers.
        signer: signs and opens tickets.
        clock: tells when they expire.
        level: returns the level of the platform.
        locations: where tickets are redeemed, Flight URIs.
        gate: refuses queries under load.
    """

    plans: QueryView
    signer: Signer
    clock: Clock
    level: Callable[[], Level]
    locations: Sequence[str]
    gate: QueryGate

    def plan(self, message: pb.PlanQueryRequest, caller: Caller) -> pb.PlanQueryResponse:
        """Plan a query and sign a ticket for it.

        Raises what `QueryView.plan` does, and what the gate refuses once it has seen the request.
        """
        began_s = self.clock.monotonic_s()
        request = request_from(message, caller)
        self._weigh(request)
        with tracing.begin(tracing.PLAN) as span:
            planned = self.plans.plan(request)
            span.set(_attributes_of(planned) | {tracing.LEVEL: self.level().name})
            span.link(planned.commits)
        self.gate.of_cost(planned.request, planned.estimate)
        took_s = self.clock.monotonic_s() - began_s
        self.gate.planned(caller, took_s)
        _PLAN_SECONDS.observe(took_s)
        expire_us = self.clock.now_us() + int(limits.TICKET_LIFE_S * 1e6)
        ticket = pb.QueryTicket(
            request=request_to(planned.request),
            snapshot_id=planned.snapshot_id,
            end_positions=vector_to(planned.end),
            planned_time=time_to(planned.provenance.planned_at_us),
            expire_time=time_to(expire_us),
            principal_id=caller.principal.id or None,
            traceparent=tracing.traceparent(),
        )
        endpoint = pb.QueryEndpoint(ticket=self.signer.sign(ticket), locations=self.locations)
        return pb.PlanQueryResponse(
            arrow_schema=planned.request.output_schema.serialize().to_pybytes(),
            endpoints=[endpoint],
            estimate=pb.QueryEstimate(
                files=planned.estimate.files,
                chunks=planned.estimate.chunks,
                bytes=planned.estimate.bytes,
                rows=planned.estimate.rows,
            ),
            provenance=provenance_to(planned.provenance, self.level()),
            expire_time=ticket.expire_time,
        )

    def redeem(self, signed: bytes, caller: Caller) -> pb.QueryTicket:
        """Read a ticket of this caller; raises what `Signer.open` does."""
        return self.signer.open(signed, self.clock.now_us(), caller.principal)

    def open(
        self, ticket: pb.QueryTicket, caller: Caller
    ) -> tuple[OpenQuery, market_pb2.Provenance]:
        """Prepare the answer of a redeemed ticket.

        Raises what `QueryView.open` does, and what the gate refuses.
        """
        request = request_from(ticket.request, caller)
        self._weigh(request)
        end = vector_from(ticket.end_positions)
        opened = self.plans.open(request, ticket.snapshot_id, end)
        completeness = opened.provenance.completeness
        if completeness is not Completeness.COMPLETE:
            _INCOMPLETE.labels(completeness).inc()
        provenance = provenance_to(opened.provenance, self.level())
        provenance.planned_time.CopyFrom(ticket.planned_time)
        return opened, provenance

    def _weigh(self, request: TradesRequest) -> None:
        """Refuse what the level does not answer, before the tape is asked for its end."""
        self.gate.of_request(request)
        if self.gate.weighs:
            self.gate.of_cost(request, self.plans.rough(request))


def _attributes_of(planned: PlannedQuery) -> dict[str, tracing.Value]:
    return {
        tracing.CONSISTENCY: planned.request.consistency.name,
        tracing.SNAPSHOT_ID: str(planned.snapshot_id),
        tracing.POSITIONS: planned.end.encode(),
        tracing.FILES: planned.estimate.files,
    }


class QueryService(rpc.QueryServiceServicer):
    """Implements `protos/k2/v1/query_service.proto` where the tail is held.

    Args:
        planner: plans.
    """

    def __init__(self, *, planner: Planner) -> None:
        self._planner = planner

    def register(self, server: grpc.Server) -> None:
        """Serve on `server`."""
        rpc.add_QueryServiceServicer_to_server(self, server)

    def PlanQuery(
        self, request: pb.PlanQueryRequest, context: grpc.ServicerContext
    ) -> pb.PlanQueryResponse:
        """Plan a query and return a ticket for its rows."""
        caller, gate = caller_of(context), self._planner.gate
        with gate.refusing(caller):
            gate.at_entry(caller, remaining_s(context))
            plan = self._planner.plan(request, caller)
            if not context.is_active() and remaining_s(context) > 0:
                raise cancelled()
            return plan


class ForwardedQueryService(rpc.QueryServiceServicer):
    """Forwards calls to the query server with the remaining deadline, and returns errors unchanged.

    Calls have the places of their class here as well, so that other services find a worker.

    Args:
        address: of the query server's gRPC; asked before each call, empty while it is not known.
        gate: refuses queries by the level of this process.
        admission: counts the calls that are in work.
    """

    def __init__(
        self, *, address: Callable[[], str], gate: QueryGate, admission: Admission
    ) -> None:
        self._address = address
        self._gate = gate
        self._admission = admission
        self._channels: dict[str, grpc.Channel] = {}

    def register(self, server: grpc.Server) -> None:
        """Serve on `server`."""
        rpc.add_QueryServiceServicer_to_server(self, server)

    def PlanQuery(
        self, request: pb.PlanQueryRequest, context: grpc.ServicerContext
    ) -> pb.PlanQueryResponse:
        """Forward the call, with the headers that tell who makes it."""
        caller = caller_of(context)
        with self._gate.refusing(caller):
            self._gate.at_entry(caller)
            self._admission.enter(caller)
        try:
            return self._forward(request, context, caller)
        finally:
            self._admission.leave(caller, 0.0)

    def _forward(
        self, request: pb.PlanQueryRequest, context: grpc.ServicerContext, caller: Caller
    ) -> pb.PlanQueryResponse:
        address = self._address()
        if not address:
            raise _unreachable("the query server is not known yet")
        metadata = traced_metadata(
            pair for pair in context.invocation_metadata() if pair[0] in _PASSED_ON
        )
        metadata += ((CLIENT_HEADER, caller.client),)  # here the connection is this process's
        call = self._stub(address).PlanQuery.future(
            request, timeout=remaining_s(context), metadata=metadata
        )
        if not context.add_callback(lambda: _cancel(call)):
            call.cancel()
        try:
            return call.result()
        except grpc.RpcError as error:
            raise _passed_back(PeerError(error), address) from error

    def close(self) -> None:
        """Close the connections."""
        for channel in self._channels.values():
            channel.close()

    def _stub(self, address: str) -> rpc.QueryServiceStub:
        if address not in self._channels:
            channel = open_channel(address)
            if self._channels.setdefault(address, channel) is not channel:
                channel.close()
        return rpc.QueryServiceStub(self._channels[address])


def _cancel(call: grpc.Future[Any]) -> None:  # a callback returns nothing, `cancel` does
    call.cancel()


def _passed_back(error: PeerError, address: str) -> Exception:
    """Return the peer's own error, or PEER_UNAVAILABLE when the peer did not answer."""
    spoke = any(key == DETAILS_KEY for key, _ in error.trailing_metadata)
    if error.code is grpc.StatusCode.UNAVAILABLE and not spoke:
        return _unreachable(f"the query server at {address} does not answer: {error.details}")
    return error


def _unreachable(message: str) -> Unavailable:
    return Unavailable(Reason.PEER_UNAVAILABLE, message, retry_after_s=1.0)
