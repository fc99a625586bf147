"""Draws `k2 status --watch`: processes, level and pressures as bars, rates and the last commits.

A frame is a list of lines. On a terminal the lines replace those of the frame before; elsewhere
each frame is printed as plain text, with an empty line after it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from k2cli import console
from k2cli.operate import degrade, scrape
from k2cli.operate.fetching import NotServed, fetch
from k2client import records

_WIDE: Final = 84  # columns that a process and a pressure need side by side
_PREFIX: Final = 36
_BARS: Final = 3  # of a process
_SCRAPE_S: Final = 0.5
_STYLES: Final = ((0.7, "red"), (0.5, "yellow"), (0.0, "green"))


@dataclass(frozen=True)
class StatusFrame:
    """What is known at one moment.

    Attributes:
        document: of `k2 status --json`.
        degradation: None while the control plane does not answer.
        trades: acknowledged by all feeds since they started; None when not known.
        freshness: seconds of all rows together, and their number; None when not known.
        snapshots: the last commits, newest first.
        at_s: when, monotonic seconds.
    """

    document: Mapping[str, Any]
    degradation: records.Degradation | None
    trades: int | None
    freshness: tuple[float, float] | None
    snapshots: Sequence[records.Snapshot]
    at_s: float


def watch(read: Callable[[], StatusFrame], interval_s: float) -> None:
    """Draw frames until Ctrl-C."""
    before: StatusFrame | None = None
    if not sys.stdout.isatty():
        while True:
            before = _print(read(), before)
            time.sleep(interval_s)
    screen = Console()
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            frame = read()
            shown = lines(frame, before, screen.width, screen.encoding)
            live.update(Group(*shown), refresh=True)
            before = frame
            time.sleep(interval_s)


def _print(frame: StatusFrame, before: StatusFrame | None) -> StatusFrame:
    for line in lines(frame, before, _WIDE, sys.stdout.encoding or "utf-8"):
        console.echo(line.plain.rstrip())
    console.echo("")
    return frame


def lines(frame: StatusFrame, before: StatusFrame | None, width: int, encoding: str) -> list[Text]:
    """Lay a frame out for a terminal of that width."""
    document, now = frame.document, frame.degradation
    level = degrade.headline(now) if now else "level not known: the control plane does not answer"
    shown = [Text(f"{document['state']} · {document['source']} trades from {document['venue']}")]
    shown.append(Text(level, style=_style(_highest(now))))
    by_process = {each.process: each for each in now.processes} if now else {}
    for process in document["processes"]:
        shown += _process(process, by_process.get(str(process.get("name"))), width)
    shown.append(Text(_rates(frame, before)))
    shown += [_commit(snapshot) for snapshot in frame.snapshots]
    return [Text(console.legible(line.plain, encoding), spans=line.spans) for line in shown]


def _process(
    process: Mapping[str, Any], degradation: records.ProcessDegradation | None, width: int
) -> list[Text]:
    restarts = process.get("restarts") or 0
    said = f"{process.get('name')!s:<11}{process['state']!s:<10}{process['level'] or '-'!s}"
    named = Text(said + (f" restarts {restarts}" if restarts else ""))
    pressures = degradation.pressures if degradation else ()
    bars = [
        _bar(one, width)
        for number, one in enumerate(pressures)
        if number < _BARS and (one.pressure > 0.0 or one.injected or number == 0)
    ]
    if width < _WIDE or not bars:
        return [named, *(Text("  ").append_text(bar) for bar in bars)]
    named.pad_right(max(1, _PREFIX - named.cell_len))
    rest = (Text(" " * _PREFIX).append_text(bar) for bar in bars[1:])
    return [named.append_text(bars[0]), *rest]


def _bar(one: records.Pressure, width: int) -> Text:
    length = 16 if width >= _WIDE else 8
    filled = round(one.pressure * length)
    bar = Text("█" * filled + "░" * (length - filled), style=_style(one.pressure))
    reading = console.cell(one.reading).plain
    bar.append(f" {one.pressure:.2f} {one.signal} {reading}", style="")
    return bar.append(" injected", style="magenta") if one.injected else bar


def _rates(frame: StatusFrame, before: StatusFrame | None) -> str:
    lags = [_reading(frame.degradation, name) for name in ("writer_lag_s", "backlog_age_s")]
    lag = max((lag for lag in lags if lag is not None), default=None)
    parts = [f"trades/s {console.cell(_rate(frame, before)).plain}"]
    parts.append(f"writer lag {console.cell(lag).plain} s")
    if (mean := _mean_freshness(frame, before)) is not None:
        parts.append(f"freshness {mean * 1000:.0f} ms on average")
    return " · ".join(parts)


def _rate(frame: StatusFrame, before: StatusFrame | None) -> float | None:
    if before is None or frame.trades is None or before.trades is None:
        return None
    passed_s, more = frame.at_s - before.at_s, frame.trades - before.trades
    return more / passed_s if more >= 0 and passed_s > 0 else None  # a feed restarted


def _mean_freshness(frame: StatusFrame, before: StatusFrame | None) -> float | None:
    if frame.freshness is None or before is None or before.freshness is None:
        return None
    seconds, rows = (
        now - then for now, then in zip(frame.freshness, before.freshness, strict=True)
    )
    return seconds / rows if rows > 0 else None


def _reading(now: records.Degradation | None, signal: str) -> float | None:
    found = [
        one.reading
        for process in (now.processes if now else ())
        for one in process.pressures
        if one.signal == signal
    ]
    return found[0] if found else None


def _commit(snapshot: records.Snapshot) -> Text:
    when = console.cell(snapshot.commit_time).plain
    return Text(f"commit {when}  +{snapshot.rows_added:,} rows  {snapshot.rows_total:,} in all")


def _highest(now: records.Degradation | None) -> float:
    found = degrade.highest(now) if now else None
    return found[1].pressure if found else 0.0


def _style(pressure: float) -> str:
    return next(style for least, style in _STYLES if pressure >= least)


def freshness_at(address: str) -> tuple[float, float] | None:
    """Read sum and count of the freshness histogram from a process's metrics; None: not there."""
    try:
        return scrape.freshness(fetch(f"http://{address}/metrics", _SCRAPE_S))
    except NotServed:
        return None
