"""Implements `k2 up`: starts the stack, shows its progress and keeps it in the foreground.

The supervisor (`python -m servers up`) does the work. The command shows the supervisor's JSON lines
as text, sends a first query when all is SERVING, which proves that all parts work together, and
forwards the signals that would end the command.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

import k2client
from k2cli import console, options, output
from k2cli.child import INTERRUPTED, Event, Spawned
from k2cli.shapes.asking import summary
from k2client import arrow_text, records
from k2client.errors import K2Error
from k2client.json_form import json_value

_WAIT_S = 6.0
_POLL_S = 0.25
_ROWS = 3
_COLUMNS = ("event_time", "symbol", "trade_id", "side", "price", "quantity", "source")


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Return when all is SERVING; leave it running.")
@click.option(
    "--venue",
    metavar="auto|live|synthetic|recording:PATH",
    help="Where trades come from.  [default: auto: live if it can be reached, else synthetic]",
)
@click.option("--rate", type=float, help="Synthetic trades a second, over all symbols.")
@click.option("--speed", type=float, help="Speed of a recording; 0: as fast as the feed takes it.")
@click.option("--symbols", metavar="A,B", help="Symbols to read.")
@click.option("--exchange", help="Id space of the trades, such as BINANCE_UM.")
@click.option("--feeds", type=int, help="Feed processes that read the same streams.  [default: 1]")
@click.option(
    "--ports",
    type=click.Choice(["free", "fixed"]),
    help="Free ports let several stacks run side by side.  [default: fixed]",
)
@click.option(
    "--observe", is_flag=True, help="Also start Prometheus on this stack, where it is installed."
)
@click.option(
    "--notebooks", is_flag=True, help="Also serve the notebooks by Jupyter (extra `notebook`)."
)
@options.common
@click.pass_context
def up(
    context: click.Context,
    /,
    detach: bool,
    observe: bool,
    notebooks: bool,
    as_json: bool,
    data_dir: Path | None,
    **given: object,
) -> None:
    """Run K2 on this machine: broker, registry, feed, lake, query and control server.

    The command stays in the foreground; Ctrl-C drains and stops everything. The exit code is 0
    only when all parts were SERVING.
    """
    directory = options.directory_of(data_dir)
    beside = [*(["--observe"] if observe else ()), *(["--notebooks"] if notebooks else ())]
    arguments = [*options.arguments(given), *beside]
    supervisor = Spawned("up", arguments, directory, detached=detach)
    with supervisor, supervisor.forwarding():
        code = _run(supervisor, as_json=as_json, detach=detach)
    context.exit(code)


def _run(supervisor: Spawned, *, as_json: bool, detach: bool) -> int:
    events = supervisor.events()
    started = _start(events)
    if started is None or started["event"] != "ready":
        _watch(events)
        return _failed(supervisor, started or {})
    _announce(started, as_json=as_json, interrupted=lambda: supervisor.interrupted)
    if detach and not supervisor.interrupted:
        supervisor.detach()
        return 0
    if not as_json and not supervisor.interrupted:
        console.say("Ctrl-C stops it")
    failure = _watch(events)
    code = supervisor.wait()
    if failure is not None:
        console.say(f"k2: {failure.get('reason')}: {failure.get('message')}")
        return code or 1
    return code


def _start(events: Iterator[Event]) -> Event | None:
    """Show progress until the event `ready` or `failed`; None when it ends before either."""
    with console.steps() as step:
        for event in events:
            kind, name = event["event"], str(event.get("name", ""))
            if kind in ("ready", "failed"):
                return event
            if kind == "progress":
                words = str(event.get("what") or event.get("message") or "")
                step(name, words, event.get("done"), event.get("total"))
            elif kind == "serving":
                step(name, "SERVING", None, None)
            else:
                step(name, _words(event), None, None)
    return None


def _failed(supervisor: Spawned, failure: Event) -> int:
    """Wait for the end of a supervisor that did not start, and print the reason."""
    code = supervisor.wait()
    if supervisor.interrupted:
        console.say("k2: stopped before all was SERVING")
        return code or INTERRUPTED
    reason = failure.get("reason") or "PROCESS_DIED"
    message = failure.get("message") or (
        f"the supervisor ended with {code}: {supervisor.last_words() or 'no message'}"
    )
    console.say(f"k2: {reason}: {message}")
    return code or 1


def _watch(events: Iterator[Event]) -> Event | None:
    """Print events until the supervisor ends; return the failure that ended it, if any."""
    failure = None
    for event in events:
        if event["event"] == "failed":
            failure = event
        elif event["event"] in ("restarting", "restarted", "draining", "stopped"):
            console.say(_words(event))
    return failure


def _words(event: Event) -> str:
    """Describe an event in one line."""
    name, kind = event.get("name"), event["event"]
    if event.get("message"):
        return str(event["message"])
    if kind == "restarting":
        return (
            f"{name} ended with {event.get('exit_code')}: starts again in"
            f" {event.get('in_s', 0)} s (restart {event.get('restarts')})"
        )
    return f"{name} {kind}" if name else kind


def _announce(ready: Event, *, as_json: bool, interrupted: Callable[[], bool]) -> None:
    """Print addresses, source and a first answer to stdout."""
    content = {name: value for name, value in ready.items() if name != "event"}
    symbols = [str(symbol) for symbol in content.get("symbols") or ()]
    control = content.get("control")
    answer = first_answer(str(control), symbols[0], interrupted) if symbols and control else None
    if as_json:
        document = answer.document() if answer else None
        console.echo(console.json_line(content | {"first_answer": document}))
        return
    took = f" in {content['took_s']:.1f} s" if content.get("took_s") else ""
    console.echo(f"K2 is SERVING{took}: {content.get('source')} trades of {', '.join(symbols)}")
    addresses = content.get("addresses") or {}
    width = max([9, *map(len, addresses)])
    for name in sorted(addresses):
        console.echo(f"  {name:<{width}} {addresses[name]}")
    console.echo(f"  {'data':<{width}} {content.get('data_dir')}")
    if answer is None:
        console.echo(f"no trade of {symbols[0] if symbols else 'any symbol'} yet")
        return
    console.echo(f"the newest trades of {answer.symbol}, asked in {answer.took_ms:.0f} ms:")
    console.echo(answer.text(console.page()))
    console.echo(summary(answer.rows.num_rows, answer.provenance))


@dataclass(frozen=True)
class FirstAnswer:
    """The newest trades of a symbol.

    Attributes:
        symbol: their symbol.
        rows: the trades, newest first.
        provenance: their origin.
        took_ms: the time of the query, rows included.
    """

    symbol: str
    rows: pa.Table
    provenance: records.Provenance
    took_ms: float

    def text(self, page: console.Page = console.FILE) -> str:
        """Format the rows as a table."""
        written = io.BytesIO()
        output.write("table", self.rows.schema, self.rows.to_batches(), written, page)
        return written.getvalue().decode(page.encoding).rstrip("\n")

    def document(self) -> dict[str, Any]:
        """Return the answer as JSON values."""
        return {
            "symbol": self.symbol,
            "rows": [
                row for batch in self.rows.to_batches() for row in arrow_text.json_objects(batch)
            ],
            "provenance": json_value(self.provenance),
            "took_ms": round(self.took_ms, 3),
        }


def first_answer(address: str, symbol: str, stopped: Callable[[], bool]) -> FirstAnswer | None:
    """Query until the first trades are there; None when none come in time.

    Args:
        address: the address of the control server.
        symbol: the symbol to query.
        stopped: returns whether to give up.
    """
    end = time.monotonic() + _WAIT_S
    with options.connect_at(address, deadline_s=_WAIT_S) as k2:
        while time.monotonic() < end and not stopped():
            answer = _ask(k2, symbol)
            if answer is not None:
                return answer
            time.sleep(_POLL_S)
    return None


def _ask(k2: k2client.Client, symbol: str) -> FirstAnswer | None:
    began = time.monotonic()
    try:
        answer = k2.trades(symbol, limit=_ROWS, order="desc", columns=_COLUMNS)
        rows = answer.to_arrow()
    except K2Error:
        return None  # a symbol is not known before its first trade
    took_ms = (time.monotonic() - began) * 1000
    return FirstAnswer(symbol, rows, answer.provenance, took_ms) if rows.num_rows else None
