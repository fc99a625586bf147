import json
import os

import pytest

from k2cli.operate.process_logs import LogFile, following, tailed

AT_S = 1_700_000_000.25


def line(number, process="feed", **more):
    said = {"at": AT_S + number, "level": "info", "process": process, "logger": "k2.x"}
    return json.dumps(said | {"message": f"m{number}"} | more)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / ".k2" / "logs"
    made.mkdir(parents=True)
    (made / "feed.log").write_text("".join(line(each) + "\n" for each in (1, 3, 5)))
    (made / "lake.log").write_text("".join(line(each, "lake") + "\n" for each in (2, 4)))
    (made / "broker.log").write_text("[2023] INFO of Kafka\n")
    return made


def test_the_last_lines_of_all_processes_in_the_order_of_time(k2, folder):
    shown = k2("logs", "--tail", "3").stdout.splitlines()
    assert [each.split()[-1] for each in shown] == ["m3", "m4", "m5"]
    assert shown[1] == "2023-11-14 22:13:24.250Z  info     lake      m4"
    assert k2("logs", "--tail", "0").stdout == ""


def test_one_process_alone(k2, folder):
    assert [each[-2:] for each in k2("logs", "feed").stdout.splitlines()] == ["m1", "m3", "m5"]
    assert k2("logs", "broker").stdout == "broker  [2023] INFO of Kafka\n"


def test_lines_as_they_were_written_for_programs(k2, folder):
    assert k2("logs", "lake", "--json").stdout == (folder / "lake.log").read_text()


def test_a_process_without_a_log_is_refused_with_the_choices(k2, folder):
    done = k2("logs", "fed")
    assert done.code == 2
    assert "'fed' has no log: choose one of broker, feed, lake" in done.stderr


def test_without_logs_it_says_how_they_come(k2, tmp_path):
    done = k2("logs")
    assert done.code == 1
    assert done.stderr.startswith("k2: STACK_NOT_RUNNING: there are no logs in ")


def test_what_else_a_line_holds_is_shown_behind_the_message(k2, folder):
    said = {"link": 7, "exception": "Traceback\nValueError: x"}
    (folder / "feed.log").write_text(line(1, message="two\nlines", **said) + "\n")
    assert k2("logs", "feed").stdout == (
        "2023-11-14 22:13:21.250Z  info     feed      two\n    lines  (link=7)\n"
        "    Traceback\n    ValueError: x\n"
    )


def test_a_line_without_a_time_stays_behind_the_one_before_it(folder):
    (folder / "feed.log").write_text(f"{line(1)}\nFatal Python error\n{line(9)}\n")
    lines = tailed([LogFile(folder / "feed.log"), LogFile(folder / "lake.log")], 9)
    assert [each.text[-4:-2] for each in lines] == ["m1", "rr", "m2", "m4", "m9"]


def test_a_long_log_is_read_from_its_end(folder):
    text = "".join(line(each, filler="x" * 900) + "\n" for each in range(300))
    (folder / "feed.log").write_text(text)
    lines = LogFile(folder / "feed.log").tail(150)
    assert [json.loads(each.text)["message"] for each in lines] == [
        f"m{each}" for each in range(150, 300)
    ]


def test_it_follows_what_is_written_is_emptied_and_comes(folder):
    path, other = folder / "feed.log", folder / "query.log"
    files = {path: LogFile(path)}
    assert len(files[path].tail(1)) == 1
    coming = following(files, lambda: [path, other])
    with path.open("a") as file:
        file.write(line(7) + "\n" + line(8)[:10])
    assert next(coming).text == line(7)
    with path.open("a") as file:
        file.write(line(8)[10:] + "\n")
    assert next(coming).text == line(8)
    path.write_text(line(9) + "\n")
    assert next(coming).text == line(9)
    other.write_text(line(10, "query") + "\n")
    assert next(coming).process == "query"
    os.remove(path)
    assert files[path].fresh() == []
    assert LogFile(path).tail(3) == []
