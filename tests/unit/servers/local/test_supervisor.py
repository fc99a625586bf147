"""The supervisor over tiny real processes: order, restarts, refusals, the end."""

import os
import signal
import sys

import psutil
import pytest

from k2 import limits
from k2.errors import Data, Internal, Overloaded, Reason, Unavailable
from servers.local.child_process import ChildCommand
from tests.support.eventually import eventually
from tests.unit.servers.local.children import (
    DIES_AFTER_A_SECOND,
    DIES_ONCE_SERVING,
    FAILS,
    IGNORES_SIGTERM,
    SERVES,
    FastClock,
    JumpingClock,
    Stack,
    part,
)

QUIET = "import time; time.sleep(600)"


def foundation(answers=lambda: True):
    return [
        part("broker", QUIET, answers=answers, drain=3),
        part("registry", QUIET, answers=lambda: True, drain=2),
    ]


def serving(stack):
    eventually(lambda: stack.record.state == "SERVING", 30)


def gone(pids):
    return [pid for pid in pids if psutil.pid_exists(pid)] == []


def test_all_parts_serve_and_stop_in_order(tmp_path):
    feed = part("feed", needs_tape=True, drain=0)
    with Stack(tmp_path, *foundation(), part("venue"), feed) as stack:
        serving(stack)
        eventually(lambda: stack.published()["state"] == "SERVING")
        published = stack.published()
        assert published["addresses"] == dict.fromkeys(
            ("broker", "registry", "venue", "feed"), "here"
        )
        shown = {one["name"]: one for one in published["processes"]}
        assert list(shown) == ["broker", "registry", "venue", "feed"]
        assert all(one["state"] == "SERVING" and one["pid"] for one in shown.values())
        assert shown["feed"]["addresses"] == {"feed": "here", "grpc": "127.0.0.1:1"}
        pids = [one["pid"] for one in shown.values()]
    assert stack.error is None
    assert gone(pids)
    assert stack.published()["state"] == "STOPPED"
    assert {one["state"] for one in stack.published()["processes"]} == {"STOPPED"}
    order = [event["event"] for event in stack.events()]
    assert order[-3:] == ["ready", "step", "stopped"]
    names = [event["name"] for event in stack.events("serving")]
    assert names.index("feed") > max(names.index("broker"), names.index("registry"))
    assert stack.events("ready")[0]["broker"] == "here"
    assert stack.events("ready")[0]["venue"] == "synthetic"
    assert stack.deployed == 1


def test_the_stack_goes_on_without_a_part_that_is_not_essential(tmp_path):
    edge = part("edge", FAILS % ("PORT_IN_USE", "port 80 is in use"), essential=False)
    with Stack(tmp_path, part("feed"), edge) as stack:
        serving(stack)
        assert stack.process("edge").state == "FAILED"
    assert stack.error is None
    assert stack.published()["state"] == "STOPPED"
    (failing,) = stack.events("failing")
    assert failing["name"] == "edge"
    assert "port 80 is in use" in failing["message"]


def test_parts_stop_one_after_the_other(tmp_path):
    program = SERVES + f"open({str(tmp_path / 'ends')!r}, 'a').write(sys.argv[1])\n"

    def named(name, drain):
        command = ChildCommand((sys.executable, "-c", program, name))
        return part(name, prepare=lambda: command, drain=drain)

    with Stack(tmp_path, named("c", 2), named("a", 0), named("b", 1)) as stack:
        serving(stack)
    assert (tmp_path / "ends").read_text() == "abc"


def test_a_signal_that_is_answered_slowly_is_answered(tmp_path):
    stack = Stack(tmp_path, part("feed"))

    def ask(*_):
        if stack.runtime.stopping.is_set():
            raise TimeoutError("it was asked to stop, and waits for ever")
        stack.runtime.clock.sleep(0.2)  # longer than a turn: a busy machine does that
        stack.runtime.stopping.set()

    before = signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 10)
    try:
        stack.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stack.error is None
    assert stack.published()["state"] == "STOPPED"


def test_what_needs_the_tape_waits_for_it(tmp_path):
    answers = [False]
    parts = [*foundation(lambda: answers[0]), part("feed", needs_tape=True)]
    with Stack(tmp_path, *parts) as stack:
        eventually(lambda: stack.process("registry").state == "SERVING")
        assert stack.process("broker").state == "STARTING"
        assert stack.process("feed").state == "WAITING"
        assert stack.deployed == 0
        answers[0] = True
        serving(stack)


