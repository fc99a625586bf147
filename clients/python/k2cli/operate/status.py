"""Implements `k2 status`: the supervisor's and the control plane's view of every process."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from k2cli import console, options
from k2cli.operate import degrade, status_screen
from k2cli.operate.status_screen import StatusFrame
from k2client import records, stack
from k2client.errors import K2Error

_COMMITS = 3  # that a frame shows


@click.command()
@click.option("--watch", is_flag=True, help="Draw the level, pressures and rates until Ctrl-C.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between two frames of --watch.",
)
@options.common
@click.pass_context
def status(
    context: click.Context, watch: bool, interval_s: float, as_json: bool, data_dir: Path | None
) -> None:
    """Show the processes, their addresses and their restarts; exit code 1 when nothing runs."""
    if watch and as_json:
        raise click.UsageError("give --watch or --json, not both")
    described = stack.read_stack(options.directory_of(data_dir))
    view = View(described, *_live(described))
    if as_json:
        console.echo_json(view.document())
    if not described.running:
        error = stack.not_running(described.directory)
        console.say(f"k2: {error.reason}: {error.message}")
        if failure := view.document()["failure"]:
            console.say(f"it failed: {failure.get('reason')}: {failure.get('message')}")
        context.exit(1)
    if watch:
        status_screen.watch(lambda: _frame(described.directory), interval_s)
    elif not as_json:
        _show(view)


def _live(described: stack.Stack) -> tuple[records.Status | None, records.Degradation | None]:
    """Return status and level of the control plane; None when it does not answer."""
    address = described.addresses.get("control")
    if address is None:
        return None, None
    try:
        with options.connect_at(address, deadline_s=2.0) as k2:
            return k2.status(), k2.degradation()
    except K2Error:
        return None, None


def _frame(directory: Path) -> StatusFrame:
    """Read what a frame of `--watch` shows; what does not answer is left out."""
    described = stack.read_stack(directory)
    document = View(described, None).document()
    degradation, trades, snapshots = None, None, []
    try:
        with options.connect_at(described.addresses["control"], deadline_s=2.0) as k2:
            live, degradation = k2.status(), k2.degradation()
            document = View(described, live, degradation).document()
            trades = sum(feed.trades_acknowledged for feed in k2.feeds())
            snapshots = k2.snapshots(_COMMITS)
    except (K2Error, KeyError):
        pass
    addresses = {each.get("name"): each.get("addresses") or {} for each in document["processes"]}
    metrics = addresses.get("query", {}).get("metrics")
    freshness = status_screen.freshness_at(metrics) if metrics else None
    return StatusFrame(document, degradation, trades, freshness, snapshots, time.monotonic())


@dataclass(frozen=True)
class View:
    """Combines both views of a stack.

    Attributes:
        stack: the description that its supervisor wrote.
        live: the status of the control plane; None when it does not answer.
        degradation: the level of the platform, as `live`.
    """

    stack: stack.Stack
    live: records.Status | None
    degradation: records.Degradation | None = None

    def document(self) -> dict[str, Any]:
        """Return the JSON document of `k2 status --json`."""
        content = self.stack.content if self.stack.running else {}
        return {
            "state": self.stack.state,
            "supervisor_pid": self.stack.supervisor_pid,
            "data_dir": str(self.stack.directory),
            "source": content.get("source"),
            "venue": content.get("venue"),
            "exchange": content.get("exchange"),
            "symbols": content.get("symbols", []),
            "level": self.live.level if self.live else None,
            "override": self.degradation.override if self.degradation else None,
            "injected": self.degradation.injected if self.degradation else None,
            "shadow": self.degradation.shadow if self.degradation else None,
            "version": self.live.version if self.live else None,
            "started_at_us": content.get("started_at_us"),
            "addresses": self.stack.addresses,
            "processes": [self.process(process) for process in self.stack.processes],
            "failure": self.stack.content.get("failure"),
            "trusted_networks": content.get("trusted_networks", []),
        }

    def process(self, supervised: dict[str, Any]) -> dict[str, Any]:
        """Add the control plane's fields to the supervisor's record of a process."""
        component = self._component(supervised)
        return supervised | {
            "state": _state(str(supervised.get("state")), component),
            "level": component.level if component else None,
            "counters": dict(component.counters) if component else {},
        }

    def _component(self, supervised: dict[str, Any]) -> records.Component | None:
        components = self.live.components if self.live else ()
        same_run = [
            component
            for component in components
            if component.name == supervised.get("name")
            and component.pid in (None, supervised.get("pid"))
        ]
        return same_run[0] if same_run else None


def _state(supervised: str, component: records.Component | None) -> str:
    """Combine the supervisor's state of a process with that of its heartbeat.

    The supervisor knows whether a process lives, and the heartbeat whether it works: a process that
    lives but no longer publishes heartbeats hangs. The supervisor alone decides for a process that
    has never published one (the broker, the registry).
    """
    if supervised != "SERVING" or component is None:
        return supervised
    published = component.report_time is not None
    overriding = published and component.state in ("LOST", "DRAINING")
    return component.state if overriding else supervised


def _alerts(processes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the alerts of all processes, which need an operator, with the process names."""
    named_alerts = []
    for process in processes:
        alerts = json.loads(process["counters"].get("alerts") or "[]")
        named_alerts += [(str(process.get("name")), str(alert)) for alert in alerts]
    return named_alerts


def _addresses(addresses: dict[str, str]) -> list[str]:
    """List where a process listens, each address once; its metrics as what a browser opens."""
    shown = {
        name: f"http://{address}/metrics" if name == "metrics" else str(address)
        for name, address in addresses.items()
    }
    return list(dict.fromkeys(shown.values()))


def _show(view: View) -> None:
    content = view.document()
    level = content["level"] or "not known: the control plane does not answer"
    console.echo(
        f"{content['state']} · {content['source']} trades from {content['venue']}"
        f" · level {level} · supervisor {content['supervisor_pid']} · {content['data_dir']}"
    )
    rows = [
        (
            process.get("name"),
            str(process.get("pid") or "-"),
            process["state"],
            process.get("restarts"),
            process["level"],
            "  ".join(_addresses(process.get("addresses") or {})),
        )
        for process in content["processes"]
    ]
    console.table(("process", "pid", "state", "restarts", "level", "addresses"), rows)
    if view.degradation and (marks := degrade.marks(view.degradation)):
        console.echo(" · ".join(marks))
    for name, alert in _alerts(content["processes"]):
        console.echo(f"ALERT {name}: {alert}")
    if networks := content["trusted_networks"]:
        console.echo(f"OPEN: peers inside {', '.join(networks)} are taken without a key")
    if content["failure"]:
        failure = content["failure"]
        console.echo(f"failed: {failure.get('reason')}: {failure.get('message')}")
