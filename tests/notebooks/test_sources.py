"""Notebooks are built from their sources, hold no outputs, and stop by name where there is nothing.

`test_executed.py` runs them on a real stack.
"""

import json
import runpy

import pytest

from scripts import notebooks
from scripts.notebooks import EXECUTED, FOLDER, NAMES, SOURCES
from tests.arch.test_tidy import banned
from tests.fakes.k2_server import K2Server, trade_rows

EXPECTED = ("backtest", "executive_demo", "quickstart", "time_travel", "transaction_costs")
each = pytest.mark.parametrize("name", EXPECTED)


def read(path):
    return json.loads(path.read_text())


def code(document):
    return ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "code"]


def test_there_are_five():
    assert NAMES == EXPECTED
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(EXPECTED)
    assert sorted(path.stem for path in EXECUTED.glob("*.ipynb")) == sorted(EXPECTED)


@each
def test_a_notebook_is_built_from_its_source(name):
    assert (FOLDER / f"{name}.ipynb").read_text() == notebooks.build(name), (
        "python -m scripts.notebooks"
    )


@each
def test_a_notebook_is_written_in_plain_words(name):
    assert banned((SOURCES / f"{name}.py").read_text().replace("\n# ", " ")) == []


@each
def test_a_notebook_holds_no_outputs(name):
    document = read(FOLDER / f"{name}.ipynb")
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)
    assert {cell["execution_count"] for cell in cells} == {None}
    assert document["cells"][0]["source"][0].startswith("# ")
    ids = [cell["id"] for cell in document["cells"]]
    assert len(ids) == len(set(ids))


@each
def test_an_executed_copy_is_labelled_whole_and_small(name):
    document = read(EXECUTED / f"{name}.ipynb")
    label = "".join(document["cells"][0]["source"])
    assert f"**Executed copy** of `{name}.ipynb`, made on 20" in label
    assert "**simulated** trades" in label
    assert code(document) == code(read(FOLDER / f"{name}.ipynb")), (
        "it is of an earlier notebook: python -m scripts.notebooks --execute"
    )
    cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"stream", "execute_result", "display_data"}
    shown = list(notebooks.charts(document))
    assert shown
    assert max(map(len, shown)) <= notebooks.CHART_BYTES_MAX
    assert "/home/" not in json.dumps(document)
    assert "/tmp/" not in json.dumps(document)


@each
def test_on_an_empty_stack_a_notebook_stops_by_name(name, monkeypatch):
    with K2Server(trade_rows(0)) as server:
        monkeypatch.setenv("K2_ADDRESS", server.address)
        with pytest.raises(LookupError, match=f"^{name} needs .+: .+"):
            runpy.run_path(str(SOURCES / f"{name}.py"))


def test_cells_keep_their_text(tmp_path):
    text = "# %% [markdown]\n# # Title\n#\n# Words.\n\n# %%\nprint(1)\n\n\n# %%\nprint(2)\n"
    assert list(notebooks.split(text)) == [
        ("markdown", "# Title\n\nWords."),
        ("code", "print(1)"),
        ("code", "print(2)"),
    ]
    with pytest.raises(ValueError, match="starts with a cell"):
        list(notebooks.split("print(0)\n" + text))
