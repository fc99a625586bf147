"""Implements `k2 tape topics`: how much each topic of the tape holds, and how fast it grows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import k2client
from k2cli import console, options
from k2client.records import TopicSizes

_TURN_S = 1.0  # between two readings; a rate is over so long


@click.command()
@click.option("--watch", is_flag=True, help="Read again each second, until Ctrl-C.")
@options.common
def topics(watch: bool, as_json: bool, data_dir: Path | None) -> None:
    """Show the topics of the tape: partitions, messages, and messages a second.

    The rate is over a second. With --watch, --json prints one document a line.
    """
    with options.connect(data_dir) as k2:
        for rows in readings(k2, _TURN_S):
            if as_json and watch:
                console.echo(console.json_line({"topics": rows}))
            elif as_json:
                console.echo_json({"topics": rows})
            else:
                if watch:
                    click.clear()  # only where stdout is a terminal
                console.table(list(rows[0]), [list(row.values()) for row in rows])
            if not watch:
                return


def readings(k2: k2client.Client, turn_s: float) -> Iterator[list[dict[str, Any]]]:
    """Yield the topics with their rates since the reading before, again and again."""
    before, never = k2.topics(), threading.Event()
    while not never.wait(turn_s):
        now = k2.topics()
        yield _rows(before, now)
        before = now


def _rows(before: TopicSizes, now: TopicSizes) -> list[dict[str, Any]]:
    written = {topic.name: topic.messages_written for topic in before.topics}
    passed_s = (now.time - before.time).total_seconds() if now.time and before.time else 0.0
    rows = []
    for topic in now.topics:
        new = topic.messages_written - written.get(topic.name, topic.messages_written)
        rate = round(new / passed_s, 1) if passed_s > 0 else 0.0
        rows.append(
            {
                "topic": topic.name,
                "partitions": topic.partitions,
                "messages": topic.messages,
                "rate": rate,
            }
        )
    return rows
