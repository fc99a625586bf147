"""Starts the parts of a stack, restarts them, and stops them in the order that loses nothing.

One loop on the main thread decides everything; other threads only post what they saw. Broker and
registry start together; when both serve, topics and schema are deployed; then the rest starts
together. A part that dies before it ever served ends the stack. One that dies later is started
again after a pause, on the same ports, unless it refused a tape that does not fit the lake, or died
too often: of late, or without progress in between. The latter is FAILING for a moment, which
`k2 status` and health show, and then ends the stack. A part that is not essential is FAILED in all
these cases, and the stack goes on without it. Parts that need the tape wait for the broker and the
registry, so that one death does not count for many.
"""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from k2 import limits
from k2.errors import Internal, K2Error, Overloaded, Reason, Unavailable, error_of
from k2.tape.topics import INCOMPATIBLE_TAPE
from servers.local.managed_process import ManagedProcess, bound_log, last_lines
from servers.local.stack_config import FOUNDATION, StackPart
from servers.local.stack_file import Journal
from servers.runtime import Runtime

_TURN_S = 0.05
_DEPLOY_ATTEMPTS_MAX = 5
# Reasons of a part that explain the end of the stack better than that the part died.
_TELLING = frozenset({Reason.PORT_IN_USE, Reason.DISK_FULL, Reason.NOT_WRITABLE})


