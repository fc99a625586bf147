"""PlatformService: every component's state, the settings, and the proof of what is stored."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
from pydantic import BaseModel, SecretStr

from k2.clock import Clock
from k2.errors import Data, Internal, K2Error, Overloaded, Reason, Unavailable
from k2.settings import Settings
from k2.v1 import platform_service_pb2 as pb
from k2.v1 import platform_service_pb2_grpc as rpc
from servers import convert
from servers.heartbeat import Heartbeats, platform_level

NAME: Final = pb.DESCRIPTOR.services_by_name["PlatformService"].full_name
_MASK: Final = "********"
_PASSWORD: Final = re.compile(r"(://[^:/@\s\"]*:)[^@/\s\"]*@")  # in an address
_WORST_LAST: Final = (
    pb.COMPONENT_STATE_SERVING,
    pb.COMPONENT_STATE_STARTING,
    pb.COMPONENT_STATE_DRAINING,
    pb.COMPONENT_STATE_LOST,
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


class PlatformService(rpc.PlatformServiceServicer):
    """See `protos/k2/v1/platform_service.proto`.

    Args:
        heartbeats: of all processes.
        probes: of what has no heartbeat.
        settings: of this process.
        facts: see `Facts`.
        clock: to time what is sent.
        verify: the command that verifies and prints JSON lines.
    """

    def __init__(
        self,
        *,
        heartbeats: Heartbeats,
        probes: Sequence[Probe],
        settings: Settings,
        facts: Facts,
        clock: Clock,
        verify: Sequence[str],
    ) -> None:
        self._heartbeats = heartbeats
        self._probes = tuple(probes)
        self._settings = settings
        self._facts = facts
        self._clock = clock
        self._verify = tuple(verify)
        self._verifying = threading.Lock()

    def register(self, server: grpc.Server) -> None:
        """Serve on `server`."""
        rpc.add_PlatformServiceServicer_to_server(self, server)

    def GetStatus(
        self, request: pb.GetStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetStatusResponse:
        """See the proto."""
        beats = self._heartbeats.beats()
        components = [convert.component_to(beat) for beat in beats]
        components += [_probed(probe) for probe in self._probes]
        return pb.GetStatusResponse(
            state=max((each.state for each in components), key=_WORST_LAST.index),
            level=convert.level_to(platform_level(beats)),
            source=convert.source_to(self._facts.source),
            components=sorted(components, key=lambda each: each.name),
            version=self._facts.version,
            time=convert.time_to(self._clock.now_us()),
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
        if not self._verifying.acquire(blocking=False):
            raise Overloaded(
                Reason.TOO_MANY_QUERIES, "a verification is running already", retry_after_s=10.0
            )
        try:
            yield from self._verified(context)
        finally:
            self._verifying.release()

    def _verified(self, context: grpc.ServicerContext) -> Iterator[pb.VerifyIntegrityResponse]:
        with subprocess.Popen(
            self._verify, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        ) as child:
            try:
                if not context.add_callback(child.terminate):
                    return
                report: dict[str, Any] = {}
                for line in child.stdout or ():
                    event = _event(line)
                    if event.get("event") == "progress":
                        yield _progress(event)
                    elif event:
                        report = event
                yield _result(report, child.wait())
            finally:
                child.terminate()


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
    """The child's last word.

    Raises:
        K2Error: what the child failed with, when it could not verify at all.
    """
    if report.get("event") == "failed":
        raise _failure(report)
    if report.get("event") != "result":
        raise Internal(Reason.INTERNAL, f"the verification ended early, with code {exit_code}")
    return pb.VerifyIntegrityResponse(
        result=pb.VerifyResult(
            ok=exit_code == 0,
            exit_code=exit_code,
            message=str(report.get("message", "")),
            report_json=json.dumps(report),
        )
    )


def _failure(event: Mapping[str, Any]) -> K2Error:
    """What kept the child from verifying, by the reason it gave."""
    try:
        reason = Reason(event.get("reason", ""))
    except ValueError:
        reason = Reason.INTERNAL
    message = f"the verification could not be made: {event.get('message', '')}"
    if reason is Reason.INTERNAL:
        return Internal(reason, message)
    if reason.value.endswith("_UNAVAILABLE"):
        return Unavailable(reason, message)
    return Data(reason, message)
