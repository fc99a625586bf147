"""Declares the processes and commands of `python -m servers`, one entry and one module each.

A module has `run(settings, runtime, argv)`, which returns the exit code. It is named as text, so
that it is imported only in its own process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from k2.settings import Settings


@dataclass(frozen=True)
class Port:
    """An address that a process listens on.

    Attributes:
        name: in `stack.json`.
        setting: the dotted name of the setting that holds the address, `host:port`.
        unset: the port in a stack of fixed ports where the setting has 0.
        gives_way: where something else listens, a free port is taken, unless fixed ones are asked
            for.
    """

    name: str
    setting: str
    unset: int = 0
    gives_way: bool = False

    @property
    def variable(self) -> str:
        """The environment variable of the setting."""
        return f"K2_{self.setting.upper().replace('.', '__')}"


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """How the supervisor treats a process.

    Attributes:
        needs_tape: it starts only while the broker and the registry serve.
        drain: processes are stopped by this number, the lowest first.
        proves: its progress shows that broker and registry work too.
        essential: the stack ends when it cannot be kept running.
    """

    needs_tape: bool = True
    drain: int = 1
    proves: bool = False
    essential: bool = True


@dataclass(frozen=True)
class ProcessSpec(Lifecycle):
    """A process of the stack.

    Attributes:
        module: what it runs.
        progress: the counter that grows with the work that is done.
        ports: where it listens.
        peers: other processes whose heartbeats it expects; without one, the platform is under
            pressure.
        copies: the names under which the settings want it to run, where it may run more than once;
            each copy is given its name as the setting `name` of the process's group.
        practice: it runs only in stacks that use the practice venue.
        tells_refusal: its last heartbeat says why it refused what is stored.
        check: a function of the settings that `k2 doctor` calls, as `module:name`; it returns what
            it found, or raises what is wrong.
    """

    module: str
    progress: str
    ports: tuple[Port, ...] = ()
    peers: tuple[str, ...] = ()
    copies: Callable[[Settings], tuple[str, ...]] | None = None
    practice: bool = False
    tells_refusal: bool = False
    check: str = ""


PROCESSES = {
    "venue": ProcessSpec(
        "servers.processes.venue",
        progress="sent",
        ports=(Port("venue", "venue.listen", unset=8090),),
        practice=True,
        needs_tape=False,
        check="servers.local.embedded_stack:check_venue",
    ),
    "feed": ProcessSpec(
        "servers.processes.feed",
        progress="trades_acknowledged",
        copies=lambda settings: settings.feed.names,
        drain=0,
        proves=True,
    ),
    "lake": ProcessSpec(
        "servers.processes.lake", progress="commits", proves=True, tells_refusal=True
    ),
    "query": ProcessSpec(
        "servers.processes.query",
        progress="queries_answered",
        ports=(
            Port("flight", "query.listen_flight"),
            Port("query", "query.listen_grpc", unset=50052),
        ),
        peers=("feed", "lake"),
    ),
    "control": ProcessSpec(
        "servers.processes.control",
        progress="answered",
        ports=(Port("control", "control.listen"),),
        peers=("feed", "lake", "query"),
    ),
    "edge": ProcessSpec(
        "servers.processes.edge",
        progress="answered",
        ports=(Port("edge", "edge.listen", gives_way=True),),
        drain=0,
        essential=False,
    ),
}
"""In the order in which a stack shows them."""

COMMANDS = {
    "up": "servers.commands.up",
    "doctor": "servers.commands.doctor",
    "deploy": "servers.commands.deploy",
    "join": "servers.commands.join",
    "record": "servers.commands.record",
    "verify": "servers.commands.verify",
    "backup": "servers.commands.backup",
    "restore": "servers.commands.restore",
    "backfill": "servers.commands.backfill",
    "maintain": "servers.processes.lake_maintenance",
    "new-epoch": "servers.commands.new_epoch",
}

MODULES = {name: spec.module for name, spec in PROCESSES.items()} | COMMANDS


def names_of(process: str, settings: Settings) -> tuple[str, ...]:
    """List the names of a process's copies in the stack of these settings, as in heartbeats."""
    copies = PROCESSES[process].copies
    return copies(settings) if copies else (process,)


def expected_by(process: str, settings: Settings) -> tuple[str, ...]:
    """List the names of a process and of its peers: those whose heartbeats it expects."""
    kinds = (process, *PROCESSES[process].peers)
    return tuple(name for kind in kinds for name in names_of(kind, settings))


def is_essential(name: str) -> bool:
    """Return whether a stack ends without the process of this name, as in heartbeats."""
    spec = PROCESSES.get(process_of(name))
    return spec is None or spec.essential


def process_of(name: str) -> str:
    """Find the process that a name in heartbeats belongs to; the name itself where it is none.

    The names of copies begin with their process's.
    """
    return next((process for process in PROCESSES if name.startswith(process)), name)
