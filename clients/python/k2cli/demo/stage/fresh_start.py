"""Restarts a simulated stack empty, on the same ports; starts it where it does not run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import k2client
from k2cli import down
from k2cli.child import Spawned
from k2cli.operate.running_stack import is_listening
from k2client import stack
from k2client.errors import Data, Invalid, K2Error, Unavailable
from k2client.stack import Stack

TARGET_S = 30.0
SIMULATED = "simulated"
# What the tape, its schemas and the lake are kept in. The practice venue's market goes on.
_STORED = ("kafka", "registry", "schemas", "lake", "tmp")
# A demonstration falls from CIRCUIT_BREAK in seconds, and fetches an hour in minutes. They replace
# K2's defaults, not what a user has chosen.
DEMO_SETTINGS = {"degrade.dwell_s": 3, "feed.rest_weight_per_minute": 5500}
_DEFAULTS = {"degrade.dwell_s": 15, "feed.rest_weight_per_minute": 3000}
_KEPT_GROUPS = (
    "tape", "lake", "feed", "venue", "query", "control", "edge", "access", "degrade", "symbols",
)  # fmt: skip
_DERIVED = (
    "feed.venue_url", "feed.source", "feed.name", "control.query_address", "edge.control_address",
)  # fmt: skip


@dataclass(frozen=True)
class Restart:
    """How to start a stack again.

    Attributes:
        arguments: of `k2 up`.
        settings: as environment variables.
    """

    arguments: tuple[str, ...]
    settings: Mapping[str, str]


def reset(directory: Path, say: Callable[[str], None]) -> float:
    """Stop the stack of a directory, empty it and start it again; returns the seconds it took.

    Raises:
        Data: STAMP_MISMATCH when the directory holds live or recorded trades.
        K2Error: the stack could not be stopped, or started.
    """
    began = time.monotonic()
    described = stack.read_stack(directory)
    refuse_real(directory, described)
    refuse_others(described, is_listening(stack.CONTROL_PORT))
    restart = restart_of(described, _settings_of(described))
    if described.running:
        say(f"stopping the K2 of {directory}")
        down.stop(described, timeout_s=60.0, at_once=True)  # nothing of it is kept
    empty(directory)
    say(f"emptied after {time.monotonic() - began:.1f} s; starting on the same ports")
    _start(directory, restart, say)
    return time.monotonic() - began


def ensure(directory: Path, say: Callable[[str], None]) -> None:
    """Start a simulated stack where none runs; what is stored stays.

    Raises:
        Data: STAMP_MISMATCH when the directory holds live or recorded trades.
        K2Error: it could not be started.
    """
    described = stack.read_stack(directory)
    if not described.running:
        refuse_real(directory, described)
        refuse_others(described, is_listening(stack.CONTROL_PORT))
        variables = {variable_of(name): text_of(value) for name, value in DEMO_SETTINGS.items()}
        _start(directory, Restart(("--venue", "synthetic"), variables), say)


def refuse_real(directory: Path, described: Stack) -> None:
    """Refuse a directory whose trades no practice venue could bring back.

    Raises:
        Data: STAMP_MISMATCH, with the way out.
    """
    try:
        source = json.loads((directory / "stamp.json").read_text()).get("source")
    except FileNotFoundError:
        source = described.content.get("source", SIMULATED)
    except (OSError, ValueError, AttributeError) as error:
        raise Data("STAMP_MISMATCH", f"{directory}/stamp.json cannot be read: {error}") from error
    if source != SIMULATED:
        raise Data(
            "STAMP_MISMATCH",
            f"{directory} holds {source} trades, which a reset would delete: demonstrate in a"
            " directory of its own, `k2 up -d --venue synthetic --data-dir DIR`, and reset that one"
            " with --data-dir DIR",
        )


def refuse_others(described: Stack, control_listens: bool) -> None:
    """Refuse to start beside a stack that is none of this directory's, such as one of containers.

    Raises:
        Invalid: BAD_REQUEST, with the way out.
    """
    if not described.running and not described.content and control_listens:
        raise Invalid(
            "BAD_REQUEST",
            f"the K2 on port {stack.CONTROL_PORT} is none of {described.directory}: give its"
            " --data-dir; one of containers is reset by `docker compose down -v` and"
            " `docker compose up -d`",
        )


def restart_of(described: Stack, settings: Mapping[str, object]) -> Restart:
    """Make the start that gives the same stack on the same ports.

    Args:
        described: as its supervisor wrote it, running or not.
        settings: of its control process by dotted name; empty when it does not answer.
    """
    processes = [each for each in described.content.get("processes") or () if each]
    names = {str(each.get("name")) for each in processes}
    addresses = dict(described.content.get("addresses") or {})
    for each in processes:
        addresses |= each.get("addresses") or {}
    kept = dict(settings) | demo_settings(settings)
    variables = {
        variable_of(name): text_of(value)
        for name, value in kept.items()
        if name.split(".")[0] in _KEPT_GROUPS
        and name not in _DERIVED
        and value is not None
        and value != ""
    }
    variables |= _ports(addresses, processes)
    arguments = ["--venue", "synthetic"]
    for name, option in {"prometheus": "--observe", "jupyter": "--notebooks"}.items():
        if name in names:
            arguments += (option, *_port_of(option, str(addresses.get(name, ""))))
    return Restart(tuple(arguments), variables)


def demo_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of a demonstration, where the present ones are K2's defaults."""
    return {
        name: value
        for name, value in DEMO_SETTINGS.items()
        if settings.get(name, _DEFAULTS[name]) == _DEFAULTS[name]
    }


