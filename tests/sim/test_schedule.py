import pytest

from tests.sim.schedule import Killed, Scheduler


@pytest.fixture
def scheduler():
    made = Scheduler()
    yield made
    made.close()


def ticking(scheduler, said, name, every_s):
    def body():
        while True:
            said.append((round(scheduler.now_s, 3), name))
            scheduler.pause(every_s)

    return body


def test_tasks_take_turns_in_the_order_of_virtual_time(scheduler):
    said = []
    scheduler.spawn("slow", ticking(scheduler, said, "slow", 2.0))
    scheduler.spawn("fast", ticking(scheduler, said, "fast", 1.5), after_s=1.0)
    scheduler.run(4.0)
    assert said == [(0, "slow"), (1, "fast"), (2, "slow"), (2.5, "fast"), (4, "slow"), (4, "fast")]
    assert scheduler.now_s == 4.0


def test_a_killed_task_reaches_nobody_any_more(scheduler):
    said = []

    def body():
        try:
            scheduler.pause(1.0)
        finally:
            with pytest.raises(Killed):
                scheduler.pause(0.0)
            said.append("unwound")

    task = scheduler.spawn("task", body)
    never = scheduler.spawn("never", lambda: said.append("never"), after_s=9.0)
    scheduler.run(0.5)
    scheduler.kill(task)
    scheduler.kill(never)
    scheduler.run(0.5)
    assert said == ["unwound"]
    assert task.done
    assert never.done
    assert task.failure is None


def test_a_task_within_another_dies_with_it(scheduler):
    said = []
    task = scheduler.spawn("task", ticking(scheduler, [], "task", 1.0))
    scheduler.spawn("beside", ticking(scheduler, said, "beside", 1.0), within=task)
    scheduler.run(1.5)
    scheduler.kill(task)
    scheduler.run(5.0)
    assert said == [(0, "beside"), (1, "beside")]


def test_what_a_task_raises_ends_the_run(scheduler):
    def body():
        scheduler.pause(1.0)
        raise ValueError("broken")

    scheduler.spawn("task", body)
    with pytest.raises(ValueError, match="broken"):
        scheduler.run(2.0)


def test_a_run_ends_when_it_is_satisfied(scheduler):
    said = []
    scheduler.spawn("task", ticking(scheduler, said, "task", 1.0))
    assert scheduler.run(10.0, lambda: len(said) == 3)
    assert scheduler.now_s == 2.0
    assert not scheduler.run(3.5, lambda: False)
