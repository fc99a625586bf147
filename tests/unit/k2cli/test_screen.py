import datetime as dt

import pytest

from k2cli import screen


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
    assert screen.cell(value).plain == shown


def test_a_table_in_a_pipe_is_neither_folded_nor_cut(capfd):
    screen.table(("name", "value"), [("x" * 300, 1), ("[red]y", 22)])
    lines = [line.rstrip() for line in capfd.readouterr().out.splitlines()]
    assert any("x" * 300 in line for line in lines)
    assert any(line.strip().startswith("[red]y") and line.endswith("22") for line in lines)


def test_progress_without_a_terminal_is_a_line_a_change(capfd):
    with screen.steps() as steps:
        for done in range(3):
            steps.step("artifacts", "kafka.jar", done, 3)
        steps.step("broker", "SERVING", None, None)
    assert capfd.readouterr().err == "artifacts: kafka.jar\nbroker: SERVING\n"
    with screen.steps(quiet=True) as steps:
        steps.step("broker", "SERVING", None, None)
    assert capfd.readouterr().err == ""
