"""Reaches the parts of a running stack: control plane, HTTP edge, metrics, practice venue."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import k2client
from k2cli import options
from k2cli.operate.fetching import NotServed, fetch
from k2client import records, stack
from k2client.errors import K2Error
from k2client.stack import Stack

EDGE_PUBLISHED = "127.0.0.1:8000"  # of containers
API_KEY = "k2-dev-api-key-2026"  # of development, public; taken where no key is needed


@dataclass(frozen=True)
class RunningStack:
    """A running stack, and connections to it.

    Attributes:
        described: what its supervisor wrote.
        k2: a connection to its control plane.
    """

    described: Stack
    k2: k2client.Client

    @classmethod
    @contextmanager
    def open(cls, data_dir: Path | None) -> Iterator[Self]:
        """Connect to the stack of a data directory while the block lasts.

        Where no directory is given and none runs in the default one, a stack of containers is
        looked for, at K2_ADDRESS or at the port of the control server.

        Raises:
            K2Error: STACK_NOT_RUNNING.
        """
        described = stack.read_stack(options.directory_of(data_dir))
        if described.running:
            with k2client.connect(data_dir=str(described.directory), deadline_s=30.0) as k2:
                yield cls(described, k2)
            return
        with k2client.connect(_published(described, data_dir), deadline_s=30.0) as k2:
            names = [symbol.symbol for feed in k2.feeds() for symbol in feed.symbols]
            yield cls(of_components(described.directory, k2.status(), names), k2)

    @property
    def directory(self) -> Path:
        """The data directory."""
        return self.described.directory

    @property
    def source(self) -> str:
        """What its trades are: live, recorded or simulated."""
        return str(self.described.content.get("source", "unknown"))

    @property
    def symbols(self) -> list[str]:
        """The symbols of its feed, the first one first."""
        return [str(symbol) for symbol in self.described.content.get("symbols") or ()]

    @property
    def edge(self) -> str | None:
        """The base URL of the HTTP edge; None when it is not part of this stack."""
        address = self.address("edge", "http")
        return based(address) if address else None

    def address(self, process: str, name: str) -> str | None:
        """Return an address of a process."""
        return address_of(self.described, process, name)

    def ask_edge(self, path: str, timeout_s: float = 10.0) -> Any:  # noqa: ANN401 JSON
        """Ask the edge and return its JSON.

        Raises:
            NotServed: there is no edge, or it refused.
        """
        if self.edge is None:
            raise NotServed("edge not part of this stack")
        return json.loads(fetch(self.edge + path, timeout_s, headers={"X-API-Key": API_KEY}))

    def metrics(self) -> dict[str, str]:
        """Read the metrics of every process, as text by its name; a silent one is left out."""
        found = {}
        for process in self.described.processes:
            address = (process.get("addresses") or {}).get("metrics")
            if address:
                try:
                    found[str(process.get("name"))] = fetch(f"http://{address}/metrics", 5.0)
                except NotServed:
                    continue
        return found

    def acknowledged(self) -> int:
        """Return how many trades the tape has acknowledged, over all feeds."""
        return sum(feed.trades_acknowledged for feed in self.k2.feeds())

    def trade_rate(self, over_s: float) -> float:
        """Measure the trades a second that reach the tape."""
        before, began = self.acknowledged(), time.monotonic()
        time.sleep(over_s)
        return (self.acknowledged() - before) / (time.monotonic() - began)


def described_at(data_dir: Path | None) -> Stack:
    """Describe the stack that `RunningStack.open` connects to; one that does not run if none."""
    try:
        with RunningStack.open(data_dir) as demo:
            return demo.described
    except K2Error:
        return stack.read_stack(options.directory_of(data_dir))


def of_components(directory: Path, status: records.Status, symbols: Sequence[str]) -> Stack:
    """Describe a stack by its control plane: its processes run elsewhere, as in containers.

    Of their addresses only the published one of the edge can be reached from here.
    """
    processes = [
        {
            "name": component.name,
            "state": component.state,
            "addresses": {"http": EDGE_PUBLISHED} if component.name == "edge" else {},
        }
        for component in status.components
    ]
    content = {
        "state": "SERVING",
        "source": status.source.lower(),
        "venue": "containers",
        "symbols": list(dict.fromkeys(symbols)),
        "processes": processes,
    }
    return Stack(directory, True, content)


def _published(described: Stack, data_dir: Path | None) -> str:
    """Return the address of a control server that no stack of this directory has."""
    if data_dir is not None:
        raise stack.not_running(described.directory)
    try:
        return stack.control_address()
    except K2Error:
        if not is_listening(stack.CONTROL_PORT):
            raise
        return f"127.0.0.1:{stack.CONTROL_PORT}"


def is_listening(port: int) -> bool:
    """Return whether a port of this machine takes connections."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=3.0):
            return True
    except OSError:
        return False


def address_of(described: Stack, process: str, name: str) -> str | None:
    """Return an address of a process, as the supervisor wrote it; None when it has none."""
    for record in described.processes:
        if record.get("name") == process:
            address = (record.get("addresses") or {}).get(name)
            return str(address) if address else None
    return None


def based(address: str) -> str:
    """Make a base URL of an address."""
    url = address if "://" in address else f"http://{address}"
    return url.rstrip("/")
