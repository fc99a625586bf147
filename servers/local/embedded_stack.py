"""Checks everything that the embedded stack needs, then runs it.

Nothing is started and nothing is decided for good before the data directory is held, has room, may
be written to, fits what was asked, and every port is free; so a refusal leaves no trace.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from k2 import limits, settings
from k2.errors import Invalid, K2Error, Overloaded, Reason, Unavailable
from k2.feed import recording
from k2.feed.connection.socket import NO_SOCKS, is_loopback
from k2.settings import Settings
from k2.tape import topics
from k2.tape.compacted_topic import CompactedTopic
from k2.tape.schema_registry import SchemaStore
from servers.local import jupyter, layout, stack_ports, stamp
from servers.local.artifacts import Artifacts, Progress
from servers.local.observe import prometheus
from servers.local.stack_config import StackConfig
from servers.local.stack_file import Journal, StackRecord, end_leftovers, holding
from servers.local.stack_options import Options
from servers.local.stamp import Stamp
from servers.local.supervisor import Supervisor
from servers.runtime import Runtime

_PROGRESS_S = 0.2
_TOKEN_BYTES = 24  # of Jupyter's token
_log = logging.getLogger(__name__)


def run_stack(options: Options, runtime: Runtime) -> None:
    """Run the stack until it is asked to stop.

    Raises:
        Invalid: NOT_WRITABLE, ALREADY_RUNNING or BAD_SETTING (too few open files, too).
        Overloaded: DISK_FULL.
        Data: STAMP_MISMATCH, DATA_DIR_NEWER or RESTORE_UNFINISHED.
        Unavailable: PORT_IN_USE, PEER_UNAVAILABLE (artefacts) or PROCESS_DIED.
    """
    data_dir = options.settings.data_dir
    check_files()
    check_writable(data_dir)
    check_room(data_dir)
    with holding(data_dir / "run", runtime.clock):
        end_leftovers(data_dir / "run", lambda said: _step(runtime, "leftovers", said))
        clear_scratch(data_dir)
        stack = _choose(options, runtime)
        try:
            stack.artifacts.ensure(_progress_of(runtime))
        except Unavailable as error:
            if error.reason is not Reason.DRAINING:
                raise
        if not runtime.stopping.is_set():
            _supervise(stack, runtime)


def clear_scratch(data_dir: Path) -> None:
    """Remove what parts that were killed left in their scratch folders; call it while holding."""
    for folder in (data_dir / "tmp", data_dir / "kafka" / "tmp", data_dir / "registry" / "tmp"):
        for left in folder.glob("*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def check_writable(data_dir: Path) -> None:
    """Make the data directory's folders, and try to write there.

    Raises:
        Invalid: NOT_WRITABLE.
        Overloaded: DISK_FULL.
    """
    with _disk_errors(data_dir):
        for name in ("run", "logs", "tmp"):
            (data_dir / name).mkdir(parents=True, exist_ok=True)
            probe = data_dir / name / f".probe-{os.getpid()}"
            probe.write_bytes(b"k2")
            probe.unlink()


def check_room(data_dir: Path) -> None:
    """Refuse to start on a disk that is nearly full.

    Raises:
        Overloaded: DISK_FULL.
    """
    left = shutil.disk_usage(data_dir).free
    if left < limits.DISK_FREE_MIN:
        raise Overloaded(
            Reason.DISK_FULL,
            f"{left // limits.MIB} MiB are free where {data_dir} is, "
            f"{limits.DISK_FREE_MIN // limits.MIB} MiB are needed to start: make room",
        )


def check_files() -> int:
    """Let this process and those it starts open as many files as they need; how many that is.

    Raises:
        Invalid: BAD_SETTING when the system allows too few.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < limits.OPEN_FILES_MIN:
        raise Invalid(
            Reason.BAD_SETTING,
            f"a process may open {hard} files here, {limits.OPEN_FILES_MIN} are needed: raise the "
            f"limit with ulimit -n {limits.OPEN_FILES}, or let the administrator do so",
        )
    if soft != resource.RLIM_INFINITY and soft < limits.OPEN_FILES:
        soft = limits.OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, limits.OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def choose_ports(
    options: Options, run_id: str, say: Callable[[str], None] = _log.info
) -> dict[str, int]:
    """Take the ports of the settings, or any that are free.

    One that is taken gives way where it may (`Port.gives_way`), unless fixed ports were asked for.

    Args:
        options: of the stack.
        run_id: decides where the search for free ones begins.
        say: is given one line about each that gave way.
    """
    if options.ports == "free":
        return stack_ports.free(run_id)
    ports = stack_ports.fixed(options.settings)
    if options.ports_asked:
        return ports
    yielding = {name: ports[name] for name in stack_ports.yielding()}
    return {**ports, **stack_ports.give_way(yielding, run_id, say)}


