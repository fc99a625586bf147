"""Runs a process of `servers` that works and then ends (doctor, record, verify), with progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from k2cli import console
from k2cli.child import INTERRUPTED, Event, Spawned

_PROGRESS = ("step", "progress", "serving")


def run_tool(
    name: str,
    arguments: Sequence[str],
    directory: Path,
    take: Callable[[Event], None],
    settings: Mapping[str, str] | None = None,
) -> int:
    """Run it to its end.

    Args:
        name: which process.
        arguments: its arguments.
        directory: the data directory it works on.
        take: is given every event but progress, failures and an early end.
        settings: more of its settings, as environment variables.

    Returns:
        Its exit code; never 0 when it failed.
    """
    failure: Event | None = None
    answered = False
    with Spawned(name, arguments, directory, settings=settings) as tool, tool.forwarding():
        with console.steps() as steps:
            for event in tool.events():
                if event["event"] == "failed":
                    failure = event
                elif event["event"] in _PROGRESS:
                    part, words = _part(event, name)
                    steps.step(part, words, event.get("done"), event.get("total"))
                elif event["event"] == "stopped":
                    answered = True
                    console.say(str(event.get("message")))
                else:
                    answered = True
                    take(event)
        code = tool.wait()
        if failure is not None:
            console.say(f"k2: {failure.get('reason')}: {failure.get('message')}")
            return code or 1
        if tool.interrupted:
            return code or INTERRUPTED
        if code and not answered and (words := tool.last_words()):
            console.say(f"k2: {name} ended with {code}: {words}")
        return code


def _part(event: Event, name: str) -> tuple[str, str]:
    part = str(event.get("name") or name)
    return part, str(event.get("message") or event.get("what") or event["event"])
