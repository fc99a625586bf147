"""One thing at a time, in an order that the seed decides: tasks, their virtual time, their deaths.

A task is a thread, because K2's loops are plain blocking code; but only the one that holds the
baton runs, and it hands it over nowhere but in `pause`. So a history depends on the seed alone,
and a race between two processes is an order of two pauses, found again whenever the seed is run.

A killed task runs no further: the pause it is in raises `Killed`, and so does every later one, so
that whatever a `finally` tries reaches nobody any more, as after `kill -9`.
"""

import heapq
import threading
from dataclasses import dataclass, field


class Killed(BaseException):
    """The process is dead."""


def shut():
    """A lock that is taken: whoever acquires it waits until somebody releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass
class Task:
    """A body that runs when its time has come; it dies with the one it is within, if any."""

    name: str
    body: object
    within: "Task | None" = None
    killed: bool = False
    done: bool = False
    failure: BaseException | None = None
    wakes: int = 0  # entries in the queue with another number are of the past
    go: threading.Lock = field(default_factory=shut)
    thread: threading.Thread | None = None

    @property
    def dead(self):
        within = self.within
        return self.killed or (within is not None and (within.killed or within.done))


class Scheduler:
    """Virtual time and the tasks in it."""

    def __init__(self):
        self.now_s = 0.0
        self.current = None
        self.switches = 0
        self._queue = []
        self._count = 0
        self._back = shut()
        self._tasks = []

    def spawn(self, name, body, after_s=0.0, within=None):
        """Start a task; it runs for the first time when the caller pauses."""
        task = Task(name, body, within)
        task.thread = threading.Thread(target=self._live, args=(task,), name=name, daemon=True)
        task.thread.start()
        self._tasks.append(task)
        self._wake(task, after_s)
        return task

    def pause(self, seconds):
        """Let others run; back after so long, or never."""
        task = self.current
        if task.dead:
            raise Killed
        self._wake(task, seconds)
        self._back.release()
        task.go.acquire()
        if task.dead:
            raise Killed

    def kill(self, task):
        """End a task where it stands; it unwinds before anything else happens to it."""
        if not task.done and not task.killed:
            task.killed = True
            self._wake(task, 0.0)

    def run(self, until_s, satisfied=None):
        """Run tasks until a time, or until `satisfied` after one of them paused.

        Raises:
            Whatever a task raised.
        """
        while self._queue and self._queue[0][0] <= until_s:
            at_s, _, task, wake = heapq.heappop(self._queue)
            if wake != task.wakes or task.done:
                continue
            self.now_s = max(self.now_s, at_s)
            self._switch(task)
            if task.failure is not None:
                raise task.failure
            if satisfied is not None and satisfied():
                return True
        self.now_s = max(self.now_s, until_s)
        return satisfied is None

    def close(self):
        """Kill whoever is left."""
        for task in self._tasks:
            if not task.done:
                task.killed = True
                self._switch(task)
                task.thread.join()

    def _wake(self, task, after_s):
        self._count += 1
        task.wakes = self._count
        heapq.heappush(self._queue, (self.now_s + after_s, self._count, task, self._count))

    def _switch(self, task):
        self.current = task
        self.switches += 1
        task.go.release()
        self._back.acquire()
        self.current = None

    def _live(self, task):
        task.go.acquire()
        try:
            if not task.dead:
                task.body()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 the scheduler raises it in its own thread
            task.failure = error
        finally:
            task.done = True
            self._back.release()