def test_a_part_that_dies_is_started_again_and_counted(tmp_path):
    with Stack(tmp_path, part("feed")) as stack:
        serving(stack)
        for restarts in (1, 2):
            pid = stack.process("feed").pid
            os.kill(pid, signal.SIGKILL)
            eventually(lambda n=restarts: stack.process("feed").restarts == n)
            eventually(lambda: stack.process("feed").state == "SERVING")
            assert stack.process("feed").pid != pid
        assert stack.published()["state"] == "SERVING"
        assert stack.process("feed").exit_code == -9
    assert [event["restarts"] for event in stack.events("restarting")] == [1, 2]
    assert len(stack.events("ready")) == 1
    assert stack.error is None


def test_after_a_death_of_the_broker_others_wait_for_it(tmp_path):
    answers = [True]
    parts = [*foundation(lambda: answers[0]), part("lake", needs_tape=True)]
    with Stack(tmp_path, *parts) as stack:
        serving(stack)
        answers[0] = False
        os.kill(stack.process("broker").pid, signal.SIGKILL)
        eventually(lambda: stack.process("broker").restarts == 1)
        os.kill(stack.process("lake").pid, signal.SIGKILL)
        eventually(lambda: stack.process("broker").state == "STARTING")
        assert stack.process("lake").state == "RESTARTING"
        answers[0] = True
        eventually(lambda: stack.process("lake").state == "SERVING")
        assert stack.deployed == 1


def test_one_that_dies_again_and_again_ends_the_stack(tmp_path):
    with Stack(tmp_path, part("venue"), part("feed", DIES_ONCE_SERVING)) as stack:
        stack.join()
    assert stack.error.reason is Reason.PROCESS_DIED
    assert f"feed died {limits.RESTARTS_MAX} times" in stack.error.message
    assert stack.published()["state"] == "FAILED"
    assert stack.published()["failure"]["reason"] == "PROCESS_DIED"
    assert stack.process("venue").state == "STOPPED"
    assert stack.process("feed").state == "FAILED"


def dying(name, *events, **more):
    command = ChildCommand((sys.executable, "-u", "-c", DIES_AFTER_A_SECOND, *events))
    return part(name, prepare=lambda: command, **more)


def test_one_that_dies_each_25_s_and_gets_nothing_done_is_failing_and_ends_the_stack(tmp_path):
    parts = (part("venue"), dying("lake"))
    with Stack(tmp_path, *parts, clock=FastClock()) as stack:
        stack.join()
    assert stack.error.reason is Reason.PROCESS_DIED
    assert ("FAILING", {"venue": "SERVING", "lake": "FAILING"}) in stack.told
    assert stack.published()["failure"]["reason"] == "PROCESS_DIED"
    assert "lake died 5 times and got nothing done in between, exit code 9" in stack.error.message
    assert [event["name"] for event in stack.events("failing")] == ["lake"]
    assert stack.process("lake").restarts == limits.RESTARTS_MAX - 1
    assert (stack.process("lake").state, stack.process("venue").state) == ("FAILED", "STOPPED")


def test_one_that_gets_something_done_between_its_deaths_is_started_again(tmp_path):
    # What proves the broker's work too, is the broker's progress: it has no heartbeat itself.
    registry = part("registry", answers=lambda: True)
    broker = dying("broker", answers=lambda: True)
    lake = dying("lake", "progressed", needs_tape=True, proves=True)
    with Stack(tmp_path, registry, broker, lake, clock=FastClock()) as stack:
        for name in ("lake", "broker"):
            again = limits.RESTARTS_MAX + 1
            eventually(lambda n=name, a=again: stack.process(n).restarts >= a, 40)
        assert stack.published()["state"] == "SERVING"
    assert stack.error is None


def test_a_sleep_of_the_machine_is_no_time_in_which_to_start(tmp_path):
    clock, answers = JumpingClock(), [False]
    with Stack(tmp_path, *foundation(lambda: answers[0]), clock=clock) as stack:
        eventually(lambda: stack.process("registry").state == "SERVING")
        pid = stack.process("broker").pid
        clock.ahead_s = 10 * limits.CHILD_START_S
        os.kill(stack.process("registry").pid, signal.SIGKILL)
        eventually(lambda: stack.process("registry").restarts == 1)  # it went on meanwhile
        answers[0] = True
        serving(stack)
        assert stack.process("broker").pid == pid
    assert stack.error is None


def test_one_that_does_not_serve_in_time_ends_the_stack(tmp_path):
    slow = part("broker", QUIET, answers=lambda: False)
    with Stack(tmp_path, slow, clock=FastClock()) as stack:
        stack.join()
    assert "did not serve within 180 s" in stack.error.message


