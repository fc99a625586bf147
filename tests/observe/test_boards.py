"""The boards are those that the code builds, and ask for metrics that are declared."""

import json

import pytest

from k2.metrics import Declaration
from scripts import boards
from tests.observe import promql
from tests.observe.test_alerts import ALERTS

BUILT = {path.stem: json.loads(path.read_text()) for path in boards.FOLDER.glob("*.json")}


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries():
    """Every query of a board or an alert, with its legend and its place."""
    for board in BUILT.values():
        for panel in panels(board):
            for target in panel["targets"]:
                place = f"{board['title']}: {panel['title']}: {target['refId']}"
                yield pytest.param(target["expr"], target["legendFormat"], id=place)
    for name, rule in ALERTS.items():
        yield pytest.param(rule["expr"], "", id=name)


def test_the_boards_are_those_that_the_code_builds():
    built = {f"{board.uid}.json": boards.build(board) for board in boards.BOARDS}
    assert {path.name: path.read_text() for path in boards.FOLDER.iterdir()} == built, "make boards"


@pytest.mark.parametrize(("expr", "legend"), list(queries()))
def test_a_query_asks_for_metrics_and_labels_that_are_declared(expr, legend):
    assert promql.faults(expr, legend) == []


@pytest.mark.parametrize("board", list(BUILT.values()), ids=BUILT)
def test_a_board_is_one_that_grafana_lays_out(board):
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places), "panels lie over each other"
    assert all(x < 24 for x, _ in places)
    for panel in panels(board):
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "k2-prometheus"


def test_a_query_of_what_is_not_declared_is_found():
    rows, seconds = "k2_some_rows", "k2_some_seconds"
    known = {
        rows: Declaration(rows, "gauge", "For this test.", ("tier",)),
        seconds: Declaration(seconds, "histogram", "For this test."),
    }

    def faults(expr, legend=""):
        return promql.faults(expr, legend, known)

    assert faults(f"sum by (tier) ({rows})", "{{tier}}") == []
    assert faults(f"sum by (symbol) ({rows})") == [f"{rows} has no label symbol"]
    assert faults(f'{rows}{{side="lake"}}') == [f"{rows} has no label side"]
    assert faults(rows, "{{symbol}}") == [f"{rows} has no label symbol"]
    assert faults("rate(k2_nothing_total[1m])") == ["no metric k2_nothing_total"]
    assert faults(f"histogram_quantile(0.5, sum by (le) (rate({seconds}_bucket[1m])))") == []
    assert faults(seconds) == [f"{seconds} is a histogram"]
