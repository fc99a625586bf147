"""Processes that maintain the lake beside its writers: merging, dropping, sweeping; retention.

Their times are those of the real ones made small: a file that nothing names stays for longer than a
ticket and a stream last here, by more than the clocks of two maintainers may differ. A person may
ask for maintenance as well, which is a second process on the same lake. Retention is one more, and
may be two: whole files go by bytes, and by the day that ends within a history.
"""

from k2.errors import K2Error
from k2.settings import LakeSettings
from tests.sim.catalog import Connection
from tests.sim.process import Flag

TICKET_S = 4.0
STREAM_S = 2.0
SKEW_S = 1.0
GRACE_MIN_S = TICKET_S + STREAM_S + 2 * SKEW_S
TASKS = ("compact", "expire", "sweep")
EXPIRED_S = (0.0, 30.0)


def maintainer_of(process, parts):
    """A maintainer, ready to run."""
    world = process.world
    settings = LakeSettings().model_copy(
        update={
            "maintain_interval_s": world.swarm.maintain_interval_s,
            "sweep_interval_s": world.swarm.sweep_interval_s,
            "sweep_grace_s": world.swarm.sweep_grace_s,
        }
    )
    return parts.maintainer(replacer=_replacer(process, parts), clock=process, settings=settings)


def _replacer(process, parts):
    return parts.replacer(
        catalog=Connection(process, process.world.metastore, process.world.store),
        clock=process,
        maintainer_id=process.identity,
    )


def retain(process, parts):
    """Hold the lake to its retention for ever."""
    swarm = process.world.swarm
    settings = LakeSettings().model_copy(
        update={
            "retention_hours": swarm.retention_hours,
            "retain_interval_s": swarm.retain_interval_s,
        }
    )
    retainer = parts.retainer(
        replacer=_replacer(process, parts),
        clock=process,
        settings=settings,
        bytes_max=swarm.bytes_max,
    )
    retainer.run(Flag(process))


def maintain(process, parts):
    """Maintain for ever."""
    maintainer_of(process, parts).run(Flag(process))


def maintain_once(process, parts):
    """Do one thing that a person asks for."""
    chance = process.world.chance
    task, back_s = str(chance.choice(TASKS)), chance.uniform(*EXPIRED_S)
    process.world.note(process.identity, task)
    given = [process.now_us() - int(back_s * 1e6)] if task == "expire" else []
    try:
        getattr(maintainer_of(process, parts), task)(*given)
    except K2Error as error:
        process.world.note(process.identity, f"{error.reason}")
