"""Implements `k2 cost`: what a stream of trades costs, and where each figure comes from."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from k2cli import console, options
from k2cli.cost.cost_model import (
    Bill,
    Deployment,
    Measured,
    Price,
    Prices,
    at_scale,
    bill,
    read_prices,
    sensitivity,
)
from k2cli.operate.running_stack import RunningStack

SCALES = (138.0, 10_000.0, 1_000_000.0)
_RATE_OVER_S = 3.0


@click.command()
@click.option(
    "--messages", type=click.FloatRange(min=0, min_open=True), multiple=True, metavar="N",
    help="Messages a second, several times for several columns.  [default: 138, 10,000, 1,000,000]",
)  # fmt: skip
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Days rows are kept.")
@click.option(
    "--utilisation", type=click.FloatRange(0, 1, min_open=True), help="Share of the cores in use."
)
@click.option("--live", is_flag=True, help="With the rate and bytes of the running stack, now.")
@click.option("--markdown", is_flag=True, help="The tables of docs/cost-model.md.")
@options.common
def cost(  # noqa: PLR0913, PLR0917 one parameter an option
    messages: tuple[float, ...],
    days: float | None,
    utilisation: float | None,
    live: bool,
    markdown: bool,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Compute what a month of trades costs, from measured figures and dated list prices."""
    if markdown:
        console.echo(tables(Measured(), read_prices()))
        return
    measured, scales = Measured(), messages or SCALES
    if live:
        with RunningStack.open(data_dir) as running:
            rate, measured = live_figures(running)
        scales = (rate, *messages)
    changed: dict[str, Any] = {}
    if days is not None:
        changed["lake_days"] = days
    if utilisation is not None:
        changed["utilisation"] = utilisation
    wanted = [replace(at_scale(scale), **changed) for scale in scales]
    _show(wanted, measured, read_prices(), as_json=as_json)


def live_figures(running: RunningStack, over_s: float = _RATE_OVER_S) -> tuple[float, Measured]:
    """Measure the messages a second and the bytes a trade of a running stack."""
    rate = max(running.trade_rate(over_s), 0.001)
    snapshots = running.k2.snapshots(1)
    measured = Measured()
    if snapshots and snapshots[0].rows_total:
        measured = replace(measured, lake_bytes=snapshots[0].bytes_total / snapshots[0].rows_total)
    return rate, measured


def _show(wanted: list[Deployment], measured: Measured, prices: Prices, *, as_json: bool) -> None:
    bills = [bill(each, measured, prices) for each in wanted]
    if as_json:
        console.echo_json(
            {
                "prices": dataclasses.asdict(prices),
                "measured": dataclasses.asdict(measured),
                "bills": [
                    {
                        "deployment": dataclasses.asdict(how),
                        "bill": dataclasses.asdict(one),
                        "total": one.total,
                        "per_million": one.per_million,
                    }
                    for how, one in zip(wanted, bills, strict=True)
                ],
            }
        )
        return
    columns = ("$ a month", *(f"{each.messages_per_s:,.0f}/s" for each in wanted))
    console.table(columns, list(_rows(wanted, bills)))
    console.echo(
        f"list prices of {prices.checked}, {prices.region}; rows/s/core as measured by `make bench`"
        f" on two cores, {measured.lake_bytes:.1f} bytes a trade; above one machine's reach the"
        " figures extrapolate: see docs/cost-model.md"
    )


def _rows(wanted: list[Deployment], bills: list[Bill]) -> list[tuple[str, ...]]:
    parts = ("cores", "tape", "lake", "requests", "zones")
    return [
        *((part, *(f"{getattr(one, part):,.2f}" for one in bills)) for part in parts),
        ("total", *(f"{one.total:,.2f}" for one in bills)),
        ("$ per million messages", *(f"{one.per_million:.4f}" for one in bills)),
        ("vCPU", *(f"{one.vcpus:,.0f}" for one in bills)),
        ("copies, zones", *(f"{each.copies}, {each.zones}" for each in wanted)),
    ]


def tables(measured: Measured, prices: Prices) -> str:
    """Write the tables of docs/cost-model.md."""
    wanted = [at_scale(scale) for scale in SCALES]
    bills = [bill(each, measured, prices) for each in wanted]
    head = ("$ a month", *(f"{each.messages_per_s:,.0f} messages/s" for each in wanted))
    listed = [
        (one.what, f"${one.price:g} a {one.unit}", one.source)
        for one in vars(prices).values()
        if isinstance(one, Price)
    ]
    varied = [
        (name, f"{total:,.0f}", f"{ratio:.2f}")
        for name, total, ratio in sensitivity(wanted[-1], measured, prices)
    ]
    return "\n\n".join(
        [
            _table(head, _rows(wanted, bills)),
            _table(("at 1,000,000 messages/s", "$ a month", "ratio"), varied),
            _table((f"list price of {prices.checked}, {prices.region}", "", "source"), listed),
        ]
    )


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
