import datetime as dt
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from k2cli import console


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.12345, "0.123"),
        (123456.7, "123,457"),
        (dt.datetime(2026, 1, 31, 9, 30, tzinfo=dt.UTC), "2026-01-31 09:30:00.000Z"),
        ("SERVING", "SERVING"),
    ],
)
def test_values_as_people_read_them(value, shown):
    assert console.cell(value).plain == shown


def test_a_table_in_a_pipe_is_neither_folded_nor_cut(capfd):
    console.table(("name", "value"), [("x" * 300, 1), ("[red]y", 22)])
    lines = [line.rstrip() for line in capfd.readouterr().out.splitlines()]
    assert any("x" * 300 in line for line in lines)
    assert any(line.strip().startswith("[red]y") and line.endswith("22") for line in lines)


SNAPSHOT, LETTER = "9007199254740993123", "market.crypto.trades.binance/7@12345678901234567"
COLUMNS = ("snapshot", "letter", "rows", "committed", "state", "what is wrong")
ROW = (SNAPSHOT, LETTER, 1234567890123, "2026-01-31", "SERVING", "a message of many words" * 5)


def shown(width, encoding="utf-8", row=ROW):
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    console.table(COLUMNS, [row, row], "title", Console(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [10, 40, 80, 100, 130, 131, 132, 133, 134, 160, 300])
def test_no_number_and_no_name_is_cut_at_any_width(width):
    content = shown(width)
    for value in (SNAPSHOT, LETTER, "1,234,567,890,123", "2026-01-31", "SERVING", "title"):
        assert content.count(value) == (1 if value == "title" else 2)
    assert "…" not in content


def test_a_narrow_terminal_gets_a_line_a_value_and_a_wide_one_a_table():
    assert f"letter         {LETTER}\n" in shown(80)
    assert shown(300).count("snapshot") == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("width", [40, 300])
def test_a_character_that_the_encoding_lacks_is_escaped(encoding, width):
    row = ("币安人生USDT", "letter", 1, "now", "ok", "a · b")
    content = shown(width, encoding, row)
    assert content.count(r"\u5e01\u5b89\u4eba\u751fUSDT") == 2
    assert content.count("a - b" if encoding == "ascii" else "a · b") == 2


def test_a_command_speaks_in_ascii_where_nothing_else_is_to_be_had(tmp_path, monkeypatch):
    path = tmp_path / "币安"
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = subprocess.run(
        [sys.executable, "-m", "k2cli", "status", "--data-dir", path],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert rb"\u5e01\u5b89" in done.stderr
    assert done.stderr.startswith(b"k2: STACK_NOT_RUNNING: ")


def test_progress_without_a_terminal_is_a_line_a_change(capfd):
    with console.steps() as step:
        for done in range(3):
            step("artifacts", "kafka.jar", done, 3)
        step("broker", "SERVING", None, None)
    assert capfd.readouterr().err == "artifacts: kafka.jar\nbroker: SERVING\n"


def test_a_json_line_is_one_line_and_a_document_is_laid_out(capsys):
    assert "\n" not in console.json_line({"a": [1, 2], "b": "x\ny"})
    console.echo_json({"a": "é"})
    assert json.loads(capsys.readouterr().out) == {"a": "é"}
