"""Implements `k2 doctor`: checks the machine and shows the settings K2 would run with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from k2cli import console, options
from k2cli.child import Event, run_tool


@click.command()
@click.option("--fetch", is_flag=True, help="First fetch what a stack needs, for use offline.")
@options.common
@click.pass_context
def doctor(context: click.Context, fetch: bool, as_json: bool, data_dir: Path | None) -> None:
    """Check disk, ports, memory, artefacts and the venue; show the settings, secrets masked."""
    checks: list[Event] = []
    settings: dict[str, Any] = {}

    def take(event: Event) -> None:
        if event["event"] == "check":
            checks.append({name: value for name, value in event.items() if name != "event"})
        elif event["event"] == "settings":
            settings.update(event.get("settings") or {})

    arguments = ["--fetch"] if fetch else []
    code = run_tool("doctor", arguments, options.directory_of(data_dir), take)
    if as_json:
        ok = code == 0 and all(check.get("ok") for check in checks)
        console.echo_json({"ok": ok, "checks": checks, "settings": settings})
    else:
        _show(checks, settings)
    context.exit(code)


def _show(checks: list[Event], settings: dict[str, Any]) -> None:
    rows = [
        (check.get("name"), "ok" if check.get("ok") else "failed", check.get("message"))
        for check in checks
    ]
    console.table(("check", "", "what was found"), rows)
    flat = [(name, json.dumps(value)) for name, value in _flat(settings)]
    console.table(("setting", "value"), flat)


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten settings to their dotted names in k2.toml."""
    flat: list[tuple[str, Any]] = []
    for name, value in settings.items():
        nested = isinstance(value, dict)
        flat += _flat(value, f"{prefix}{name}.") if nested else [(prefix + name, value)]
    return flat