def choose_prometheus(
    options: Options, runtime: Runtime, used: Collection[int]
) -> prometheus.Prometheus | None:
    """Find the Prometheus to run beside the stack; None where none is wanted or installed.

    It listens on its port, or on a free one where that is taken or free ports are asked for.

    Raises:
        Unavailable: PORT_IN_USE when fixed ports are asked for and this one is taken.
    """
    if not options.observe:
        return None
    program = prometheus.find_program(settings.environment().get("PATH"))
    if program is None:
        _step(runtime, "prometheus", prometheus.HOW_TO_GET)
        return None
    port = _port_beside(options, runtime, used, "prometheus", options.observe_port)
    return prometheus.Prometheus(program, port)


def choose_jupyter(
    options: Options,
    runtime: Runtime,
    used: Collection[int],
    is_installed: Callable[[], bool] = jupyter.is_installed,
) -> jupyter.Jupyter | None:
    """Choose how Jupyter runs beside the stack; None where it is not wanted or not installed.

    It listens on its port, or on a free one where that is taken or free ports are asked for.

    Raises:
        Unavailable: PORT_IN_USE when fixed ports are asked for and this one is taken.
    """
    if not options.notebooks:
        return None
    if not is_installed():
        _step(runtime, "jupyter", jupyter.HOW_TO_GET)
        return None
    port = _port_beside(options, runtime, used, "jupyter", options.notebooks_port)
    return jupyter.Jupyter(port, secrets.token_hex(_TOKEN_BYTES), settings.environment())


def _port_beside(
    options: Options, runtime: Runtime, used: Collection[int], name: str, port: int
) -> int:
    """Choose the port of what runs beside the stack: a free one where `port` is taken."""
    if options.ports_asked and options.ports == "fixed":
        stack_ports.check([(name, port)])
    elif options.ports == "free" or not stack_ports.is_free(port):
        taken, port = port, stack_ports.free_for((name,), runtime.run_id, used)[name]
        if options.ports != "free":
            _step(runtime, name, f"port {taken} is in use: {name.capitalize()} takes {port}")
    return port


def _choose(options: Options, runtime: Runtime) -> StackConfig:
    """Venue, exchange and ports, each refused by name if it cannot be."""
    config, data_dir = options.settings, options.settings.data_dir
    stamped = layout.check(data_dir)
    venue = stamp.choose_venue(config.feed.venue, stamped, _reach(config, runtime))
    stamp.check(stamped, venue, data_dir)
    config = _listening_to_all(config, venue)
    exchange = config.feed.exchange
    if stamped is not None and not options.exchange_asked:
        exchange = stamped.exchange
    chosen = StackConfig(
        settings=config,
        ports=choose_ports(options, runtime.run_id, lambda said: _step(runtime, "ports", said)),
        venue=venue,
        exchange=exchange,
        run_id=runtime.run_id,
        artifacts=Artifacts(config.cache_dir, runtime.clock),
        environment=settings.environment(),
    )
    stack = _measured(chosen, options, runtime)
    beside = choose_prometheus(options, runtime, stack.ports.values())
    used = {*stack.ports.values(), *((beside.port,) if beside else ())}
    stack = replace(stack, prometheus=beside, jupyter=choose_jupyter(options, runtime, used))
    stack_ports.check(stack.used_ports().items())
    _step(runtime, "venue", f"{stamp.source_of(venue)} trades of {exchange} from {venue}")
    return stack


def _measured(stack: StackConfig, options: Options, runtime: Runtime) -> StackConfig:
    """Choose a port for the metrics of each process.

    One that is taken gives way, unless fixed ports were asked for.
    """
    if not stack.settings.telemetry.metrics:
        return stack
    names = [name for _, name in stack.processes()]
    if options.ports == "free":
        asked = [stack_ports.metrics_port(name) for name in names]
        ports = stack_ports.free_for(asked, runtime.run_id, stack.ports.values())
    else:
        ports = stack_ports.metrics(stack.settings, names)
        if not options.ports_asked:
            ports = stack_ports.give_way(
                ports,
                runtime.run_id,
                lambda said: _step(runtime, "metrics", said),
                stack.ports.values(),
            )
    return replace(stack, ports={**stack.ports, **ports})


def _listening_to_all(config: Settings, venue: str) -> Settings:
    """Take the symbols of a recording into the settings, unless symbols were chosen."""
    recorded = venue.startswith(stamp.RECORDING) and "symbols" not in config.feed.model_fields_set
    symbols = recording.symbols(venue.removeprefix(stamp.RECORDING)) if recorded else ()
    if not symbols:
        return config
    feed = config.feed.model_copy(update={"symbols": symbols})
    return config.model_copy(update={"feed": feed})


