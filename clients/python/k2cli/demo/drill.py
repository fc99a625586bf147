"""Tries each contingency of a demonstration once, on a simulated stack, and times it."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from k2cli.demo.materials import NOTEBOOKS, has_outputs
from k2cli.demo.stage import fresh_start, history_load
from k2cli.demo.stage.readiness import MATERIALS, newest_ms
from k2cli.operate.fetching import NotServed, fetch
from k2cli.operate.running_stack import RunningStack, address_of
from k2client import stack
from k2client.errors import K2Error

_SAID_S = 10.0


@dataclass(frozen=True)
class Tried:
    """One contingency and what came of it."""

    what: str
    ok: bool
    found: str


def drill(directory: Path, say: Callable[[str], None]) -> list[Tried]:
    """Try all; the stack is empty and reloaded afterwards.

    Raises:
        Data: STAMP_MISMATCH when the directory holds live or recorded trades.
    """
    fresh_start.refuse_real(directory, stack.read_stack(directory))
    tries: tuple[tuple[str, Callable[[Path, Callable[[str], None]], str]], ...] = (
        ("a service is down: make demo-reset", _service_down),
        ("an answer is empty: demo_mode.py --load", _empty_answer),
        ("a notebook's kernel is dead: the executed copy opens", _dead_kernel),
        ("no network: the stack needs loopback alone", _no_network),
    )
    done = []
    for what, attempt in tries:
        say(what)
        try:
            done.append(Tried(what, True, attempt(directory, say)))
        except (K2Error, NotServed, OSError, ValueError, LookupError, _Unsolved) as error:
            done.append(Tried(what, False, getattr(error, "message", "") or str(error)))
    return done


class _Unsolved(Exception):
    """A contingency was not solved; the text says why."""


def _service_down(directory: Path, say: Callable[[str], None]) -> str:
    """Kill the query process without warning, then reset."""
    described = stack.read_stack(directory)
    killed = next((each for each in described.processes if each.get("name") == "query"), {})
    if isinstance(pid := killed.get("pid"), int):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        say(f"killed query, process {pid}")
    took_s = fresh_start.reset(directory, say)
    if took_s > fresh_start.TARGET_S:
        raise _Unsolved(f"the reset took {took_s:.1f} s of {fresh_start.TARGET_S:.0f} s")
    return f"killed query (process {pid}); SERVING again, empty, in {took_s:.1f} s"


def _empty_answer(directory: Path, say: Callable[[str], None]) -> str:
    """Load the hour into the stack that the reset left empty."""
    with RunningStack.open(directory) as demo:
        loaded, took_s = history_load.load(
            demo, history_load.seldom(lambda words, _done, _total: say(words), _SAID_S)
        )
        if took_s > history_load.TARGET_S:
            raise _Unsolved(f"{loaded:,} trades took {took_s:.0f} s")
        return (
            f"{loaded:,} trades of {len(demo.symbols)} symbols in {took_s:.0f} s; the newest are"
            f" answered in {newest_ms(demo):.0f} ms"
        )


def _dead_kernel(directory: Path, _say: Callable[[str], None]) -> str:
    """Look for a notebook with its outputs, which needs no kernel; open one where Jupyter runs."""
    folders = [*directory.joinpath(*MATERIALS).glob("*/notebooks"), *NOTEBOOKS]
    copies = [path for folder in folders for path in folder.glob("*.ipynb") if has_outputs(path)]
    if not copies:
        raise _Unsolved("there is no executed copy: k2 demo export makes them")
    found = f"{len(copies)} executed copies, such as {copies[0]}"
    listed = address_of(stack.read_stack(directory), "jupyter", "jupyter")
    if listed is None:
        return found
    url = opened_copy(listed, copies[0].name)
    if not any(cell.get("outputs") for cell in json.loads(fetch(url, 10.0))["content"]["cells"]):
        raise _Unsolved(f"Jupyter opens {copies[0].name} without its outputs")
    return f"{found}; Jupyter opens it"


def opened_copy(listed: str, name: str) -> str:
    """Return the URL at which Jupyter gives an executed copy.

    Args:
        listed: of its page, with the token.
        name: of the notebook's file.
    """
    page = urlsplit(listed)
    return urlunsplit(page._replace(path=f"/api/contents/executed/{name}"))


def _no_network(directory: Path, _say: Callable[[str], None]) -> str:
    """Check that the stack listens and connects on loopback alone."""
    described = stack.read_stack(directory)
    listed: dict[str, Any] = dict(described.addresses)
    for each in described.processes:
        listed |= each.get("addresses") or {}
    outside = [text for text in map(str, listed.values()) if not _is_loopback(text)]
    if outside or described.content.get("venue") != "synthetic":
        raise _Unsolved(f"not of this machine: {', '.join(outside) or described.content['venue']}")
    return f"all {len(listed)} addresses are on loopback, and so is the venue"


def _is_loopback(address: str) -> bool:
    url = address if "://" in address else f"//{address}"
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
