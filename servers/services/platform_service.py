"""PlatformService: every component's state, the settings, proof and upkeep of what is stored."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message
from pydantic import BaseModel, SecretStr

from k2 import limits
from k2.clock import Clock
from k2.errors import Internal, K2Error, Overloaded, Reason, error_of
from k2.settings import Settings
from k2.v1 import platform_service_pb2 as pb
from k2.v1 import platform_service_pb2_grpc as rpc
from servers.heartbeat import Beat, Heartbeats, platform_level
from servers.local.stack_file import failing
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
_MASK: Final = "********"
_PASSWORD: Final = re.compile(r"(://[^:/@\s\"]*:)[^@/\s\"]*@")  # in an address
_WORST_LAST: Final = (
    pb.COMPONENT_STATE_SERVING,
    pb.COMPONENT_STATE_STARTING,
    pb.COMPONENT_STATE_DRAINING,
    pb.COMPONENT_STATE_LOST,
    pb.COMPONENT_STATE_FAILING,
)


@dataclass(frozen=True)
class Probe:
    """A component that has no heartbeat and is asked instead.

    Attributes:
        name: the component's.
        addresses: where it listens, by protocol.
        alive: whether it answers; asked at each status, must be quick and not raise.
    """

    name: str
    addresses: Mapping[str, str]
    alive: Callable[[], bool]


@dataclass(frozen=True)
class Facts:
    """What is known of the stack when it starts: the version, and what its rows are."""

    version: str
    source: str


@dataclass(frozen=True)
class Tools:
    """Commands that work, print JSON lines and end.

    Attributes:
        verify: proves what is stored.
        maintain: merges and removes; takes a task and its arguments.
    """

    verify: Sequence[str]
    maintain: Sequence[str]


class PlatformService(rpc.PlatformServiceServicer):
    """See `protos/k2/v1/platform_service.proto`.

    Args:
        heartbeats: of all processes.
        probes: of what has no heartbeat.
        settings: of this process.
        facts: see `Facts`.
        clock: to time what is sent.
        tools: what long work is done by, each in a process of its own.
    """

    def __init__(
        self,
        *,
        heartbeats: Heartbeats,
        probes: Sequence[Probe],
        settings: Settings,
        facts: Facts,
        clock: Clock,
        tools: Tools,
    ) -> None:
        self._heartbeats = heartbeats
        self._probes = tuple(probes)
        self._settings = settings
        self._facts = facts
        self._clock = clock
        self._tools = tools
        self._verifying = threading.Lock()
        self._maintaining = threading.Lock()

    def register(self, server: grpc.Server) -> None:
        """Serve on `server`."""
        rpc.add_PlatformServiceServicer_to_server(self, server)

    def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetStatusResponse:
        """See the proto."""
        beats = self._heartbeats.beats()
        components = [_component(beat) for beat in beats]
        components += [_probed(probe) for probe in self._probes]
        given_up = failing(self._settings.data_dir / "run")
        for component in components:
            if component.name in given_up:
                component.state = pb.COMPONENT_STATE_FAILING
        return pb.GetStatusResponse(
            state=max((each.state for each in components), key=_WORST_LAST.index),
            level=level_to(platform_level(beats)),
            source=source_to(self._facts.source),
            components=sorted(components, key=lambda each: each.name),
            version=self._facts.version,
            time=time_to(self._clock.now_us()),
        )

    def GetSettings(
        self, request: pb.GetSettingsRequest, context: grpc.ServicerContext
    ) -> pb.GetSettingsResponse:
        """See the proto."""
        values = masked(self._settings)
        return pb.GetSettingsResponse(
            settings=[pb.Setting(name=name, value=values[name]) for name in sorted(values)]
        )

    def VerifyIntegrity(
        self, request: pb.VerifyIntegrityRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.VerifyIntegrityResponse]:
        """See the proto."""
        with _alone(self._verifying, "a verification"):
            for event, code in _events(self._tools.verify, context):
                yield _progress(event) if code is None else _result(event, code)

    def Compact(
        self, request: pb.CompactRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.CompactResponse]:
        """See the proto."""
        for event, code in self._maintained(("compact",), context):
            if code is None:
                yield pb.CompactResponse(progress=_filled(pb.MaintenanceProgress, event))
            else:
                yield pb.CompactResponse(result=_filled(pb.CompactResult, event))

    def ExpireSnapshots(
        self, request: pb.ExpireSnapshotsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ExpireSnapshotsResponse]:
        """See the proto."""
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
            yield from _events([*self._tools.maintain, *task], context)


@contextmanager
def _alone(lock: threading.Lock, what: str) -> Iterator[None]:
    """Only one at a time.

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
    """What a child says: progress, then its result with its exit code; it ends with the call.

    Raises:
        K2Error: what the child failed with, when it had no result.
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
    """Ask it to end, and soon make it; what it does survives a crash. Does not wait."""
    child.terminate()
    killing = threading.Timer(2 * limits.STOP_S, child.kill)
    killing.daemon = True
    killing.start()


def _filled(kind: type[M], event: Mapping[str, Any]) -> M:
    """A message from the fields of an event that have its fields' names."""
    names = {field.name for field in kind.DESCRIPTOR.fields}
    return kind(**{name: value for name, value in event.items() if name in names})


def _component(beat: Beat) -> pb.Component:
    """A process of K2 as a part of the platform."""
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


def masked(settings: BaseModel, prefix: str = "") -> dict[str, str]:
    """Each setting by dotted name, as JSON; secrets masked."""
    found: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            found |= masked(value, f"{prefix}{name}.")
        elif isinstance(value, SecretStr):
            found[prefix + name] = json.dumps(_MASK)
        else:
            text = json.dumps(value, default=str)
            found[prefix + name] = _PASSWORD.sub(rf"\g<1>{_MASK}@", text)
    return found


def _event(line: str) -> dict[str, Any]:
    """One line of the child; empty for one that is not a JSON object."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _progress(event: Mapping[str, Any]) -> pb.VerifyIntegrityResponse:
    return pb.VerifyIntegrityResponse(
        progress=pb.VerifyProgress(
            message=str(event.get("message", "")),
            done=int(event.get("done", 0)),
            total=int(event.get("total", 0)),
        )
    )


def _result(report: dict[str, Any], exit_code: int) -> pb.VerifyIntegrityResponse:
    return pb.VerifyIntegrityResponse(
        result=pb.VerifyResult(
            ok=exit_code == 0,
            exit_code=exit_code,
            message=str(report.get("message", "")),
            report_json=json.dumps(report),
        )
    )


def _failure(event: Mapping[str, Any]) -> K2Error:
    """What kept a child from its work, by the reason it gave."""
    try:
        reason = Reason(event.get("reason", ""))
    except ValueError:
        reason = Reason.INTERNAL
    message = f"it could not be done: {event.get('message', '')}"
    return error_of(reason, message)
