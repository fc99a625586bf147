"""PlatformService: the state of every component, the settings, verification and maintenance."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from k2 import limits
from k2.clock import Clock
from k2.degrade.level import Level
from k2.errors import Internal, K2Error, Overloaded, Reason, error_of
from k2.settings import Settings, masked
from k2.tape.topics import TopicSize
from k2.v1 import platform_service_pb2 as pb
from k2.v1 import platform_service_pb2_grpc as rpc
from servers.heartbeat import Beat, Heartbeats
from servers.local.stack_file import failing
from servers.local.stamp import source_in
from servers.services.wire_values import (
    flat_counters,
    level_to,
    source_to,
    time_or_unset,
    time_to,
    time_us_from,
)

M = TypeVar("M", bound=Message)

NAME: Final = pb.DESCRIPTOR.services_by_name["PlatformService"].full_name
_WORST_LAST: Final = (
    pb.COMPONENT_STATE_SERVING,
    pb.COMPONENT_STATE_STARTING,
    pb.COMPONENT_STATE_DRAINING,
    pb.COMPONENT_STATE_LOST,
    pb.COMPONENT_STATE_FAILING,
)


@dataclass(frozen=True)
class Probe:
    """A component without a heartbeat, which is probed instead.

    Attributes:
        name: the component's.
        addresses: where it listens, by protocol.
        alive: probes it; called for each status, must be quick and not raise.
    """

    name: str
    addresses: Mapping[str, str]
    alive: Callable[[], bool]


@dataclass(frozen=True)
class Observed:
    """What the status is put together from.

    Attributes:
        heartbeats: of all processes.
        level: returns the platform's level.
        probes: of components without a heartbeat.
        topics: asks the broker for the size of each topic.
    """

    heartbeats: Heartbeats
    level: Callable[[], Level]
    probes: Sequence[Probe]
    topics: Callable[[], Sequence[TopicSize]]


class PlatformService(rpc.PlatformServiceServicer):
    """Implements `protos/k2/v1/platform_service.proto`.

    Args:
        observed: what the status is put together from.
        settings: of this process.
        version: of K2.
        clock: time of what is sent.
        command: starts processes for long work that print JSON lines and end; takes `verify`, or
            `maintain` with a task and its arguments.
    """

    def __init__(
        self,
        *,
        observed: Observed,
        settings: Settings,
        version: str,
        clock: Clock,
        command: Sequence[str],
    ) -> None:
        self._observed = observed
        self._settings = settings
        self._version = version
        self._source = source_in(settings)
        self._clock = clock
        self._command = tuple(command)
        self._verifying = threading.Lock()
        self._maintaining = threading.Lock()

    def register(self, server: grpc.Server) -> None:
        """Serve on `server`."""
        rpc.add_PlatformServiceServicer_to_server(self, server)

    def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetStatusResponse:
        """Return the state of every component, and the worst of them."""
        beats = self._observed.heartbeats.beats()
        components = [_component(beat) for beat in beats]
        components += [_probed(probe) for probe in self._observed.probes]
        given_up = failing(self._settings.data_dir / "run")
        for component in components:
            if component.name in given_up:
                component.state = pb.COMPONENT_STATE_FAILING
        return pb.GetStatusResponse(
            state=max((component.state for component in components), key=_WORST_LAST.index),
            level=level_to(self._observed.level()),
            source=source_to(self._source),
            components=sorted(components, key=lambda component: component.name),
            version=self._version,
            time=time_to(self._clock.now_us()),
        )

    def GetSettings(
        self, request: pb.GetSettingsRequest, context: grpc.ServicerContext
    ) -> pb.GetSettingsResponse:
        """Return the settings of this process, secrets masked."""
        values = masked(self._settings)
        return pb.GetSettingsResponse(
            settings=[pb.Setting(name=name, value=values[name]) for name in sorted(values)]
        )

    def ListTopics(
        self, request: pb.ListTopicsRequest, context: grpc.ServicerContext
    ) -> pb.ListTopicsResponse:
        """Return the size of each topic of the tape."""
        topics = [
            pb.Topic(
                name=size.topic,
                partitions=size.partitions,
                messages=size.messages,
                messages_written=size.written,
            )
            for size in self._observed.topics()
        ]
        return pb.ListTopicsResponse(topics=topics, time=time_to(self._clock.now_us()))

    def VerifyIntegrity(
        self, request: pb.VerifyIntegrityRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.VerifyIntegrityResponse]:
        """Verify what is stored; stream progress, then the result."""
        with _alone(self._verifying, "a verification"):
            for event, code in _events([*self._command, "verify"], context):
                if code is None:
                    progress = _filled(pb.VerifyProgress, event)
                    yield pb.VerifyIntegrityResponse(progress=progress)
                else:
                    yield pb.VerifyIntegrityResponse(result=_verified(event, code))

    def Compact(
        self, request: pb.CompactRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.CompactResponse]:
        """Compact the lake; stream progress, then the result."""
        for event, code in self._maintained(("compact",), context):
            if code is None:
                yield pb.CompactResponse(progress=_filled(pb.MaintenanceProgress, event))
            else:
                yield pb.CompactResponse(result=_filled(pb.CompactResult, event))

    def ExpireSnapshots(
        self, request: pb.ExpireSnapshotsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ExpireSnapshotsResponse]:
        """Expire snapshots; stream progress, then the result."""
        task = ["expire"]
        if request.HasField("older_than_time"):
            older_than_us = time_us_from(request.older_than_time, "older_than_time")
            task.append(str(max(0, older_than_us)))
        for event, code in self._maintained(task, context):
            if code is None:
                yield pb.ExpireSnapshotsResponse(progress=_filled(pb.MaintenanceProgress, event))
            else:
                yield pb.ExpireSnapshotsResponse(result=_filled(pb.ExpireSnapshotsResult, event))

    def _maintained(
        self, task: Sequence[str], context: grpc.ServicerContext
    ) -> Iterator[tuple[dict[str, Any], int | None]]:
        with _alone(self._maintaining, "maintenance"):
            yield from _events([*self._command, "maintain", *task], context)


@contextmanager
def _alone(lock: threading.Lock, what: str) -> Iterator[None]:
    """Run only one at a time.

    Raises:
        Overloaded: TOO_MANY_QUERIES.
    """
    if not lock.acquire(blocking=False):
        raise Overloaded(Reason.TOO_MANY_QUERIES, f"{what} is running already", retry_after_s=10.0)
    try:
        yield
    finally:
        lock.release()


def _events(
    command: Sequence[str], context: grpc.ServicerContext
) -> Iterator[tuple[dict[str, Any], int | None]]:
    """Yield the events of a child: progress, then its result with its exit code.

    The child ends with the call.

    Raises:
        K2Error: the child's failure, when it had no result.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as child:
        try:
            if not context.add_callback(lambda: _stop(child)):
                return
            last: dict[str, Any] = {}
            for line in child.stdout or ():
                event = _event(line)
                if event.get("event") == "progress":
                    yield event, None
                elif event:
                    last = event
            code = child.wait()
            if last.get("event") == "failed":
                raise _failure(last)
            if last.get("event") != "result":
                raise Internal(Reason.INTERNAL, f"the work ended early, with code {code}")
            yield last, code
        finally:
            _stop(child)


