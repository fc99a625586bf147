"""Implements `k2 degrade`: shows the degradation level, sets it for a while, rehearses pressure."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Final

import click

from k2cli import console, options
from k2client import records
from k2client.convert import LEVELS
from k2client.errors import Unavailable

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_RETRY_S: Final = 1.0


class LengthOfTime(click.ParamType[float]):
    """A length of time such as 30s, 10m, 1h30m; a number alone is seconds."""

    name = "duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 as click passes it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return seconds."""
        parts = re.findall(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if not parts or "".join(number + unit for number, unit in parts) != str(value):
            self.fail(f"{value!r} is no duration: 30s, 10m, 1h30m", param, ctx)
        return sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)


class LevelName(click.Choice[str]):
    """A level by its name in any case, shown in upper case."""

    def __init__(self) -> None:
        super().__init__(LEVELS, case_sensitive=False)

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        """Return the name as it is shown."""
        return super().normalize_choice(choice, ctx).upper()


_FOR = click.option(
    "--for", "for_s", type=LengthOfTime(), required=True, help="How long: 30s, 10m, 1h30m."
)


@click.group(invoke_without_command=True)
@options.common
@click.pass_context
def degrade(context: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """Show the degradation level of the platform and the pressures behind it.

    Operators set the level for a while, and rehearse pressure, with the commands below.
    """
    context.obj = data_dir
    if context.invoked_subcommand is not None:
        return
    with options.connect(data_dir) as k2:
        now = k2.degradation()
    if as_json:
        console.echo_json(now)
        return
    console.echo(headline(now))
    rows: list[tuple[object, ...]] = []
    for process in now.processes:
        state = (process.process, process.state, process.level)
        for one in process.pressures:
            mark = "injected" if one.injected else ""
            rows.append((*state, one.signal, one.reading, one.pressure, mark))
        if not process.pressures:
            rows.append((*state, None, None, None, ""))
    columns = ("process", "state", "level", "signal", "reading", "pressure", "")
    console.table(columns, rows)


@degrade.command("set")
@click.argument("level", type=LevelName(), metavar="LEVEL")
@_FOR
@click.option("--reason", required=True, help="Why, for those who read the history.")
@options.common
@click.pass_context
def set_level(
    context: click.Context,
    *,
    level: str,
    for_s: float,
    reason: str,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Replace the platform's level by LEVEL for a while, downward too.

    LEVEL is NORMAL, SOFT, GRACEFUL, AGGRESSIVE or CIRCUIT_BREAK, in any case.

    A process whose own memory or disk demands more keeps to that.
    """
    with options.connect(data_dir or context.obj) as k2:
        made = k2.set_override(level, for_s, reason)
    if as_json:
        console.echo_json({"override": made})
        return
    console.echo(_override(made))


@degrade.command()
@options.common
@click.pass_context
def clear(context: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """End the override; the level is again the one that follows from the processes."""
    with options.connect(data_dir or context.obj) as k2:
        ended = k2.clear_override()
    if as_json:
        console.echo_json({"ended": ended})
        return
    console.echo(f"ended: {_override(ended)}" if ended else "there was no override")


@degrade.command()
@options.common
@click.pass_context
def watch(context: click.Context, as_json: bool, data_dir: Path | None) -> None:
    """Print the level: now, at each change and every 5 seconds, until Ctrl-C."""
    with options.connect(data_dir or context.obj) as k2:
        while True:
            try:
                for now in k2.watch_degradation():
                    console.echo(console.json_line(now) if as_json else _line(now))
            except Unavailable as error:  # control restarts
                console.say(f"k2: {error.reason}: {error.message}")
                time.sleep(_RETRY_S)


@degrade.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@options.common
@click.pass_context
def history(context: click.Context, limit: int, as_json: bool, data_dir: Path | None) -> None:
    """List the changes of the level and of overrides, newest first."""
    with options.connect(data_dir or context.obj) as k2:
        listed = k2.transitions(limit)
    if as_json:
        console.echo_json({"transitions": listed})
        return
    rows = [
        (
            *(one.time, one.from_level, one.to_level, one.cause),
            *(one.process or None, one.signal or None, one.reading),
            *((one.pressure, one.threshold) if one.process else (None, None)),
            one.reason or ("injected" if one.injected else None),
        )
        for one in listed
    ]
    columns = ("time", "from", "to", "cause", "process", "signal", "reading", "pressure")
    console.table((*columns, "threshold", "reason"), rows)


@degrade.command()
@click.option("--signal", required=True, help="Which, as `k2 degrade` names it: writer_lag_s.")
@click.option("--pressure", type=click.FloatRange(0.0, 1.0), required=True)
@_FOR
@click.option("--process", default="", help="Into this one.  [default: into every process]")
@options.common
@click.pass_context
def inject(  # noqa: PLR0913 one parameter per option, by name
    context: click.Context,
    *,
    signal: str,
    pressure: float,
    for_s: float,
    process: str,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Set the pressure of a signal for a while, for tests and demonstrations.

    Every surface that shows the pressure says that it is injected.
    """
    with options.connect(data_dir or context.obj) as k2:
        until = k2.inject_pressure(signal, pressure, for_s, process)
    if as_json:
        console.echo_json({"expire_time": until})
        return
    into = process or "every process"
    console.echo(f"{signal} of {into} presses {pressure:g} until {console.cell(until).plain}")


def headline(now: records.Degradation) -> str:
    """Describe the level in a line, with what an operator has done to it."""
    return " · ".join([f"level {now.level}: {now.summary}", *marks(now)])


def marks(now: records.Degradation) -> list[str]:
    """List what an operator has done to the level."""
    found = [_override(now.override)] if now.override is not None else []
    found += ["INJECTED pressure"] * now.injected
    return found + ["SHADOW: published and not obeyed"] * now.shadow


def highest(now: records.Degradation) -> tuple[str, records.Pressure] | None:
    """Find the highest pressure, with its process."""
    pressures = [(process.process, one) for process in now.processes for one in process.pressures]
    return max(pressures, key=lambda each: each[1].pressure, default=None)


def _override(override: records.Override) -> str:
    until = console.cell(override.expire_time).plain
    return f"OVERRIDE {override.level} until {until}: {override.reason}"


def _line(now: records.Degradation) -> str:
    parts = [console.cell(now.time).plain, now.level]
    found = highest(now)
    if found is not None:
        process, one = found
        reading = console.cell(one.reading).plain
        parts.append(f"{process} {one.signal} {reading}, pressure {one.pressure:.2f}")
    if now.override is not None:
        parts.append(_override(now.override))
    parts += ["INJECTED"] * now.injected + ["SHADOW"] * now.shadow
    return " · ".join(parts)
