"""Follows one part of a running stack: its process, its output, and its restarts."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from k2 import limits
from k2.clock import Clock
from servers.local.child_process import Child, ChildCommand
from servers.local.stack_config import StackPart
from servers.local.stack_file import ProcessRecord

_LOG_END_BYTES = 8 * limits.KIB

Post = Callable[[Callable[[], None]], None]
"""Has something done by the supervisor's loop, from another thread."""


@dataclass(frozen=True)
class RestartBudget:
    """The recent deaths of a process, which decide when it starts again.

    Attributes:
        at_s: monotonic seconds, oldest first; only those within `limits.RESTARTS_WINDOW_S`.
        fruitless: the last so many, however long ago, had no progress between them.
    """

    at_s: tuple[float, ...] = ()
    fruitless: int = 0

    def add(self, now_s: float, *, progressed: bool) -> RestartBudget:
        """One more, now, at the end of a life that made progress or not."""
        recent = [at for at in self.at_s if now_s - at < limits.RESTARTS_WINDOW_S]
        return RestartBudget((*recent, now_s), 1 if progressed else self.fruitless + 1)

    @property
    def too_many(self) -> bool:
        """Whether starting it again makes no sense any more."""
        return max(len(self.at_s), self.fruitless) >= limits.RESTARTS_MAX

    @property
    def summary(self) -> str:
        """The number of deaths, in words."""
        if len(self.at_s) >= limits.RESTARTS_MAX:
            return f"{len(self.at_s)} times in {limits.RESTARTS_WINDOW_S:.0f} s"
        return f"{self.fruitless} times and got nothing done in between"

    @property
    def pause_s(self) -> float:
        """The wait before the next start: longer each time it dies soon again."""
        pause = limits.RESTART_PAUSE_MIN_S * 2 ** max(0, len(self.at_s) - 1)
        return float(min(pause, limits.RESTART_PAUSE_MAX_S))


class ManagedProcess:
    """A part that the supervisor runs; used by its thread unless a method says otherwise.

    Attributes:
        part: what it is.
        record: how `stack.json` shows it.
        command: what to start; None until it is prepared.
        deaths: of late.
        due_s: when it may start again; None while it runs.
        started_s: when its process was started last, monotonic seconds.
        serve_by_s: when it must serve at the latest, monotonic seconds.
        has_served: whether it ever served, so that a death is not one of the first start.
        progressed_s: when it last said that it gets work done, monotonic seconds.
        last_words: the reason and message of a failure that it printed in its last life.
    """

    def __init__(self, part: StackPart, log: Path, post: Post, clock: Clock) -> None:
        self.part = part
        self.record = ProcessRecord(part.name, str(log))
        self.command: ChildCommand | None = None
        self.deaths = RestartBudget()
        self.due_s: float | None = 0.0
        self.has_served = False
        self.progressed_s = -math.inf
        self.last_words: dict[str, str] = {}
        self._child: Child | None = None
        self.started_s = self.serve_by_s = 0.0
        self._lives = self._heard = 0
        self._post = post
        self._clock = clock
        self._reader: threading.Thread | None = None

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._child is not None

    @property
    def serves(self) -> bool:
        """Whether it does its work."""
        return self.record.state == "SERVING"

    @property
    def given_up(self) -> bool:
        """Whether it is not started again, and the stack goes on without it."""
        return self.record.state == "FAILED" and not self.part.essential

    @property
    def age_s(self) -> float:
        """The time since its process was started."""
        return self._clock.monotonic_s() - self.started_s

    def start(self) -> None:
        """Start its process; the main thread only."""
        assert self.command is not None
        self.due_s = None
        self.last_words = {}
        self._lives += 1
        self.started_s = self._clock.monotonic_s()
        self.serve_by_s = self.started_s + limits.CHILD_START_S
        listens = self.part.answers is None
        self._child = Child(self.command, Path(self.record.log), piped=listens)
        self.record.pid, self.record.state = self._child.pid, "STARTING"
        work = self._listen if listens else self._ask
        self._reader = threading.Thread(target=work, args=(self._lives,), daemon=True)
        self._reader.start()

    def exit_code(self) -> int | None:
        """Return the exit code of a process that has ended, once; its last words are known then."""
        code = self._child.exit_code() if self._child else None
        if code is not None:
            self._forget(code)
        return code

    def has_begun_to_serve(self) -> bool:
        """Whether it serves since this was last asked; true once a life."""
        begun = self.serves and self._heard != self._lives
        if begun:
            self._heard, self.has_served = self._lives, True
        return begun

    def ask_to_stop(self) -> None:
        """Send SIGTERM, if it runs."""
        if self._child:
            self.record.state = "STOPPING"
            self._child.ask_to_stop()

    def kill(self) -> None:
        """End its process at once, if it runs."""
        if self._child:
            self._forget(self._child.kill())

    def _forget(self, code: int) -> None:
        child, self._child = self._child, None
        self.record.pid, self.record.exit_code = None, code
        self._lives += 1  # what the old life still posts is not heard any more
        if child and child.stdout and self._reader:
            self._reader.join(limits.CHILD_PROBE_S * 10)
            child.stdout.close()

    # --- on threads of their own ----------------------------------------------------------------

    def _ask(self, life: int) -> None:
        """Ask until it answers or its life is over."""
        assert self.part.answers is not None
        while life == self._lives:
            if self.part.answers():
                self._post(partial(self._serving, life, {}))
                return
            self._clock.sleep(limits.CHILD_PROBE_S)

    def _listen(self, life: int) -> None:
        """Hear what it prints until it ends."""
        child = self._child
        assert child is not None
        assert child.stdout is not None
        for event in _events(child.stdout):
            if event.get("event") == "serving":
                self._post(partial(self._serving, life, event.get("addresses") or {}))
            elif event.get("event") == "progressed":
                self.progressed_s = self._clock.monotonic_s()
            elif event.get("event") == "failed":
                self.last_words = {key: str(event.get(key)) for key in ("reason", "message")}

    def _serving(self, life: int, addresses: dict[str, str]) -> None:
        if life == self._lives and self.record.state == "STARTING":
            self.record.addresses = {**self.part.addresses, **addresses}
            self.record.state = "SERVING"


def _events(stdout: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Read the JSON objects that a process prints, one a line; other lines are skipped."""
    while line := stdout.readline(limits.CHILD_LINE_BYTES_MAX):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def bound_log(path: Path, bytes_max: int = limits.LOG_BYTES_MAX) -> None:
    """Keep a log within `bytes_max` and one older file of that size.

    Its writer appends to the open file, so the content is copied away and the file emptied; what is
    written in between is lost, and nothing else.
    """
    if path.exists() and path.stat().st_size > bytes_max:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        with path.open("r+b") as file:
            file.truncate(0)


def last_lines(path: Path, count: int = 5) -> str:
    """Read the end of a log, for a message about why a process died."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_END_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:])
