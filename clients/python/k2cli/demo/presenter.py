"""Performs a demonstration in the terminal: what to say, what to show, what is true right now.

A part is drawn, measured, and held until its time is over or Enter is pressed. What cannot be
measured is shown as that; it never ends the demonstration.
"""

from __future__ import annotations

import dataclasses
import json
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from k2cli import console as output
from k2cli.demo.agenda import Slot, clock_line, due, minutes
from k2cli.demo.evidence import ABSENT, KEPT, MISSED, NOT_CLAIMED, Evidence
from k2cli.demo.ingest_proofs import Proof
from k2cli.demo.service_proofs import PROOFS
from k2cli.demo.spoken import SIMULATED, WORDS, Words
from k2cli.demo.stage.page_addresses import NO_PART, looked_at
from k2cli.demo.stage.readiness import Item, decision
from k2cli.operate.fetching import NotServed
from k2cli.operate.running_stack import RunningStack
from k2client.errors import K2Error

_STYLES = {KEPT: "green", MISSED: "bold red", ABSENT: "yellow", NOT_CLAIMED: "yellow"}
_PIPE_WIDTH = 118
_TURN_S = 0.25
RUN_FILE = ("demo", "last_run.json")


@dataclass
class Performance:
    """What one demonstration was.

    Attributes:
        quick: which form.
        took_s: from the first part to the end of the last.
        evidence: by the name of the part.
    """

    quick: bool
    took_s: float = 0.0
    evidence: dict[str, Evidence] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """What could not be measured."""
        return [each for part in self.evidence.values() for each in part.failures]

    def count(self, verdict: str) -> int:
        """Count the claims with a verdict."""
        return sum(
            claim.verdict == verdict for part in self.evidence.values() for claim in part.claims
        )

    def document_at(self, made_at: str, source: str) -> dict[str, Any]:
        """Return it as JSON values, labelled with a date and the source of the trades."""
        return {
            "made_at": made_at,
            "source": source,
            "quick": self.quick,
            "took_s": round(self.took_s, 1),
            "parts": {name: dataclasses.asdict(part) for name, part in self.evidence.items()},
        }


class Presenter:
    """Draws and paces a demonstration.

    Args:
        demo: the stack it shows.
        quick: the five-minute form.
        wait: hold each part until its time is over.
        screen: where it is drawn; unset: stdout.
        proofs: what each part measures, by its name.
    """

    def __init__(
        self,
        demo: RunningStack,
        *,
        quick: bool,
        wait: bool,
        screen: Console | None = None,
        proofs: Mapping[str, Sequence[Proof]] = PROOFS,
    ) -> None:
        self._demo = demo
        self._quick = quick
        self._wait = wait
        self._screen = screen or screen_of_stdout()
        self._proofs = proofs
        self._began_s = 0.0

    def perform(self, planned: Sequence[Slot]) -> Performance:
        """Perform the parts in their order."""
        done = Performance(self._quick)
        addresses = self._addresses()
        self._began_s = time.monotonic()
        for slot in planned:
            self._draw(slot, planned[-1].ends_s, addresses)
            done.evidence[slot.part.name] = evidence = Evidence()
            for proof in self._proofs.get(slot.part.name, ()):
                self._measure(proof, evidence)
            self._draw_evidence(evidence)
            if words := WORDS[slot.part.name].next:
                self._screen.print(Text(f"→ {words}", style="italic"))
            if self._wait:
                self._hold(slot.ends_s)
        done.took_s = time.monotonic() - self._began_s
        return done

    def _measure(self, proof: Proof, evidence: Evidence) -> None:
        what = (proof.__doc__ or proof.__name__).strip().splitlines()[0]
        try:
            with self._screen.status(f"measuring: {what}"):
                proof(self._demo, evidence, self._quick)
        except K2Error as error:
            evidence.failures.append(f"{what} {error.reason}: {error.message}")
        except (NotServed, OSError, ValueError, LookupError, TypeError) as error:
            evidence.failures.append(f"{what} {type(error).__name__}: {error}")

    def _addresses(self) -> dict[str, str]:
        """Return the address of each page, or the words that say it is not there."""
        return {
            page.name: f"({page.name} {NO_PART})" if page.state == NO_PART else page.url
            for page in looked_at(self._demo.described)
        }

    # --- drawing ----------------------------------------------------------------------------------

    def _draw(self, slot: Slot, total_s: float, addresses: Mapping[str, str]) -> None:
        number = f"{slot.part.number}. " if 0 < slot.part.number < 8 else ""
        clock = clock_line(slot, self._elapsed_s(), total_s)
        if not self._wait:
            clock = f"planned {minutes(slot.part.seconds(quick=self._quick))}"
        self._screen.rule(Text(f"{number}{slot.part.title} ({clock})"))
        if self._demo.source == "simulated":
            self._screen.print(Text(SIMULATED, style="bold black on yellow"), justify="center")
        self._screen.print(Panel(_body(WORDS[slot.part.name], addresses), title="say and show"))

    def _draw_evidence(self, evidence: Evidence) -> None:
        for line in evidence.lines:
            self._screen.print(Text(f"  {line}", style="dim"), soft_wrap=True)
        if evidence.claims:
            self._screen.print(table_of(evidence))
        for failure in evidence.failures:
            self._screen.print(Text(f"NOT MEASURED: {failure}", style="bold red"), soft_wrap=True)

    # --- pacing -----------------------------------------------------------------------------------

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def _hold(self, until_s: float) -> None:
        """Show the clock until a second of the demonstration, or until Enter is pressed."""
        typed = sys.stdin.isatty()
        hint = " (Enter goes on)" if typed else ""
        with self._screen.status("") as status:
            while (left_s := until_s - self._elapsed_s()) > 0:
                status.update(f"{minutes(self._elapsed_s())}, {minutes(left_s)} left{hint}")
                if typed and select.select([sys.stdin], [], [], min(_TURN_S, left_s))[0]:
                    sys.stdin.readline()
                    return
                if not typed:
                    time.sleep(min(_TURN_S, left_s))