def test_one_that_dies_during_start_ends_the_stack(tmp_path):
    dying = part("lake", FAILS % ("LAKE_CORRUPT", "the lake contradicts itself"))
    with Stack(tmp_path, part("feed"), dying) as stack:
        stack.join()
    assert stack.error.reason is Reason.PROCESS_DIED
    assert "lake died while it started, exit code 4" in stack.error.message
    assert "the lake contradicts itself" in stack.error.message
    assert gone([one.pid for one in stack.record.processes if one.pid])


@pytest.mark.parametrize("reason", [Reason.PORT_IN_USE, Reason.DISK_FULL, Reason.NOT_WRITABLE])
def test_a_telling_reason_of_a_part_is_that_of_the_stack(tmp_path, reason):
    with Stack(tmp_path, part("query", FAILS % (str(reason), "because"))) as stack:
        stack.join()
    assert stack.error.reason is reason


def test_one_that_says_nothing_is_explained_by_its_log(tmp_path):
    with Stack(tmp_path, part("feed", "raise SystemExit('no such luck')")) as stack:
        stack.join()
    assert "no such luck" in stack.error.message
    assert "feed.log" in stack.error.message


REFUSALS = [
    Reason.CLUSTER_CHANGED,
    Reason.PARTITIONS_CHANGED,
    Reason.TOPIC_RECREATED,
    Reason.TAPE_TRUNCATED,
    Reason.RETENTION_OVERTOOK,
    Reason.RULES_CHANGED,
]
REFUSES = """
import json, sys, time
print(json.dumps({"event": "serving", "addresses": {}}), flush=True)
failed = {"event": "failed", "reason": "REASON", "message": "ends at 3"}
print(json.dumps(failed), flush=True)
sys.exit(6)
"""


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_part_that_refuses_the_tape_ends_the_stack_at_once_by_its_reason(tmp_path, reason):
    with Stack(tmp_path, part("lake", REFUSES.replace("REASON", reason))) as stack:
        stack.join()
    assert isinstance(stack.error, Data)
    assert stack.error.reason is reason
    assert stack.error.message == "lake refused the tape: ends at 3"
    assert stack.process("lake").restarts == 0
    assert stack.published()["failure"]["reason"] == reason


def test_what_cannot_be_prepared_ends_the_stack(tmp_path):
    def refuse():
        raise Data(Reason.CLUSTER_CHANGED, "another cluster")

    with Stack(tmp_path, part("venue"), part("broker", prepare=refuse)) as stack:
        stack.join()
    assert stack.error.reason is Reason.CLUSTER_CHANGED


def test_a_defect_on_a_thread_ends_the_stack(tmp_path):
    def defect():
        raise ZeroDivisionError

    with Stack(tmp_path, part("broker", prepare=defect)) as stack:
        stack.join()
    assert isinstance(stack.error, Internal)


def test_a_deployment_is_tried_again_while_the_tape_is_away(tmp_path):
    failures = [Unavailable(Reason.TAPE_UNAVAILABLE, "not yet")] * 2

    def deploy():
        if failures:
            raise failures.pop()

    with Stack(tmp_path, *foundation(), deploy=deploy) as stack:
        eventually(lambda: stack.deployed == 3)
    assert stack.error is None


def test_a_deployment_that_is_refused_ends_the_stack(tmp_path):
    def deploy():
        raise Data(Reason.PARTITIONS_CHANGED, "eight, not four")

    with Stack(tmp_path, *foundation(), part("feed", needs_tape=True), deploy=deploy) as stack:
        stack.join()
    assert stack.error.reason is Reason.PARTITIONS_CHANGED
    assert stack.process("feed").pid is None


def test_a_disk_that_fills_ends_the_stack_in_order(tmp_path):
    free = [2**40]
    with Stack(tmp_path, part("feed"), disk_free=lambda: free[0]) as stack:
        serving(stack)
        free[0] = limits.DISK_FREE_STOP - 1
        stack.join()
    assert isinstance(stack.error, Overloaded)
    assert stack.error.reason is Reason.DISK_FULL
    assert stack.process("feed").exit_code == 0


def test_being_asked_twice_ends_at_once_those_that_do_not_listen(tmp_path):
    with Stack(tmp_path, part("feed", IGNORES_SIGTERM)) as stack:
        serving(stack)
        stack.runtime.stopping.set()
        eventually(lambda: stack.process("feed").state == "STOPPING")
        stack.runtime.second_signal.set()
        stack.join()
    assert stack.process("feed").exit_code == -9
    assert stack.published()["state"] == "STOPPED"


def test_asked_to_stop_while_it_starts_it_leaves_nothing(tmp_path):
    with Stack(tmp_path, *foundation(lambda: False), part("feed", needs_tape=True)) as stack:
        eventually(lambda: stack.process("broker").pid)
        pid = stack.process("broker").pid
    assert stack.error is None
    assert gone([pid])
    assert stack.published()["state"] == "STOPPED"
