"""What the panels of a board show of a stack, as text.

    python -m tests.observe.panels --data-dir DIR --board k2-system-health --minutes 10

asks the Prometheus of `k2 up --observe` for each query of the board, as Grafana does, and prints
the least, the mean, the highest and the last value of each series. `--prometheus URL` asks another
one.
"""

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

from k2.clock import SystemClock
from scripts import boards

POINTS = 600  # at most, of a series


class Shown(NamedTuple):
    """What a panel shows of one series; no values where its query returns none."""

    panel: str
    series: str
    values: tuple[float, ...]

    def line(self):
        """One line of text."""
        if not self.values:
            return f"{self.panel:<38} {self.series:<44} no data"
        mean = sum(self.values) / len(self.values)
        figures = (min(self.values), mean, max(self.values), self.values[-1])
        numbers = " ".join(f"{figure:>11.4g}" for figure in figures)
        return f"{self.panel:<38} {self.series:<44} {numbers}"


def ask(url, path, **parameters):
    """The data of an answer of the HTTP API of a Prometheus."""
    asked = f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters}: {error.read().decode()}") from error


def shown(url, board, window, rate="10s"):
    """What a board shows.

    Args:
        url: of a Prometheus.
        board: its JSON.
        window: begin and end, Unix seconds.
        rate: what takes the place of `$__rate_interval`.
    """
    begin, end = window
    step = max(1, int((end - begin) / POINTS))
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace(boards.RATE, rate)
            asked = {"query": query, "start": begin, "end": end, "step": step}
            result = ask(url, "query_range", **asked)["result"]
            numbers = [
                Shown(panel["title"], named(target["legendFormat"], one["metric"]), values)
                for one in result
                if (values := tuple(float(value) for _, value in one["values"] if value != "NaN"))
            ]
            yield from numbers or [Shown(panel["title"], target["legendFormat"], ())]


def named(legend, labels):
    """The name of a series, as Grafana makes it of a legend."""
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return legend


def main():
    """Print a board."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path(".k2"))
    parser.add_argument("--prometheus")
    parser.add_argument("--board", default=boards.SYSTEM_HEALTH.uid)
    parser.add_argument("--minutes", type=float, default=10)
    asked = parser.parse_args()
    stack = asked.data_dir / "run" / "stack.json"
    url = asked.prometheus or json.loads(stack.read_text())["addresses"]["prometheus"]
    board = json.loads((boards.FOLDER / f"{asked.board}.json").read_text())
    end = SystemClock().now_us() / 1e6
    sys.stdout.write(f"{'panel':<38} {'series':<44} " + " ".join(
        f"{title:>11}" for title in ("least", "mean", "highest", "last")) + "\n")  # fmt: skip
    for one in shown(url, board, (end - asked.minutes * 60, end), rate="20s"):
        sys.stdout.write(one.line() + "\n")


if __name__ == "__main__":
    main()
