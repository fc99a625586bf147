"""Makes the backup materials of a demonstration from a real run, labelled with its date."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from k2.shipped_files import shipped_file
from k2cli.demo import demo_card, screenshots
from k2cli.demo.agenda import slots
from k2cli.demo.presenter import Performance, Presenter, draw_checklist, summary
from k2cli.demo.stage.readiness import MATERIALS, checklist, read_state
from k2cli.operate.fetching import NotServed
from k2cli.operate.running_stack import RunningStack
from k2client.errors import K2Error
from k2client.json_form import json_value

_WIDTH = 118
_SHIPPED = shipped_file("clients/notebooks")
NOTEBOOKS = (_SHIPPED / "executed", _SHIPPED)


def export(
    demo: RunningStack, made_at: str, say: Callable[[str], None]
) -> tuple[Path, Performance]:
    """Perform once without waiting and keep everything; returns the folder and the run.

    Args:
        demo: the stack.
        made_at: the date and time that label the materials, ISO 8601.
        say: takes a line for each part.
    """
    folder = demo.directory.joinpath(*MATERIALS, made_at.replace(":", ""))
    folder.mkdir(parents=True, exist_ok=True)
    label = f"made on {made_at} from {demo.source} trades of {demo.directory.name}\n"
    lines: list[str] = []
    draw_checklist(checklist(read_state(demo)), lines.append)
    (folder / "checklist.txt").write_text(label + "\n".join(lines) + "\n")
    with (folder / "run.txt").open("w") as file:
        file.write(label)
        screen = Console(file=file, width=_WIDTH)
        done = Presenter(demo, quick=True, wait=False, screen=screen).perform(slots(quick=True))
        file.write("\n".join(summary(done, waited=False, whole=True)) + "\n")
    say(f"run.txt: {len(done.evidence)} parts in {done.took_s:.0f} s")
    run = done.document_at(made_at, demo.source)
    (folder / "results.json").write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    demo_card.write(run, folder / "card")
    answers = folder / "answers"
    answers.mkdir(exist_ok=True)
    for name, answer in cached_answers(demo).items():
        (answers / f"{name}.json").write_text(json.dumps(answer, indent=1) + "\n")
        say(f"answers/{name}.json")
    _execute_notebooks(demo, folder / "notebooks", say)
    _take_screenshots(demo, folder / "screenshots", say)
    return folder, done


def cached_answers(demo: RunningStack) -> dict[str, Any]:
    """Ask the questions of the demonstration: of the edge, else of the client."""
    symbol = demo.symbols[0]
    paths = {
        "health": "/health",
        "trades": f"/v1/trades?symbol={symbol}&limit=5",
        "trades-recent": f"/v1/trades/recent?symbol={symbol}&limit=10",
        "snapshots": "/v1/snapshots",
        "degradation": "/v1/degradation",
    }
    found: dict[str, Any] = {}
    for name, path in paths.items():
        try:
            found[name] = demo.ask_edge(path)
        except (NotServed, ValueError) as error:
            found[name] = _of_client(demo, name, symbol) or {"not answered": str(error)}
    return found


def _of_client(demo: RunningStack, name: str, symbol: str) -> Any:  # noqa: ANN401 JSON
    try:
        if name.startswith("trades"):
            answer = demo.k2.trades(symbol, limit=10, order="desc")
            rows = answer.to_arrow().to_pylist()
            shown = [{key: str(value) for key, value in row.items()} for row in rows]
            return {"data": shown, "provenance": json_value(answer.provenance)}
        if name == "snapshots":
            return {"data": json_value(demo.k2.snapshots(20))}
        if name == "degradation":
            return json_value(demo.k2.degradation())
        return json_value(demo.k2.health())
    except K2Error as error:
        return {"not answered": f"{error.reason}: {error.message}"}


def _execute_notebooks(demo: RunningStack, folder: Path, say: Callable[[str], None]) -> None:
    """Execute the notebooks on the stack; take the shipped copy of one that cannot be."""
    folder.mkdir(exist_ok=True)
    able = importlib.util.find_spec("nbclient") is not None
    for path in sorted(_SHIPPED.glob("*.ipynb")):
        if able and _executed(demo.directory, path, folder):
            say(f"notebooks/{path.name}: executed")
        elif (shipped := _SHIPPED / "executed" / path.name).exists():
            shutil.copy(shipped, folder / path.name)
            why = "it failed here" if able else "the extra `notebook` is not installed"
            say(f"notebooks/{path.name}: the copy that K2 ships, with its date: {why}")


def _executed(directory: Path, path: Path, folder: Path) -> bool:
    command = (sys.executable, "-m", "k2cli.demo.notebook_run", str(path), "--to", str(folder))
    data_dir = str(directory.resolve())
    done = subprocess.run([*command, "--data-dir", data_dir], capture_output=True, check=False)
    return done.returncode == 0


def has_outputs(path: Path) -> bool:
    """Return whether a notebook holds what its cells printed."""
    try:
        cells = json.loads(path.read_text())["cells"]
        return any(cell.get("outputs") for cell in cells)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _take_screenshots(demo: RunningStack, folder: Path, say: Callable[[str], None]) -> None:
    if demo.edge is None:
        say("screenshots: edge not part of this stack")
        return
    try:
        shots = (*screenshots.SHOTS, screenshots.API_DOCS)
        say(f"screenshots: {len(list(screenshots.take(demo.edge, folder, shots)))}")
    except K2Error as error:
        say(f"screenshots: {error.message}")
