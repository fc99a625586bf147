"""`k2 status`: every process of the stack, as its supervisor and as the control plane see it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from k2cli import console, options
from k2client import records, stack
from k2client.errors import K2Error


@click.command()
@options.as_json
@options.data_dir
@click.pass_context
def status(context: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """What runs, since when, where, and how often it was restarted. Exit code 1: nothing runs."""
    found = stack.read_stack(options.directory_of(data_dir))
    view = View(found, _live(found))
    if as_json:
        console.echo_json(view.document())
    if not found.running:
        error = stack.not_running(found.directory)
        console.say(f"k2: {error.reason}: {error.message}")
        if failure := view.document()["failure"]:
            console.say(f"it failed: {failure.get('reason')}: {failure.get('message')}")
        context.exit(1)
    if not as_json:
        _show(view)


def _live(found: stack.Stack) -> records.Status | None:
    """What the control plane says; None when it does not answer just now."""
    address = found.addresses.get("control")
    if address is None:
        return None
    try:
        with options.connect_at(address, deadline_s=2.0) as k2:
            return k2.status()
    except K2Error:
        return None


@dataclass(frozen=True)
class View:
    """Both views of a stack as one.

    Attributes:
        stack: what its supervisor wrote.
        live: what the control plane says; None when it does not answer.
    """

    stack: stack.Stack
    live: records.Status | None

    def document(self) -> dict[str, Any]:
        """The JSON document of `k2 status --json`."""
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
            "version": self.live.version if self.live else None,
            "started_at_us": content.get("started_at_us"),
            "addresses": self.stack.addresses,
            "processes": [self.process(each) for each in self.stack.processes],
            "failure": self.stack.content.get("failure"),
        }

    def process(self, supervised: dict[str, Any]) -> dict[str, Any]:
        """One process: the supervisor's record, with what the control plane adds."""
        heard = self._component(supervised)
        return supervised | {
            "state": _state(str(supervised.get("state")), heard),
            "level": heard.level if heard else None,
            "counters": dict(heard.counters) if heard else {},
        }

    def _component(self, supervised: dict[str, Any]) -> records.Component | None:
        components = self.live.components if self.live else ()
        same_run = [
            each
            for each in components
            if each.name == supervised.get("name") and each.pid in (None, supervised.get("pid"))
        ]
        return same_run[0] if same_run else None


def _state(supervised: str, heard: records.Component | None) -> str:
    """The supervisor knows whether a process lives; whether it also works, only the process.

    One that lives and was heard of once but is silent now hangs: that is what the control plane
    adds. One that never published anything (the broker, the registry) is judged by its supervisor.
    """
    if supervised != "SERVING" or heard is None:
        return supervised
    published = heard.report_time is not None
    return heard.state if published and heard.state in ("LOST", "DRAINING") else supervised


def _alerts(processes: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What processes say needs a person; with the name of each."""
    found = []
    for process in processes:
        alerts = json.loads(process["counters"].get("alerts") or "[]")
        found += [(str(process.get("name")), str(alert)) for alert in alerts]
    return found


def _show(view: View) -> None:
    content = view.document()
    level = content["level"] or "not known: the control plane does not answer"
    console.echo(
        f"{content['state']} · {content['source']} trades from {content['venue']}"
        f" · level {level} · supervisor {content['supervisor_pid']} · {content['data_dir']}"
    )
    rows = [
        (
            each.get("name"),
            str(each.get("pid") or "-"),
            each["state"],
            each.get("restarts"),
            each["level"],
            "  ".join(dict.fromkeys(map(str, (each.get("addresses") or {}).values()))),
        )
        for each in content["processes"]
    ]
    console.table(("process", "pid", "state", "restarts", "level", "addresses"), rows)
    for name, alert in _alerts(content["processes"]):
        console.echo(f"ALERT {name}: {alert}")
    if content["failure"]:
        failure = content["failure"]
        console.echo(f"failed: {failure.get('reason')}: {failure.get('message')}")