class Supervisor:
    """Runs the parts of one stack.

    Args:
        parts: what to run, in the order in which they are shown.
        deploy: makes the topics and registers the schema; repeatable.
        journal: where the state is published.
        runtime: clock, signals and stdout of this process.
        data_dir: of the stack; logs go to its folder `logs`.
        disk_free: bytes that are free where the data directory is; None asks the system.
    """

    def __init__(
        self,
        parts: Sequence[StackPart],
        deploy: Callable[[], None],
        journal: Journal,
        runtime: Runtime,
        data_dir: Path,
        disk_free: Callable[[], int] | None = None,
    ) -> None:
        # Not SimpleQueue: a signal handler that outlasts its timeout would block it without end.
        self._posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self._watches = {
            part.name: ManagedProcess(
                part, data_dir / "logs" / f"{part.name}.log", self._posted.put, runtime.clock
            )
            for part in parts
        }
        self._deploy = deploy
        self._journal = journal
        self._runtime = runtime
        self._disk_free = disk_free or (lambda: shutil.disk_usage(data_dir).free)
        self._deployed = self._deploying = False
        self._deploy_failures = 0
        self._error: K2Error | None = None
        self._failing: K2Error | None = None
        self._ends_s = 0.0
        self._started_s = self._checked_s = self._turned_s = runtime.clock.monotonic_s()
        self._threads: list[threading.Thread] = []
        journal.record.processes = [watch.record for watch in self._watches.values()]

    def run(self) -> None:
        """Run the stack until it is asked to stop, on the main thread; nothing is left behind.

        Raises:
            K2Error: the reason why the stack ended by itself.
        """
        record = self._journal.record
        try:
            for watch in self._watches.values():
                self._in_thread(partial(self._prepare, watch))
            while not self._runtime.stopping.is_set():
                self._turn()
        except K2Error as error:
            record.failure = {"reason": error.reason, "message": error.message}
            raise
        finally:
            record.state = "DRAINING"
            self._drain()
            asked = self._runtime.stopping.is_set() and record.failure is None
            record.state = "STOPPED" if asked else "FAILED"
            self._journal.write()
            self._runtime.emit("stopped")

    def _turn(self) -> None:
        """Once around: hear, look, act, publish."""
        self._hear()
        self._forgive_sleep()
        for watch in self._watches.values():
            self._look_after(watch)
        self._end_when_failing()
        self._deploy_when_possible()
        self._check_room()
        self._publish()

    def _hear(self) -> None:
        """Do what other threads posted, waiting a moment for the first of it."""
        try:
            self._posted.get(timeout=_TURN_S)()
            while True:
                self._posted.get_nowait()()
        except queue.Empty:
            pass
        if self._error:
            raise self._error

    def _forgive_sleep(self) -> None:
        """Give parts that start the time back in which the machine was suspended."""
        now_s = self._runtime.clock.monotonic_s()
        gap_s, self._turned_s = now_s - self._turned_s, now_s
        if gap_s > limits.SUPERVISOR_GAP_S:
            for watch in self._watches.values():
                watch.serve_by_s += gap_s

    # --- one part -------------------------------------------------------------------------------

    def _look_after(self, watch: ManagedProcess) -> None:
        code = watch.exit_code()
        if code is not None:
            self._died(watch, code)
        elif watch.record.state == "STARTING" and self._turned_s > watch.serve_by_s:
            watch.kill()
            watch.last_words = {"message": f"it did not serve within {limits.CHILD_START_S:.0f} s"}
            self._died(watch, watch.record.exit_code or 0)
        elif self._may_start(watch):
            watch.start()
        elif watch.has_begun_to_serve():
            self._serves(watch)

    def _may_start(self, watch: ManagedProcess) -> bool:
        now_s = self._runtime.clock.monotonic_s()
        due = watch.due_s is not None and watch.due_s <= now_s and not watch.runs
        return bool(due and watch.command and (self._tape_serves or not watch.part.needs_tape))

    @property
    def _tape_serves(self) -> bool:
        return self._deployed and self._foundation_serves

    @property
    def _foundation_serves(self) -> bool:
        return all(watch.serves for name, watch in self._watches.items() if name in FOUNDATION)

    def _serves(self, watch: ManagedProcess) -> None:
        self._journal.record.addresses.update(watch.part.addresses)
        self._runtime.emit(
            "serving",
            name=watch.part.name,
            pid=watch.record.pid,
            addresses=watch.record.addresses,
            took_s=round(watch.age_s, 2),
        )

    def _died(self, watch: ManagedProcess, code: int) -> None:
        now_s = self._runtime.clock.monotonic_s()
        watch.deaths = watch.deaths.add(now_s, progressed=self._has_progressed(watch))
        refused = watch.last_words.get("reason") in INCOMPATIBLE_TAPE
        at_once = refused or not watch.has_served
        if at_once or watch.deaths.too_many:
            self._give_up(watch, code, at_once=at_once)
            return
        watch.due_s = now_s + watch.deaths.pause_s
        watch.record.state = "RESTARTING"
        watch.record.restarts += 1
        self._runtime.emit(
            "restarting",
            name=watch.part.name,
            exit_code=code,
            restarts=watch.record.restarts,
            in_s=watch.deaths.pause_s,
        )

    def _give_up(self, watch: ManagedProcess, code: int, *, at_once: bool) -> None:
        """Start it no more: the stack ends at once or soon, unless it can do without it."""
        essential = watch.part.essential
        if at_once or not essential:
            watch.record.state = "FAILED"
        error = self._end_of(watch, code)
        if not essential:
            self._runtime.emit("failing", name=watch.part.name, message=error.message)
        elif at_once:
            raise error
        else:
            self._fails(watch, error)

    def _has_progressed(self, watch: ManagedProcess) -> bool:
        """Whether its last life got anything done, or was long enough to be a sound one."""
        if watch.age_s >= limits.LIFE_SOUND_S:
            return True
        foundation = watch.part.name in FOUNDATION
        provers = [other for other in self._watches.values() if foundation and other.part.proves]
        return any(other.progressed_s >= watch.started_s for other in (watch, *provers))

    def _fails(self, watch: ManagedProcess, error: K2Error) -> None:
        """Show that it is not started again; the stack ends soon."""
        record = self._journal.record
        watch.record.state = record.state = "FAILING"
        if self._failing is None:
            self._failing = error
            self._ends_s = self._runtime.clock.monotonic_s() + limits.FAILING_SHOWN_S
            record.failure = {"reason": error.reason, "message": error.message}
            self._runtime.emit("failing", name=watch.part.name, message=error.message)

    def _end_when_failing(self) -> None:
        if self._failing is None or self._runtime.clock.monotonic_s() < self._ends_s:
            return
        for watch in self._watches.values():
            if watch.record.state == "FAILING":
                watch.record.state = "FAILED"
        raise self._failing

    def _end_of(self, watch: ManagedProcess, code: int) -> K2Error:
        self._check_disk()
        name = watch.part.name
        reason = watch.last_words.get("reason", "")
        if reason in INCOMPATIBLE_TAPE:
            message = f"{name} refused the tape: {watch.last_words.get('message')}"
            return error_of(Reason(reason), message, metadata={"process": name})
        said = watch.last_words.get("message") or last_lines(Path(watch.record.log))
        when = watch.deaths.summary if watch.has_served else "while it started"
        return error_of(
            Reason(reason) if reason in _TELLING else Reason.PROCESS_DIED,
            f"{name} died {when}, exit code {code}: {said or 'it said nothing'} "
            f"(its log: {watch.record.log})",
            metadata={"process": name, "exit_code": str(code)},
        )

    # --- the whole ------------------------------------------------------------------------------

    def _prepare(self, watch: ManagedProcess) -> None:
        """On a thread: formatting a new broker's storage takes a second."""
        command = watch.part.prepare()
        self._posted.put(partial(setattr, watch, "command", command))

    def _deploy_when_possible(self) -> None:
        if self._foundation_serves and not (self._deployed or self._deploying):
            self._deploying = True
            self._runtime.emit("step", name="deploy", message="deploying topics and schema")
            self._in_thread(self._run_deploy)

    def _run_deploy(self) -> None:
        """On a thread: the broker may die in the middle of it, and be back soon."""
        try:
            self._deploy()
            done = True
        except Unavailable:
            self._deploy_failures += 1
            if self._deploy_failures == _DEPLOY_ATTEMPTS_MAX:
                raise
            done = False
        self._posted.put(partial(self._has_deployed, done))

    def _has_deployed(self, done: bool) -> None:
        self._deployed, self._deploying = done, False

    def _in_thread(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=partial(self._guard, work), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except K2Error as error:
            self._posted.put(partial(setattr, self, "_error", error))
        except Exception as error:  # noqa: BLE001 a thread's defect must end the stack, not hang it
            defect = Internal(Reason.INTERNAL, f"{type(error).__name__}: {error}")
            self._posted.put(partial(setattr, self, "_error", defect))

    def _check_room(self) -> None:
        """Bound the logs and watch the disk, every now and then."""
        now_s = self._runtime.clock.monotonic_s()
        if now_s - self._checked_s < limits.DISK_CHECK_S:
            return
        self._checked_s = now_s
        self._check_disk()
        for watch in self._watches.values():
            bound_log(Path(watch.record.log))

    def _check_disk(self) -> None:
        left = self._disk_free()
        if left < limits.DISK_FREE_STOP:
            raise Overloaded(
                Reason.DISK_FULL,
                f"only {left // limits.MIB} MiB are free on the disk of the data directory; make "
                "room and start again: nothing is lost",
            )

    def _publish(self) -> None:
        record = self._journal.record
        if record.state == "STARTING" and all(
            watch.serves or watch.given_up for watch in self._watches.values()
        ):
            record.state = "SERVING"
            self._journal.write()
            took_s = self._runtime.clock.monotonic_s() - self._started_s
            shown = {**record.addresses, **record.as_dict()}
            self._runtime.emit("ready", **shown, took_s=round(took_s, 2))
        self._journal.write()

    # --- the end --------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Stop all, those that write first, the broker last; each within a bounded time."""
        self._runtime.emit("step", name="drain", message="stopping: feed first, broker last")
        for turn in sorted({watch.part.drain for watch in self._watches.values()}):
            group = [watch for watch in self._watches.values() if watch.part.drain == turn]
            self._stop(group)
            self._journal.write()
        for thread in self._threads:
            thread.join(limits.CHILD_DRAIN_S)

    def _stop(self, group: list[ManagedProcess]) -> None:
        clock = self._runtime.clock
        end_s = clock.monotonic_s() + limits.CHILD_DRAIN_S
        for watch in group:
            watch.ask_to_stop()
        self._journal.write()
        while any(watch.runs for watch in group):
            for watch in group:
                watch.exit_code()
            if clock.monotonic_s() > end_s or self._runtime.second_signal.is_set():
                for watch in group:
                    watch.kill()
            self._runtime.second_signal.wait(_TURN_S)
        for watch in group:
            if watch.record.state != "FAILED":
                watch.record.state = "STOPPED"
