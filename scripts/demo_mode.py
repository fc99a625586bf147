"""Prepares a demonstration on the stack of a data directory.

    python scripts/demo_mode.py --reset       restarts a simulated stack empty, on the same ports
    python scripts/demo_mode.py --load        loads an hour of history of every symbol by backfill
    python scripts/demo_mode.py --validate    computes the checklist, one line a check

Several at once are done in this order. The exit code is 0 only when all was done and every check
passed.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from k2cli import console
from k2cli.demo.presenter import draw_checklist
from k2cli.demo.stage import fresh_start, history_load
from k2cli.demo.stage.readiness import checklist, state_of
from k2cli.operate.running_stack import RunningStack
from k2client import stack
from k2client.errors import K2Error

_LINE_S = 10.0  # between two lines of progress in a log


def main() -> int:
    """Do what was asked; 0 when all of it succeeded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reset", action="store_true", help="restart it empty, same ports")
    parser.add_argument("--load", action="store_true", help="an hour of history of every symbol")
    parser.add_argument("--validate", action="store_true", help="one line a check; exit 0 or 1")
    parser.add_argument("--data-dir", type=Path, help="of the stack; else K2_DATA_DIR, else ./.k2")
    asked = parser.parse_args()
    if not (asked.reset or asked.load or asked.validate):
        parser.error("say --reset, --load or --validate")
    directory = stack.data_dir(asked.data_dir)
    try:
        if asked.reset:
            _reset(directory)
        if asked.load:
            _load(asked.data_dir)
        return _validate(asked.data_dir) if asked.validate else 0
    except K2Error as error:
        print(f"demo_mode: {error.reason}: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _reset(directory: Path) -> None:
    took_s = fresh_start.reset(directory, console.say)
    kept = "kept" if took_s <= fresh_start.TARGET_S else "missed"
    print(f"reset in {took_s:.1f} s (at most {fresh_start.TARGET_S:.0f} s: {kept})", flush=True)


def _load(data_dir: Path | None) -> None:
    with RunningStack.open(data_dir) as demo, console.steps() as step:
        show = partial(step, "load")
        every_s = 0.0 if sys.stderr.isatty() else _LINE_S
        loaded, took_s = history_load.load(demo, history_load.seldom(show, every_s))
    kept = "kept" if took_s <= history_load.TARGET_S else "missed"
    print(
        f"loaded {loaded:,} trades in {took_s:.0f} s"
        f" (at most {history_load.TARGET_S:.0f} s: {kept})",
        flush=True,
    )


def _validate(data_dir: Path | None) -> int:
    return 0 if draw_checklist(checklist(state_of(data_dir))) == "GO" else 1


if __name__ == "__main__":
    sys.exit(main())
