"""A lock for tests that wait until others wait, and calls that wait together."""

import threading

from tests.support.eventually import eventually


class Queue:
    """A lock that knows how many came to it."""

    def __init__(self):
        self.came = 0
        self._lock = threading.RLock()

    def __enter__(self):
        self.came += 1
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


def ask_together(shared, ask, release):
    """What four threads get of a `SharedAnswer`, in the order of their ends.

    The first is asking, and held until `release` is called; the others wait for it by then.
    """
    answers = []
    shared.asking = Queue()
    threads = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(4)]
    threads[0].start()
    eventually(lambda: shared._asked == 1)
    for thread in threads[1:]:
        thread.start()
    eventually(lambda: shared.asking.came == 4)
    release()
    for thread in threads:
        thread.join(10)
    return answers