def _ports(addresses: Mapping[str, str], processes: list[dict[str, Any]]) -> dict[str, str]:
    """Name the ports of a stack as settings."""
    named = {
        "broker": "K2_TAPE__BOOTSTRAP",
        "registry": "K2_TAPE__REGISTRY_URL",
        "control": "K2_CONTROL__LISTEN",
        "flight": "K2_QUERY__LISTEN_FLIGHT",
        "query": "K2_QUERY__LISTEN_GRPC",
        "venue": "K2_VENUE__LISTEN",
    }
    found = {named[name]: str(value) for name, value in addresses.items() if name in named}
    for each in processes:
        if each.get("name") == "edge" and (http := (each.get("addresses") or {}).get("http")):
            found["K2_EDGE__LISTEN"] = str(http).split("://")[-1].rstrip("/")
    metrics = [(each.get("addresses") or {}).get("metrics") for each in processes]
    if listed := [address for address in metrics if address]:
        found["K2_TELEMETRY__LISTEN"] = str(listed[0])
    return found


def _port_of(option: str, address: str) -> tuple[str, ...]:
    """Say on which port it listened that a stack has beside it."""
    port = urlsplit(address if "//" in address else f"//{address}").port
    return () if port is None else (f"{option}-port", str(port))


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"K2_{name.upper().replace('.', '__')}"


def text_of(value: object) -> str:
    """Write the value of a setting as its environment variable holds it."""
    return value if isinstance(value, str) else json.dumps(value)


def empty(directory: Path) -> None:
    """Remove what a stack has stored; its stamp, logs and key stay."""
    for name in _STORED:
        shutil.rmtree(directory / name, ignore_errors=True)


def _settings_of(described: Stack) -> dict[str, object]:
    if not described.running or "control" not in described.addresses:
        return {}
    try:
        with k2client.connect(
            described.addresses["control"], deadline_s=3.0, retry=k2client.Retry(attempts_max=1)
        ) as k2:
            return k2.settings()
    except K2Error:
        return {}


def _start(directory: Path, restart: Restart, say: Callable[[str], None]) -> None:
    supervisor = Spawned(
        "up", restart.arguments, directory, settings=restart.settings, detached=True
    )
    with supervisor:
        for event in supervisor.events():
            if event["event"] == "ready":
                say(f"SERVING {event.get('source')} trades of {len(event.get('symbols') or ())}")
                supervisor.detach()
                return
            if event["event"] == "failed":
                supervisor.wait()
                raise Unavailable(str(event.get("reason")), str(event.get("message")))
            if event["event"] == "serving":
                say(f"{event.get('name')} serves")
        code = supervisor.wait()
        raise Unavailable(
            "PROCESS_DIED", f"the supervisor ended with {code}: {supervisor.last_words()}"
        )