def _body(words: Words, addresses: Mapping[str, str]) -> Text:
    text = Text()
    for sentence in words.say:
        text.append(f"• {sentence}\n")
    for line in words.show:
        text.append("show  ", style="bold cyan")
        text.append(_filled(line, addresses) + "\n", style="cyan")
    text.rstrip()
    return text


def _filled(line: str, addresses: Mapping[str, str]) -> str:
    for name, url in addresses.items():
        line = line.replace(f"{{{name}}}", url)
    return line


def table_of(evidence: Evidence) -> Table:
    """Draw the claims of a section: claim, figure, verdict, command."""
    drawn = Table(show_lines=False, expand=True, pad_edge=False)
    for name, ratio in (("claim", 3), ("measured at this moment", 4), ("", 2), ("shown by", 3)):
        drawn.add_column(name, ratio=ratio, overflow="fold")
    for claim in evidence.claims:
        verdict = Text(claim.verdict, style=_STYLES.get(claim.verdict, "dim"))
        drawn.add_row(
            Text(claim.what), Text(claim.figure), verdict, Text(claim.command, style="cyan")
        )
    return drawn


def screen_of_stdout() -> Console:
    """Make the console of stdout: as wide as the terminal, or fixed without one."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, soft_wrap=False)


def draw_checklist(items: Sequence[Item], echo: Callable[[str], None] = output.echo) -> str:
    """Print one line an item and the decision; returns the decision."""
    width = max(len(item.name) for item in items)
    for item in items:
        mark = "ok    " if item.ok else ("FAILED" if item.required else "warn  ")
        out = f"  → {item.way_out}" if not item.ok and item.way_out else ""
        echo(f"{mark}  {item.name:<{width}}  {item.found}{out}")
    verdict = decision(items)
    echo(verdict)
    return verdict


def summary(done: Performance, *, waited: bool, whole: bool) -> list[str]:
    """Say in a few lines what the demonstration was."""
    lines = [
        f"{done.count(KEPT)} claims kept, {done.count(MISSED)} missed,"
        f" {done.count(ABSENT)} about parts that are not of this stack,"
        f" {len(done.failures)} not measured"
    ]
    lines += [
        f"missed: {claim.what}: {claim.figure}"
        for part in done.evidence.values()
        for claim in part.claims
        if claim.verdict == MISSED
    ]
    took = f"it took {minutes(done.took_s)}"
    if waited and whole:
        target_s, tolerance_s = due(quick=done.quick)
        kept = "kept" if abs(done.took_s - target_s) <= tolerance_s else "missed"
        took += f"; {minutes(target_s)} ± {minutes(tolerance_s)} {kept}"
    return [*lines, took]


def keep(done: Performance, directory: Path, source: str) -> Path:
    """Write the figures of a demonstration beside its stack's data, for the card."""
    path = directory.joinpath(*RUN_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    document = done.document_at(now_text(), source)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


def now_text() -> str:
    """Return this moment as ISO 8601, to the second."""
    return datetime.fromtimestamp(int(time.time()), UTC).isoformat()
