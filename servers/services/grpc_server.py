"""A gRPC server for a process: loopback, interceptors, health per service, reflection, drain."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from k2 import limits
from k2.clock import Clock
from k2.errors import Overloaded, Reason
from servers.network import Networks, bind_grpc, reached_at, split_address
from servers.services.interceptors import METHOD_PREFIX, CallAdmission, chain, count_call
from servers.services.rpc_status import to_grpc

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_HEALTH_CHECK: Final = f"/{health.SERVICE_NAME}/Check"
_QUERIES: Final = f"{METHOD_PREFIX}QueryService/"
_GOODBYE_S: Final = 0.2  # for answers on their way
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
    ("grpc.max_receive_message_length", limits.GRPC_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.GRPC_MESSAGE_BYTES_MAX),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class _Workers(ThreadPoolExecutor):
    """The threads that answer calls; knows the calls in work or waiting, and since when."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(limits.GRPC_WORKERS, thread_name_prefix="grpc")
        self._clock = clock
        self._counting = threading.Lock()
        self._since_s: dict[Future[Any], float] = {}

    @property
    def full(self) -> bool:
        """Whether no more calls may come."""
        return len(self._since_s) >= limits.GRPC_CALLS_MAX

    @property
    def full_of_queries(self) -> bool:
        """Whether no more queries may come, so that other calls find room."""
        return len(self._since_s) >= limits.GRPC_QUERIES_MAX

    @property
    def queued(self) -> int:
        """Calls that wait for a worker."""
        return max(0, len(self._since_s) - limits.GRPC_WORKERS)

    @property
    def oldest_s(self) -> float:
        """How long ago the oldest of the calls came in; 0 without one."""
        now_s = self._clock.monotonic_s()
        with self._counting:
            return now_s - min(self._since_s.values(), default=now_s)

    @property
    def longest_wait_s(self) -> float:
        """How long ago the oldest of the calls that wait for a worker came in; 0 without one."""
        now_s = self._clock.monotonic_s()
        with self._counting:
            waiting = [since_s for work, since_s in self._since_s.items() if not work.running()]
        return now_s - min(waiting, default=now_s)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 what grpc runs
        """Run a call and count it until it ends."""
        work = super().submit(fn, *args, **kwargs)
        with self._counting:
            self._since_s[work] = self._clock.monotonic_s()
        work.add_done_callback(self._forget)
        return work

    def _forget(self, work: Future[Any]) -> None:
        with self._counting:
            del self._since_s[work]


class _Capacity(grpc.ServerInterceptor):
    """Refuses calls of `k2.v1` while the workers have as many as they may.

    Refusals and health run in threads beside the workers, so they never wait for a worker.
    """

    def __init__(self, workers: _Workers, beside: ThreadPoolExecutor) -> None:
        self._workers = workers
        self._pool = beside
        self._refusing = functools.cache(
            lambda name: self._beside(functools.partial(_refuse, name))
        )

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 what grpc passes along
        """Replace the handler of a call that must not wait for a worker."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is not None and method == _HEALTH_CHECK:
            return handler._replace(unary_unary=self._beside(handler.unary_unary))
        workers = self._workers
        full = workers.full_of_queries if method.startswith(_QUERIES) else workers.full
        if handler is None or not method.startswith(METHOD_PREFIX) or not full:
            return handler
        if handler.response_streaming:
            return handler._replace(unary_stream=self._refusing(method))
        return handler._replace(unary_unary=self._refusing(method))

    def _beside(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        placed = functools.partial(behavior)
        placed.experimental_thread_pool = self._pool  # type: ignore[attr-defined]  # read by grpc
        return placed


def _refuse(method: str, request: object, context: grpc.ServicerContext) -> NoReturn:
    """Refuse a call, and count it: the interceptors that count the others never see it."""
    count_call(method, grpc.StatusCode.RESOURCE_EXHAUSTED.name)
    error = Overloaded(
        Reason.TOO_MANY_CALLS,
        "too many calls are in work or waiting: call again in a moment",
    )
    context.abort_with_status(to_grpc(error))


class GrpcServer:
    """Serves services on one address.

    Args:
        listen: `host:port`; port 0 takes a free one. The host must be this machine, unless networks
            are trusted.
        services: registers each service, by its full name (`k2.v1.QueryService`).
        clock: for telemetry.
        trusted: the networks of peers that are taken beside this machine's.

    Raises:
        Invalid: BAD_SETTING when `listen` is not such an address.
        Unavailable: PORT_IN_USE when something else listens there.
    """

    def __init__(
        self,
        listen: str,
        services: Mapping[str, Callable[[grpc.Server], None]],
        clock: Clock,
        trusted: Networks = (),
    ) -> None:
        host, port = split_address(listen, trusted)
        self.admission = CallAdmission()
        self._pool = _Workers(clock)
        self._health_pool = ThreadPoolExecutor(2, thread_name_prefix="health")
        self._server = grpc.server(
            self._pool,
            interceptors=[
                _Capacity(self._pool, self._health_pool),
                *chain(clock, self.admission, trusted),
            ],
            options=_OPTIONS,
            maximum_concurrent_rpcs=limits.GRPC_CALLS_REFUSED_MAX,
        )
        self._names = ("", *services)
        self._health = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=self._health_pool
        )
        for name in self._names:
            self._health.set(name, _NOT_SERVING)
        for register in services.values():
            register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*services, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self.address = f"{reached_at(host)}:{bind_grpc(self._server, host, port)}"

    @property
    def queued(self) -> int:
        """Calls that wait for a worker."""
        return self._pool.queued

    @property
    def oldest_work_s(self) -> float:
        """How long ago the oldest call that is not answered came in."""
        return self._pool.oldest_s

    @property
    def longest_wait_s(self) -> float:
        """How long ago the oldest call that no worker has taken came in.

        Where calls are watched for hours, or an operator's call runs for minutes, this is the age
        of the oldest work that is not served; `oldest_work_s` is not.
        """
        return self._pool.longest_wait_s

    def start(self) -> None:
        """Listen; calls are answered STARTING until `ready`."""
        self._server.start()

    def ready(self) -> None:
        """Admit calls and report SERVING."""
        self.admission.open()
        for name in self._names:
            self._health.set(name, _SERVING)

    def tell(self, *, well: bool) -> None:
        """Report whether the whole platform is well, as the health of the empty service name."""
        self._health.set("", _SERVING if well else _NOT_SERVING)

    def drain(self) -> None:
        """Report NOT_SERVING, take no new calls, let running ones finish for a while, and close."""
        self._health.enter_graceful_shutdown()
        self.admission.drain()
        self.admission.wait_idle(limits.DRAIN_S)
        self._server.stop(_GOODBYE_S).wait()  # watchers of health stay until the end
        self._pool.shutdown()
        self._health_pool.shutdown()
