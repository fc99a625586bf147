"""`make bench`: runs every benchmark of this folder and prints one table beside the bounds.

Each `bench_*.py` has `measure() -> list[tuple[str, float, str]]`: name, value, unit. Speeds are
judged by their ratio to a bare client measured in the same run, so that the verdict does not depend
on the machine; memory has absolute limits. Every other figure is only shown.
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

# Name of a figure → its bound, in the same unit; "min" means at least.
BOUNDS: dict[str, tuple[str, float]] = {
    "worker ÷ bare consume": ("min", 0.5),
    "lake worker RSS": ("max", 1024),
    "feed ÷ bare socket": ("min", 0.02),
    "feed, RSS": ("max", 1024),
    "freshness p99 ÷ p99 of the bare loop": ("max", 8),
    "RSS of the whole stack": ("max", 2560),
    "bars of 1 min ÷ bare DuckDB": ("max", 1.5),
    "vwap ÷ bare DuckDB": ("max", 1.5),
    "asof ÷ bare DuckDB": ("max", 1.5),
    "HTTP: snapshots, p99": ("max", 500),
    "HTTP: newest trades, p99": ("max", 500),
    "HTTP: recent trades, p99": ("max", 500),
}


def main(only: list[str]) -> int:
    """Run the named benchmarks (all without names) and show what they measured; the exit code."""
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
    return 1 if failed or any(verdict(row) == "missed" for row in rows) else 0


def figures_of(name: str) -> list[dict[str, object]]:
    """What one benchmark measured."""
    module = importlib.import_module(f"tests.bench.{name}")
    return [
        {"bench": name.removeprefix("bench_"), "name": figure, "value": value, "unit": unit}
        for figure, value, unit in module.measure()
    ]


def verdict(row: dict[str, object]) -> str:
    """How a figure stands to its bound: met, missed, or nothing where there is none."""
    judged = BOUNDS.get(str(row["name"]))
    if judged is None:
        return ""
    value, (direction, bound) = float(str(row["value"])), judged
    return "met" if (value >= bound if direction == "min" else value <= bound) else "missed"


def show(rows: list[dict[str, object]]) -> None:
    """Print the table."""
    table = Table(title="K2, measured on this machine")
    for column in ("bench", "figure", "value", "unit", "bound", ""):
        table.add_column(column, justify="right" if column == "value" else "left")
    for row in rows:
        direction, bound = BOUNDS.get(str(row["name"]), ("", 0.0))
        judged = f"{'≥' if direction == 'min' else '≤'} {bound:,g}" if direction else ""
        value = float(str(row["value"]))
        shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
        table.add_row(
            str(row["bench"]), str(row["name"]), shown, str(row["unit"]), judged, verdict(row)
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
