"""A whole K2 on this machine for a test: `k2 up` on free ports in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from k2 import settings
from k2.clock import SystemClock

T = TypeVar("T")

K2 = Path(sys.executable).with_name("k2")
START_S = 300
STOP_S = 60
SETTLE_S = 120

CLOCK = SystemClock()
# Commits every 2 s and a short tail, so that answers have rows of both sides.
ENVIRONMENT = {
    "K2_LAKE__COMMIT_INTERVAL_S": "2",
    "K2_QUERY__TAIL_RECENT_S": "3",
    "K2_FEED__SYMBOLS": "BTCUSDT,ETHUSDT,BNBUSDT",
}
BRISK = ENVIRONMENT | {"K2_LAKE__COMMIT_INTERVAL_S": "1"}  # where what is waited for is commits


class Stack:
    """A stack that runs while the `with` block does.

    Attributes:
        data_dir: its data directory.
        addresses: what `k2 up --json` printed: control, flight and the rest.
    """

    def __init__(self, data_dir: Path, *options: str, environment: dict[str, str] | None = None):
        self.data_dir = data_dir
        self.addresses: dict[str, Any] = {}
        self._command = [str(K2), "up", "--json", "--ports", "free", "--data-dir", str(data_dir)]
        self._command += options
        self._environment = settings.environment() | (environment or {})
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *options: str) -> None:
        """Start it, with these options besides its own in this life."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "up.log").open("a") as log:
            self._process = subprocess.Popen(
                [*self._command, *options],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.addresses = json.loads(self._read_document())

    def stop(self) -> None:
        """Stop it, if it runs, and wait for its end."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_S)
        if self._process.stdout:
            self._process.stdout.close()

    def _read_document(self) -> str:
        """The one JSON object of `k2 up --json`, however it is laid out."""
        assert self._process is not None
        assert self._process.stdout is not None
        text = ""
        for line in self._process.stdout:
            text += line
            try:
                json.loads(text)
            except ValueError:
                continue
            return text
        self._process.wait(STOP_S)
        raise AssertionError(f"k2 up failed: {text} {(self.data_dir / 'up.log').read_text()}")

    def k2(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `k2` command against this stack."""
        done = subprocess.run(
            [str(K2), *arguments, "--data-dir", str(self.data_dir)],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        if check:
            _assert_succeeded(done)
        return done

    def json(self, *arguments: str) -> Any:
        """The JSON document a command prints; waits for a server that is just being restarted."""

        def answer() -> subprocess.CompletedProcess[str] | None:
            done = self.k2(*arguments, "--json", check=False)
            away = any(reason in done.stderr for reason in ("PEER_UNAVAILABLE", "STARTING"))
            return None if done.returncode != 0 and away else done

        done = until(answer, f"k2 {' '.join(arguments)} answers")
        _assert_succeeded(done)
        return json.loads(done.stdout)

    def configured(self) -> settings.Settings:
        """What a command beside this stack is given."""
        tape = {
            "bootstrap": self.addresses["broker"],
            "registry_url": self.addresses["registry"],
        }
        return settings.load(data_dir=self.data_dir, tape=tape)

    def processes(self) -> dict[str, dict[str, Any]]:
        """What `k2 status` says of each process, by name."""
        return {process["name"]: process for process in self.json("status")["processes"]}

    def recorded(self) -> dict[str, dict[str, Any]]:
        """What the supervisor wrote down of each process, by name; costs no process."""
        record = json.loads((self.data_dir / "run" / "stack.json").read_text())
        return {process["name"]: process for process in record["processes"]}

    def pid(self, name: str) -> int:
        """The id of a process of this stack; waits for one that is just being restarted."""
        until(lambda: self.recorded()[name]["pid"] is not None, f"{name} runs")
        return int(self.recorded()[name]["pid"])

    def environment_of(self, name: str) -> dict[str, str]:
        """The environment of a process of this stack, to start another like it."""
        return psutil.Process(self.pid(name)).environ()

    def kill(self, name: str) -> int:
        """`kill -9` one process of this stack; its pid."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid


def _assert_succeeded(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(done.args)}: {done.returncode} {done.stderr}")


def until(condition: Callable[[], T | None], what: str, timeout_s: float = SETTLE_S) -> T:
    """Wait for a condition, bounded; what it returned then."""
    deadline = CLOCK.monotonic_s() + timeout_s
    while not (found := condition()):
        if CLOCK.monotonic_s() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        CLOCK.sleep(0.2)
    return found
