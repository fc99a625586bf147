"""A lock for tests that wait until others wait."""

import threading


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
