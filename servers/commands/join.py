"""`python -m servers join PROCESS`: becomes a process of a data directory that others prepared.

`k2 up` gives each process its venue by settings; here the stamp of the data directory says it,
which `deploy` wrote. The process replaces this one, so that signals, logs and exit code are its
own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from k2.errors import Invalid, NotFound, Reason
from k2.settings import Settings, environment
from servers.local import layout, stamp
from servers.local.stack_options import Arguments
from servers.local.stamp import Stamp
from servers.process_table import PROCESSES
from servers.runtime import Runtime

Become = Callable[[str, list[str], Mapping[str, str]], None]


def run(settings: Settings, runtime: Runtime, argv: list[str], become: Become = os.execve) -> int:
    """Replace this process.

    Args:
        settings: of the process, but for its venue.
        runtime: of this process.
        argv: the process, and where the practice venue listens.
        become: replaces this process by a program with arguments and an environment.

    Raises:
        Invalid: BAD_REQUEST.
        NotFound: the data directory is not prepared.
        Data: STAMP_MISMATCH, DATA_DIR_NEWER or RESTORE_UNFINISHED.
    """
    parser = Arguments("join")
    parser.add_argument("process", choices=list(PROCESSES))
    parser.add_argument("--practice-url", default="")
    arguments = parser.parse_args(argv)
    stamped = layout.check(settings.data_dir)
    if stamped is None:
        raise NotFound(
            Reason.STACK_NOT_RUNNING,
            f"{settings.data_dir} is not prepared: run `python -m servers deploy` there first",
        )
    named = venue_settings(settings, stamped, arguments.practice_url)
    program = [sys.executable, "-P", "-m", "servers", arguments.process]
    become(sys.executable, program, {**environment(), **named})
    return 0


def venue_settings(settings: Settings, stamped: Stamp, practice_url: str) -> dict[str, str]:
    """Build the settings of the venue that a data directory was made for, as variables.

    Args:
        settings: say which venue, or that it is the stamp's (`auto`).
        stamped: the stamp.
        practice_url: where the practice venue listens.

    Raises:
        Data: STAMP_MISMATCH.
        Invalid: BAD_REQUEST where the practice venue is needed and its address not given.
    """
    venue = stamp.choose_venue(settings.feed.venue, stamped, lambda: False)
    stamp.check(stamped, venue, settings.data_dir)
    practises = venue != stamp.LIVE
    if practises and not practice_url:
        raise Invalid(Reason.BAD_REQUEST, "join needs --practice-url, where the venue listens")
    return {
        "K2_FEED__VENUE": venue,
        "K2_FEED__VENUE_URL": practice_url if practises else settings.feed.venue_url,
        "K2_FEED__SOURCE": stamp.source_of(venue),
        "K2_FEED__EXCHANGE": stamped.exchange,
    }
