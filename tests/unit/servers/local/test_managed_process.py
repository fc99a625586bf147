"""One part between its lives."""

import queue
import sys

from k2 import limits
from k2.clock import SystemClock
from servers.local.child_process import ChildCommand
from servers.local.managed_process import ManagedProcess, RestartBudget, bound_log, last_lines
from tests.support.eventually import eventually
from tests.unit.servers.local.children import FAILS, SERVES, part


def watch(tmp_path, program=SERVES, **changes):
    posted = queue.SimpleQueue()
    made = ManagedProcess(
        part("feed", program, **changes), tmp_path / "feed.log", posted.put, SystemClock()
    )
    made.command = ChildCommand((sys.executable, "-u", "-c", program))
    return made, posted


def test_it_serves_when_it_says_so_once_a_life(tmp_path):
    made, posted = watch(tmp_path)
    for _ in range(2):
        made.start()
        assert made.record.state == "STARTING"
        assert not made.has_begun_to_serve()
        posted.get(timeout=20)()
        assert made.serves
        assert made.has_begun_to_serve()
        assert not made.has_begun_to_serve()
        made.kill()
        assert not made.runs
    assert made.record.pid is None


def test_what_an_earlier_life_said_is_not_heard(tmp_path):
    made, posted = watch(tmp_path)
    made.start()
    late = posted.get(timeout=20)
    made.kill()
    made.start()
    late()
    assert made.record.state == "STARTING"
    made.kill()


def test_its_last_words_are_known_when_it_has_ended(tmp_path):
    made, _ = watch(tmp_path, FAILS % ("DISK_FULL", "no room"))
    made.start()
    assert eventually(made.exit_code) == 4
    assert made.last_words == {"reason": "DISK_FULL", "message": "no room"}
    assert made.exit_code() is None
    assert "cannot go on" in (tmp_path / "feed.log").read_text()


def test_one_that_is_asked_serves_when_it_answers(tmp_path):
    answers = [False]
    made, posted = watch(tmp_path, "import time; time.sleep(600)", answers=lambda: answers[0])
    made.start()
    assert posted.empty()
    answers[0] = True
    posted.get(timeout=20)()
    assert made.serves
    made.kill()


def test_being_asked_to_stop_shows(tmp_path):
    made, posted = watch(tmp_path)
    made.ask_to_stop()
    assert made.record.state == "WAITING"
    made.start()
    posted.get(timeout=20)()
    made.ask_to_stop()
    assert made.record.state == "STOPPING"
    eventually(lambda: made.exit_code() is not None)
    assert made.record.exit_code == 0


def test_a_log_within_its_bound_is_left_alone(tmp_path):
    path = tmp_path / "feed.log"
    bound_log(path, 10)
    path.write_bytes(b"x" * 10)
    bound_log(path, 10)
    assert [each.name for each in tmp_path.iterdir()] == ["feed.log"]


def test_a_log_that_grew_is_kept_once_and_its_writer_goes_on(tmp_path):
    path = tmp_path / "feed.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"x" * 11)
        bound_log(path, 10)
        writer.write(b"new")
    assert path.read_bytes() == b"new"
    assert (tmp_path / "feed.log.1").read_bytes() == b"x" * 11


def test_the_last_lines_of_a_log(tmp_path):
    path = tmp_path / "feed.log"
    assert last_lines(path) == ""
    path.write_text("".join(f"line {number}\n\n" for number in range(5000)))
    assert last_lines(path, 2) == "line 4998\nline 4999"


def test_five_deaths_within_the_window_are_too_many():
    deaths = RestartBudget()
    for at_s in (0.0, 10.0, 20.0, 30.0):
        deaths = deaths.add(at_s, progressed=True)
        assert not deaths.too_many
    deaths = deaths.add(59.9, progressed=True)
    assert deaths.too_many
    assert deaths.summary == "5 times in 60 s"


def test_deaths_outside_the_window_are_forgotten():
    deaths = RestartBudget()
    for number in range(20):
        at_s = number * limits.RESTARTS_WINDOW_S / (limits.RESTARTS_MAX - 1)
        deaths = deaths.add(at_s, progressed=True)
        assert not deaths.too_many


def test_five_deaths_without_progress_in_between_are_too_many_however_far_apart():
    deaths = RestartBudget()
    for number in range(limits.RESTARTS_MAX - 1):
        deaths = deaths.add(number * 1000.0, progressed=False)
        assert not deaths.too_many
    deaths = deaths.add(1e6, progressed=True)  # it got something done: counted from here
    for number in range(1, limits.RESTARTS_MAX):
        assert not deaths.too_many
        deaths = deaths.add(1e6 + number * 25.0, progressed=False)
    assert deaths.too_many
    assert deaths.summary == "5 times and got nothing done in between"


def test_pauses_grow_up_to_a_bound():
    deaths, pauses = RestartBudget(), []
    for _ in range(12):
        deaths = deaths.add(0.0, progressed=True)
        pauses.append(deaths.pause_s)
    assert pauses[0] == limits.RESTART_PAUSE_MIN_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == limits.RESTART_PAUSE_MAX_S
