"""One part between its lives."""

import queue
import sys

from k2.clock import SystemClock
from servers.local.child_process import Command
from servers.local.managed_process import ManagedProcess
from tests.support.eventually import eventually
from tests.unit.servers.local.children import FAILS, SERVES, part


def watch(tmp_path, program=SERVES, **changes):
    posted = queue.SimpleQueue()
    made = ManagedProcess(
        part("feed", program, **changes), tmp_path / "feed.log", posted.put, SystemClock()
    )
    made.command = Command((sys.executable, "-u", "-c", program))
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
