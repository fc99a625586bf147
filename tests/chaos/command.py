"""What the commands of this package share: options, a folder, a stack, a printed report."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.stack import ENVIRONMENT, Stack

Report = dict[str, Any]


def asked(document: str, **defaults: float | bool) -> argparse.Namespace:
    """The options of a command, each a number or a flag."""
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    for name, default in defaults.items():
        kind: Any = {"type": type(default), "default": default}
        parser.add_argument(
            f"--{name}", **({"action": "store_true"} if isinstance(default, bool) else kind)
        )
    return parser.parse_args()


def in_a_folder(run: Callable[[Path], Report]) -> int:
    """Run in a folder of its own and print the report; 1 when there are faults in it."""
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder))
    print(json.dumps(report, indent=2))
    return 1 if report.get("faults") else 0


def on_a_stack(
    run: Callable[[Stack], Report], rate: float, environment: dict[str, str] = ENVIRONMENT
) -> int:
    """The same on a stack over the synthetic market, at so many trades a second."""

    def with_stack(folder: Path) -> Report:
        options = ("--venue", "synthetic", "--rate", str(rate))
        with Stack(folder, *options, environment=environment) as stack:
            return run(stack)

    return in_a_folder(with_stack)
