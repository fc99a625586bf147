"""Renders the pages that a presenter prints: positioning, quick reference, figures, checklist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k2cli.demo.agenda import CLOSING, OPENING, QUICK_S, SECTIONS, TARGET_S, TOLERANCE_S, minutes
from k2cli.demo.spoken import QUESTIONS, WORDS
from k2cli.demo.stage.page_addresses import PAGES
from k2cli.demo.stage.readiness import P99_TARGET_MS, STABLE_S

_TIERS = (
    ("execution", "below 10 µs", "order routing, market making", "not K2: code at the venue"),
    ("in memory", "10 µs to 10 ms", "pre-trade risk, live signals", "not K2: tick databases"),
    ("research", "10 ms to 500 ms", "questions over stream and history", "K2"),
    ("batch", "seconds to minutes", "backtests, reports, audits", "K2"),
)  # fmt: skip
_WIDTH, _ROW, _TOP = 860, 62, 64


def pages(run: Mapping[str, Any]) -> dict[str, str]:
    """Render every page by its file name.

    Args:
        run: the document of a demonstration, with its date.
    """
    return {
        "README.md": _index(run),
        "positioning.svg": positioning_svg(),
        "quick-reference.md": _quick_reference(),
        "key-figures.md": _key_figures(run),
        "checklist.md": _checklist(),
        "questions.md": _questions(),
        "opening-and-closing.md": _opening_and_closing(),
    }


def write(run: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the pages into a folder; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in pages(run).items():
        path = folder / name
        path.write_text(text)
        written.append(path)
    return written


def positioning_svg() -> str:
    """Draw the latency tiers, those that K2 serves filled."""
    height = _TOP + _ROW * len(_TIERS) + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img"'
        ' font-family="system-ui, sans-serif">',
        "<title>Where K2 stands among latency tiers</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="24" y="38" font-size="22" font-weight="600" fill="#16202c">'
        "K2 serves research, not execution</text>",
    ]
    for row, (name, span, use, who) in enumerate(_TIERS):
        top, ours = _TOP + row * _ROW, who == "K2"
        fill, ink = ("#0b6e4f", "#ffffff") if ours else ("#e8ecf0", "#3a4653")
        texts = (
            (40, 600, name),
            (170, 400, span),
            (360, 400, use),
            (620, 600 if ours else 400, who),
        )
        lines.append(
            f'<rect x="24" y="{top}" width="{_WIDTH - 48}" height="{_ROW - 10}" rx="6"'
            f' fill="{fill}"/>'
        )
        lines += [
            f'<text x="{left}" y="{top + 32}" font-size="15" font-weight="{weight}"'
            f' fill="{ink}">{words}</text>'
            for left, weight, words in texts
        ]
    return "\n".join([*lines, "</svg>", ""])


def _index(run: Mapping[str, Any]) -> str:
    return _page(
        "Demonstration",
        "Pages for the presenter, written by `k2 demo card`. Figures are of the run of"
        f" {_date(run)} on {run.get('source', 'unknown')} trades; each run measures them again.",
        "![the latency tiers](positioning.svg)",
        "* [Quick reference](quick-reference.md)\n* [Key figures](key-figures.md)\n"
        "* [Checklist](checklist.md)\n* [Questions and answers](questions.md)\n"
        "* [Opening and closing words](opening-and-closing.md)\n"
        "* [Claims](../claims.md) and [cost model](../cost-model.md)",
    )


def _quick_reference() -> str:
    rows = [
        f"| {part.number if part in SECTIONS else ''} | {part.title} | {minutes(part.full_s)} |"
        f" {minutes(part.quick_s)} |"
        f" {'; '.join(f'`{_addressed(show)}`' for show in WORDS[part.name].show)} |"
        for part in (OPENING, *SECTIONS, CLOSING)
    ]
    return _page(
        "Quick reference",
        f"Twelve minutes, {minutes(TARGET_S)} ± {minutes(TOLERANCE_S)}: `make demo`. Five minutes,"
        f" {minutes(QUICK_S)}: `make demo-quick`. One section: `k2 demo --section 3`.",
        "| | part | 12 min | 5 min | show |\n| --- | --- | --- | --- | --- |\n" + "\n".join(rows),
        "| trouble | way out |\n| --- | --- |\n"
        "| a service does not come | `make demo-reset` (30 s), `scripts/demo_mode.py --load` |\n"
        "| a notebook's kernel dies | open its executed copy in the backup materials |\n"
        "| an answer has no rows | `scripts/demo_mode.py --load` (5 min), or the cached answers |\n"
        "| it is slow | `htop`; `k2 degrade` says what presses; quote the figure that is shown |\n"
        "| there is no network | nothing to do: a simulated stack needs loopback alone |",
    )


def _key_figures(run: Mapping[str, Any]) -> str:
    rows = [
        f"| {_cell(claim['what'])} | {_cell(claim['figure'])} | {claim['verdict']} |"
        f" `{_cell(claim['command'])}` |"
        for part in (run.get("parts") or {}).values()
        for claim in part["claims"]
    ]
    return _page(
        "Key figures",
        f"Measured on {_date(run)}, {run.get('source', 'unknown')} trades, by `k2 demo`"
        f"{' --quick' if run.get('quick') else ''}. A missed target stands as missed.",
        "| claim | figure | verdict | shown by |\n| --- | --- | --- | --- |\n" + "\n".join(rows),
    )


def _checklist() -> str:
    return _page(
        "Checklist",
        "`k2 demo check` computes all of it and says GO or NO-GO; nothing is ticked by hand.",
        "\n".join(
            (
                "* every process serves",
                f"* no process was started again in the last {STABLE_S / 60:.0f} minutes",
                "* the level is NORMAL",
                "* trades arrive",
                "* an hour of history of every symbol",
                "* no trade id is missing",
                f"* the newest trades in less than {P99_TARGET_MS:.0f} ms (p99)",
                "* every address of this stack answers",
                "* backup materials are there (a warning, no NO-GO)",
            )
        ),
        "Addresses to open, in this order: Jupyter 8888, Grafana 3000, Prometheus 9090, the API's"
        " `/docs` and the status page on 8000. `make test-e2e-health` says which of them are part"
        " of the stack. An object store's console (9001) comes with scale-out.",
    )


def _questions() -> str:
    return _page("Questions and answers", *(f"**{asked}** {said}" for asked, said in QUESTIONS))


def _opening_and_closing() -> str:
    return _page(
        "Opening and closing words",
        *(
            f"## {part.title}\n\n" + "\n".join(f"> {line}" for line in WORDS[part.name].say)
            for part in (OPENING, CLOSING)
        ),
    )


def _page(title: str, *parts: str) -> str:
    return f"# {title}\n\n" + "\n\n".join(parts) + "\n"


def _date(run: Mapping[str, Any]) -> str:
    return str(run.get("made_at", "no date"))


def _addressed(show: str) -> str:
    """Put the default address of each page into a line."""
    for page in PAGES:
        show = show.replace(f"{{{page.name}}}", f"http://localhost:{page.port}")
    return show


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|")
