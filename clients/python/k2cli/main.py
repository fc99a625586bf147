"""Defines the `k2` command: its subcommands, and the form of a failure.

A failure is one line on stderr, `k2: REASON: message`, and an exit code: 2 when the request is
wrong, 130 after Ctrl-C, 1 otherwise (`up` returns its supervisor's). It never prints a traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from k2cli import (
    backfill,
    backup,
    console,
    dlq,
    doctor,
    down,
    gaps,
    maintain,
    record,
    reports,
    tape,
    trades,
    up,
    verify,
)
from k2cli.assistant import mcp
from k2cli.child import INTERRUPTED
from k2cli.cost import cost_report
from k2cli.demo import browse, demo
from k2cli.operate import degrade, process_logs, status, tape_topics
from k2cli.shapes import days, joins, prices
from k2client.errors import Invalid, K2Error

_EXIT_INVALID = 2
_REASONS_OF_ERRNO = {
    errno.ENOENT: "BAD_REQUEST",
    errno.ENOTDIR: "BAD_REQUEST",
    errno.EISDIR: "BAD_REQUEST",
    errno.ELOOP: "BAD_REQUEST",
    errno.ENAMETOOLONG: "BAD_REQUEST",
    errno.ENOSPC: "DISK_FULL",
    errno.EDQUOT: "DISK_FULL",
    errno.EACCES: "NOT_WRITABLE",
    errno.EPERM: "NOT_WRITABLE",
    errno.EROFS: "NOT_WRITABLE",
}


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 what a command returns
        """Run a command; its reader may close the pipe early (click itself would fail)."""
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Python would flush again at exit and report the closed pipe.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return answer


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="k2-lakehouse", message="k2 %(version)s")
@click.pass_context
def k2(context: click.Context) -> None:
    """Run and query a market-data lakehouse: one table, exactly once, as of any moment."""
    if context.invoked_subcommand is None:
        console.echo(context.get_help())


for command in (
    up.up,
    down.down,
    status.status,
    doctor.doctor,
    trades.trades,
    prices.bars,
    prices.vwap,
    prices.twap,
    prices.latest,
    joins.asof,
    joins.markouts,
    days.summary,
    days.symbols,
    days.availability,
    reports.snapshots,
    degrade.degrade,
    reports.feeds,
    record.record,
    verify.verify,
    backup.backup,
    backup.restore,
    gaps.gaps,
    backfill.backfill,
    maintain.compact,
    maintain.expire,
    tape.tape,
    dlq.dlq,
    process_logs.logs,
    demo.demo,
    cost_report.cost,
    browse.open_page,
    browse.completion,
    mcp.mcp,
):
    k2.add_command(command)
k2.add_command(degrade.degrade, "degradation")
tape.tape.add_command(tape_topics.topics)


def main() -> None:
    """Run the command and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; failures are printed to stderr."""
    try:
        code = k2.main(args=list(arguments), prog_name="k2", standalone_mode=False)
    except click.UsageError as error:
        return _usage(error)
    except click.ClickException as error:
        console.say(f"k2: BAD_REQUEST: {error.format_message()}")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        console.say("k2: interrupted")
        return INTERRUPTED
    except K2Error as error:
        console.say(f"k2: {error.reason}: {_one_line(error.message)}")
        return _EXIT_INVALID if isinstance(error, Invalid) else 1
    except OSError as error:
        return _os_error(error)
    except UnicodeEncodeError as error:
        console.say(f"k2: BAD_REQUEST: {error.object!r} is not text in UTF-8: type it again")
        return _EXIT_INVALID
    except Exception as error:  # noqa: BLE001 a defect of this command is one line too
        console.say(f"k2: INTERNAL: {type(error).__name__}: {_one_line(str(error))}")
        return 1
    return code if isinstance(code, int) else 0


def _usage(error: click.UsageError) -> int:
    context = error.ctx
    where = context.command_path if context else "k2"
    console.say(f"k2: BAD_REQUEST: {_one_line(error.format_message())} (see `{where} --help`)")
    return _EXIT_INVALID


def _os_error(error: OSError) -> int:
    reason = _REASONS_OF_ERRNO.get(error.errno or 0, "INTERNAL")
    name = f"{error.filename}: " if error.filename else ""
    console.say(f"k2: {reason}: {name}{error.strerror or error}")
    return _EXIT_INVALID if reason == "BAD_REQUEST" else 1


def _one_line(message: str) -> str:
    return " ".join(message.split())
