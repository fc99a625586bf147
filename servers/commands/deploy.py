"""`python -m servers deploy`: prepares what processes share that are not started by `k2 up`.

Containers are such processes: a broker and a registry run elsewhere, and each process by itself on
one shared data directory. This command decides once what the directory holds (its stamp), and makes
topics and schemas. It may be repeated; processes may run meanwhile.

step      name, message    what it is doing
result    source, venue    what the directory holds
"""

from __future__ import annotations

from k2.errors import Invalid, Reason
from k2.settings import Settings
from k2.tape import topics
from k2.tape.schema_registry import SchemaStore
from servers.local import layout, registry, stamp
from servers.local.embedded_stack import check_room, check_writable, venue_refusal
from servers.local.stack_file import holding
from servers.local.stamp import Stamp
from servers.runtime import Runtime


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Stamp the data directory, and deploy topics and schemas once broker and registry answer.

    Raises:
        Invalid: BAD_REQUEST, NOT_WRITABLE or ALREADY_RUNNING.
        Overloaded: DISK_FULL.
        Data: STAMP_MISMATCH, DATA_DIR_NEWER or RESTORE_UNFINISHED.
    """
    if argv:
        raise Invalid(Reason.BAD_REQUEST, "deploy takes no arguments, only settings")
    check_writable(settings.data_dir)
    check_room(settings.data_dir)
    with holding(settings.data_dir / "run", runtime.clock):
        stamped = stamp_directory(settings, runtime)
    runtime.emit("step", name="deploy", message="deploying topics and schema")
    if runtime.retry_until_stopped(lambda: _deploy(settings, runtime)) is None:
        return 1
    runtime.emit("result", source=stamped.source, venue=stamped.venue)
    return 0


def stamp_directory(settings: Settings, runtime: Runtime) -> Stamp:
    """Upgrade the data directory and read its stamp; make one where there is none."""
    data_dir = settings.data_dir
    stamped = layout.check(data_dir)
    layout.upgrade(data_dir, lambda said: runtime.emit("step", name="upgrade", message=said))
    venue = stamp.choose_venue(
        settings.feed.venue, stamped, lambda: venue_refusal(settings.feed.venue_url) is None
    )
    stamp.check(stamped, venue, data_dir)
    if stamped is None:
        stamped = Stamp(stamp.source_of(venue), venue, settings.feed.exchange)
        stamp.write_stamp(data_dir / layout.STAMP, stamped)
    return stamped


def _deploy(settings: Settings, runtime: Runtime) -> bool:
    """Make what is missing.

    Raises:
        Unavailable: TAPE_UNAVAILABLE or REGISTRY_UNAVAILABLE.
    """
    tape = settings.tape
    registry.require_compatibility(tape.registry_url)
    store = SchemaStore(
        tape.registry_url, settings.data_dir / "schemas", runtime.clock, runtime.stopping.wait
    )
    topics.deploy(tape, store)
    return True