def _stop(child: subprocess.Popen[str]) -> None:
    """Terminate a child, and kill it soon after; its work survives a crash. Does not wait."""
    child.terminate()
    killing = threading.Timer(2 * limits.STOP_S, child.kill)
    killing.daemon = True
    killing.start()


def _filled(kind: type[M], event: Mapping[str, Any]) -> M:
    """Make a message from the fields of an event that have its fields' names."""
    names = {field.name for field in kind.DESCRIPTOR.fields}
    return kind(**{name: value for name, value in event.items() if name in names})


def _component(beat: Beat) -> pb.Component:
    """Convert a heartbeat to a component of the platform."""
    return pb.Component(
        name=beat.process,
        state=_component_state(beat.state),
        pid=beat.pid,
        run_id=beat.run_id,
        addresses=beat.addresses,
        level=level_to(beat.level),
        counters=flat_counters(beat.counters),
        report_time=time_or_unset(beat.at_us or None),
    )


def _component_state(state: str) -> pb.ComponentState.ValueType:
    name = f"COMPONENT_STATE_{state}"
    known = name in pb.ComponentState.keys()  # noqa: SIM118 no mapping
    return pb.ComponentState.Value(name if known else "COMPONENT_STATE_LOST")


def _probed(probe: Probe) -> pb.Component:
    alive = probe.alive()
    return pb.Component(
        name=probe.name,
        state=pb.COMPONENT_STATE_SERVING if alive else pb.COMPONENT_STATE_LOST,
        addresses=probe.addresses,
    )


def _event(line: str) -> dict[str, Any]:
    """Read one line of the child; empty for one that is not a JSON object."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _verified(report: dict[str, Any], exit_code: int) -> pb.VerifyResult:
    return pb.VerifyResult(
        ok=exit_code == 0,
        exit_code=exit_code,
        message=str(report.get("message", "")),
        report_json=json.dumps(report),
    )


def _failure(event: Mapping[str, Any]) -> K2Error:
    """Make the error of a child that failed, by the reason it gave."""
    try:
        reason = Reason(event.get("reason", ""))
    except ValueError:
        reason = Reason.INTERNAL
    message = f"it could not be done: {event.get('message', '')}"
    return error_of(reason, message)
