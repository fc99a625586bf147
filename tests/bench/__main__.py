"""`make bench`: runs every benchmark of this folder and prints one table beside the floors.

Each `bench_*.py` has `measure() -> list[tuple[str, float, str]]`: name, value, unit. Rates stand
beside a limit measured in the same run; a figure without one says so in its name.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import traceback
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parents[1] / "bench-results"

# Name of a figure → the floor of the design, in the same unit; "min" means at least.
FLOORS: dict[str, tuple[str, float]] = {
    "lake worker, broker to committed Iceberg": ("min", 300_000),
    "lake worker RSS": ("max", 1024),
    "feed, venue to acknowledged on the tape": ("min", 20_000),
    "feed, RSS": ("max", 1024),
    "tail ingest, queries running": ("min", 20_000),
    "freshness p99": ("max", 100),
    "warm start, resumed": ("max", 30),
    "RSS of the whole stack": ("max", 2560),
}


def main(only: list[str]) -> int:
    """Run the named benchmarks (all without names) and show what they measured."""
    modules = sorted(path.stem for path in FOLDER.glob("bench_*.py"))
    rows: list[dict[str, object]] = []
    failed: list[str] = []
    for name in modules:
        if not only or name.removeprefix("bench_") in only:
            print(f"measuring {name.removeprefix('bench_')} ...", file=sys.stderr)
            try:
                rows.extend(figures_of(name))
            except Exception:  # noqa: BLE001 the others still count
                traceback.print_exc()
                failed.append(name)
    show(rows)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(
        json.dumps({"machine": platform.platform(), "figures": rows}, indent=2)
    )
    return 1 if failed or any(verdict(row) == "below" for row in rows) else 0


def figures_of(name: str) -> list[dict[str, object]]:
    """What one benchmark measured."""
    module = importlib.import_module(f"tests.bench.{name}")
    return [
        {"bench": name.removeprefix("bench_"), "name": figure, "value": value, "unit": unit}
        for figure, value, unit in module.measure()
    ]


def verdict(row: dict[str, object]) -> str:
    """How a figure stands to its floor: met, below, or nothing where there is none."""
    floor = FLOORS.get(str(row["name"]))
    if floor is None:
        return ""
    value, (direction, bound) = float(str(row["value"])), floor
    return "met" if (value >= bound if direction == "min" else value <= bound) else "below"


def show(rows: list[dict[str, object]]) -> None:
    """The table, for people."""
    table = Table(title="K2, measured on this machine")
    for column in ("bench", "figure", "value", "unit", "floor", ""):
        table.add_column(column, justify="right" if column == "value" else "left")
    for row in rows:
        direction, bound = FLOORS.get(str(row["name"]), ("", 0.0))
        floor = f"{'≥' if direction == 'min' else '≤'} {bound:,.0f}" if direction else ""
        value = float(str(row["value"]))
        shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
        table.add_row(
            str(row["bench"]), str(row["name"]), shown, str(row["unit"]), floor, verdict(row)
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
