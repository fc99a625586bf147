"""Writes `docs/metrics.md`, the catalogue of all metrics: `python -m scripts.metrics_catalogue`.

A metric is declared beside the code that moves it (`k2/metrics.py`). This imports every module of
`k2` and `servers`, and lists what they declare. The file is committed; a test writes it again and
compares.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import k2
import servers
from k2.metrics import DECLARED, Declaration, declare_fields

FILE = Path(__file__).parents[1] / "docs/metrics.md"
_PACKAGES = ("k2", "servers")
_UNITS = ("seconds", "bytes", "ratio", "records", "rows", "frames", "messages", "files", "trades")
_INTRODUCTION = """\
# Metrics

Each process serves its metrics at `/metrics` on loopback; `k2 status` prints the addresses, from
9101 on in the order of the start. The format is Prometheus text, or OpenMetrics with exemplars
(`trace_id`) where the Accept header asks for it. `telemetry.metrics = false` serves none.

Written by `python -m scripts.metrics_catalogue` from the declarations in the code; there are
**{count}** metrics. A counter ends with `_total` and grows from 0 at the start of its process; a
histogram has the series `_bucket`, `_sum` and `_count`. Prometheus adds `instance` and `job`.
"""


def declarations() -> dict[str, Declaration]:
    """Import every module of K2; what they declare, by name."""
    for package in (k2, servers):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith("k2.v1") and not found.name.endswith("__main__"):
                declare_fields(importlib.import_module(found.name))
    return {
        name: declaration
        for name, declaration in sorted(DECLARED.items())
        if declaration.module.split(".")[0] in _PACKAGES
    }


def unit_of(name: str) -> str:
    """Name the unit of a metric, by the end of its name; empty for a plain number."""
    parts = name.removesuffix("_total").split("_")
    if name.endswith("_per_second"):
        return f"{parts[-3]}/second"
    if name.endswith("bytes_per_trade"):
        return "bytes/trade"
    return next((part for part in reversed(parts) if part in _UNITS), "")


def catalogue(declared: Mapping[str, Declaration]) -> str:
    """Write the catalogue of some declarations."""
    return "\n".join([_INTRODUCTION.format(count=len(declared)), *_tables(declared.values())])


def _tables(declared: Iterable[Declaration]) -> Iterator[str]:
    def family(one: Declaration) -> str:
        return one.name.split("_")[1]

    for name, group in groupby(declared, family):
        yield f"## k2_{name}\n"
        yield "| metric | kind | unit | labels | meaning | declared in |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for one in group:
            labels = ", ".join(f"`{label}`" for label in one.labels)
            where = f"`{one.module.replace('.', '/')}.py`"
            unit = unit_of(one.name)
            yield f"| `{one.name}` | {one.kind} | {unit} | {labels} | {one.help} | {where} |"
        yield ""


if __name__ == "__main__":
    FILE.write_text(catalogue(declarations()))
    print(f"{FILE.name}: {len(declarations())} metrics")