def _reach(config: Settings, runtime: Runtime) -> Callable[[], bool]:
    def ask() -> bool:
        _step(runtime, "venue", f"looking for the live venue at {config.feed.venue_url}")
        refusal = venue_refusal(config.feed.venue_url)
        if refusal is not None:
            _step(runtime, "venue", f"{refusal.reason}: {refusal.message}")
        return refusal is None

    return ask


def check_venue(config: Settings) -> str:
    """Say whether the live venue can be reached, for `k2 doctor`."""
    refusal = venue_refusal(config.feed.venue_url)
    if refusal is None:
        return f"{config.feed.venue_url} answers"
    return f"{refusal.reason}: {refusal.message}; a new stack takes the practice venue"


def venue_refusal(venue_url: str, timeout_s: float = limits.LIVE_PROBE_S) -> Unavailable | None:
    """Say why a venue (wss://host:port) takes no subscription in time; None when it does."""
    url = f"{venue_url.rstrip('/')}/stream?streams=btcusdt@trade"
    try:
        with connect(
            url,
            open_timeout=timeout_s,
            close_timeout=1.0,
            max_size=limits.MIB,
            proxy=None if is_loopback(url) else True,
        ):
            return None
    except ImportError:  # what the library lacks for the proxy that is set
        why = NO_SOCKS
    except (OSError, EOFError, ValueError, WebSocketException) as error:
        why = str(error) or type(error).__name__
    _log.info("the live venue cannot be reached", extra={"url": url, "error": why})
    return Unavailable(Reason.VENUE_UNAVAILABLE, f"{venue_url} cannot be reached: {why}")


def _supervise(stack: StackConfig, runtime: Runtime) -> None:
    config, data_dir = stack.settings, stack.data_dir
    stack_ports.check(stack.used_ports().items())  # again: fetching may have taken minutes
    with _disk_errors(data_dir):
        layout.upgrade(data_dir, lambda said: _step(runtime, "upgrade", said))
        if stamp.read_stamp(data_dir / layout.STAMP) is None:
            made = Stamp(stamp.source_of(stack.venue), stack.venue, stack.exchange)
            stamp.write_stamp(data_dir / layout.STAMP, made)
    record = StackRecord(
        run_id=stack.run_id,
        supervisor_pid=os.getpid(),
        data_dir=str(data_dir),
        source=stamp.source_of(stack.venue),
        venue=stack.venue,
        exchange=stack.exchange,
        symbols=list(config.feed.symbols),
        started_at_us=runtime.clock.now_us(),
        trusted_networks=[str(network) for network in config.access.trusted_networks],
    )
    tape = config.tape.model_copy(
        update={"bootstrap": stack.bootstrap, "registry_url": stack.registry_url}
    )

    parts = stack.parts()

    schemas = SchemaStore(
        tape.registry_url, data_dir / "schemas", runtime.clock, runtime.stopping.wait
    )

    def deploy() -> None:
        topics.deploy(tape, schemas)
        forget_others(
            CompactedTopic(tape.bootstrap, topics.HEARTBEATS), {part.name for part in parts}
        )

    journal = Journal(data_dir / "run", record, runtime.clock)
    Supervisor(parts, deploy, journal, runtime, data_dir).run()


def forget_others(heartbeats: CompactedTopic, names: Collection[str]) -> None:
    """Take away what was heard of processes that are no part of this stack any more.

    Raises:
        Unavailable: TAPE_UNAVAILABLE.
    """
    with closing(heartbeats):
        for name in heartbeats.read_all().keys() - names:
            heartbeats.put(name, None, limits.BOARD_WAIT_S)


def _step(runtime: Runtime, name: str, message: str) -> None:
    runtime.emit("step", name=name, message=message)


def _progress_of(runtime: Runtime) -> Progress:
    """Report the fetch a few times a second at most; end it when asked to stop."""
    last: list[tuple[float, str]] = [(float("-inf"), "")]

    def report(what: str, done: int, total: int) -> None:
        if runtime.stopping.is_set():
            raise Unavailable(Reason.DRAINING, "asked to stop while artefacts were fetched")
        now_s, (last_s, last_what) = runtime.clock.monotonic_s(), last[0]
        news = what != last_what if total == 0 else now_s - last_s >= _PROGRESS_S or done == total
        if news:
            last[0] = (now_s, what)
            runtime.emit("progress", name="artifacts", what=what, done=done, total=total)

    return report


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> K2Error:
    """Convert an error of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Overloaded(Reason.DISK_FULL, f"no space left in {path}: make room")
    return Invalid(
        Reason.NOT_WRITABLE,
        f"{path} cannot be written to: {error.strerror or error}; take another --data-dir",
    )
