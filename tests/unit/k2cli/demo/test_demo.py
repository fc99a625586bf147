"""The plan, the evidence, the words and the pages of a demonstration; no stack runs."""

import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from k2cli.demo import demo_card, materials
from k2cli.demo.agenda import (
    QUICK_S,
    SECTIONS,
    TARGET_S,
    clock_line,
    due,
    minutes,
    slots,
)
from k2cli.demo.drill import _is_loopback, opened_copy
from k2cli.demo.evidence import ABSENT, KEPT, MISSED, Evidence, frame_of, latency
from k2cli.demo.overload_walk import Walk
from k2cli.demo.presenter import Performance, Presenter, draw_checklist, keep, summary
from k2cli.demo.screenshots import take
from k2cli.demo.service_proofs import PROOFS, minute_averages
from k2cli.demo.spoken import QUESTIONS, WORDS
from k2cli.demo.stage.readiness import Item
from k2cli.operate.fetching import NotServed
from k2client.errors import Invalid, Unavailable
from k2client.stack import Stack

REPOSITORY = Path(__file__).parents[4]


# --- the plan -------------------------------------------------------------------------------------


def test_the_parts_fill_twelve_minutes_and_five():
    assert slots(quick=False)[-1].ends_s == TARGET_S
    assert slots(quick=True)[-1].ends_s == QUICK_S
    assert [slot.part.number for slot in slots(quick=True)] == list(range(9))


def test_parts_follow_one_another():
    planned = slots(quick=False)
    assert planned[0].begins_s == 0
    assert all(one.ends_s == next_.begins_s for one, next_ in pairwise(planned))


def test_one_section_alone():
    (only,) = slots(quick=False, section=3)
    assert (only.part.name, only.begins_s) == ("storage", 0)
    with pytest.raises(ValueError, match="1 to 7"):
        slots(quick=False, section=9)


def test_the_clock_says_how_late_it_is():
    slot = slots(quick=False)[2]
    assert clock_line(slot, slot.begins_s, 720) == "1:10 of 12:00, on time"
    assert clock_line(slot, slot.begins_s + 30, 720) == "1:40 of 12:00, 30 s behind"
    assert clock_line(slot, slot.begins_s - 10, 720) == "1:00 of 12:00, 10 s ahead"
    assert minutes(61) == "1:01"


def test_twelve_minutes_and_five_have_their_tolerance():
    assert due(quick=False) == (720, 60)
    assert due(quick=True) == (300, 30)


# --- evidence -------------------------------------------------------------------------------------


def test_the_p99_is_a_call_that_was_made():
    found = latency([float(each) for each in range(1, 201)])
    assert (found.p50_ms, found.p99_ms, found.n) == (100, 198, 200)
    assert latency([7.0]).p99_ms == 7.0
    with pytest.raises(ValueError, match="no call"):
        latency([])


def test_a_claim_is_kept_missed_or_absent():
    evidence = Evidence()
    evidence.judge("a", "1", True, "x")
    evidence.judge("b", "2", False, "x")
    evidence.absent("c", "why", "x")
    evidence.show("d", "3", "x")
    assert [claim.verdict for claim in evidence.claims] == [KEPT, MISSED, ABSENT, "shown"]


def test_the_raw_frame_is_the_venues():
    trade = {"symbol": "BTCUSDT", "trade_id": 7, "price": "1.50000000", "quantity": "2.00000000",
             "side": "SELL"}  # fmt: skip
    frame = json.loads(frame_of(trade, 1_600_000_000_000_001))
    assert frame["stream"] == "btcusdt@trade"
    assert frame["data"] == {
        "e": "trade", "E": 1_600_000_000_000_001, "s": "BTCUSDT", "t": 7, "p": "1.50000000",
        "q": "2.00000000", "T": 1_600_000_000_000_001, "m": True, "M": True,
    }  # fmt: skip


def test_a_fall_of_two_levels_is_no_single_step():
    assert Walk(
        steps_down=[("CIRCUIT_BREAK", "AGGRESSIVE"), ("AGGRESSIVE", "GRACEFUL")]
    ).by_single_steps
    assert not Walk(steps_down=[("CIRCUIT_BREAK", "GRACEFUL")]).by_single_steps


def test_the_average_of_a_minute_is_exact_and_rounded_once():
    def trade(second, price, quantity):
        moment = datetime(2026, 1, 1, 12, second // 60, second % 60, 7, UTC)
        return {"event_time": moment, "price": Decimal(price), "quantity": Decimal(quantity)}

    trades = [trade(0, "1", "1"), trade(59, "2", "2"), trade(60, "99999.00000001", "1e-8")]
    assert minute_averages(trades) == {
        datetime(2026, 1, 1, 12, 0, tzinfo=UTC): Decimal("1.66666667"),
        datetime(2026, 1, 1, 12, 1, tzinfo=UTC): Decimal("99999.00000001"),
    }


# --- performing -----------------------------------------------------------------------------------


def fake_demo(tmp_path):
    return SimpleNamespace(
        described=Stack(tmp_path, True, {"processes": []}), source="simulated", directory=tmp_path
    )


def performed(tmp_path, proofs):
    drawn = io.StringIO()
    screen = Console(file=drawn, width=118)
    presenter = Presenter(fake_demo(tmp_path), quick=True, wait=False, screen=screen, proofs=proofs)
    return presenter.perform(slots(quick=True)), drawn.getvalue()


def works(demo, evidence, quick):
    """Measure something."""
    evidence.judge("it works", "42 a second", True, "k2 status")
    evidence.judge("it is fast", "900 ms", False, "k2 status")


def fails(demo, evidence, quick):
    """Measure what does not answer."""
    raise Unavailable("PEER_UNAVAILABLE", "gone")


def breaks(demo, evidence, quick):
    """Measure what has another form."""
    raise NotServed("no rows")


def test_every_part_is_performed_whatever_fails(tmp_path):
    done, drawn = performed(tmp_path, {"streaming": (works, fails, breaks)})
    assert list(done.evidence) == [slot.part.name for slot in slots(quick=True)]
    assert done.failures == [
        "Measure what does not answer. PEER_UNAVAILABLE: gone",
        "Measure what has another form. NotServed: no rows",
    ]
    assert "SIMULATED DATA" in drawn
    assert "42 a second" in drawn
    assert "NOT MEASURED" in drawn
    elsewhere = "http://127.0.0.1:8000/" in drawn  # a K2 of this machine, on the usual port
    assert "edge not part of this stack" in drawn or elsewhere
    said = summary(done, waited=False, whole=True)
    assert said[0].startswith("1 claims kept, 1 missed, 0 about")
    assert said[1] == "missed: it is fast: 900 ms"


def test_a_part_is_held_until_its_time(tmp_path):
    screen = Console(file=io.StringIO(), width=118)
    presenter = Presenter(fake_demo(tmp_path), quick=True, wait=True, screen=screen, proofs={})
    (first, *_) = slots(quick=True)
    assert presenter.perform([replace(first, ends_s=0.1)]).took_s >= 0.1


def test_a_whole_run_says_whether_it_kept_its_time():
    done = Performance(quick=False, took_s=800.0)
    assert summary(done, waited=True, whole=True)[-1].endswith("missed")
    done.took_s = 700.0
    assert summary(done, waited=True, whole=True)[-1].endswith("kept")


def test_every_section_has_words_and_proofs():
    for section in SECTIONS:
        assert WORDS[section.name].say
        assert PROOFS[section.name], section.name
    assert len(QUESTIONS) >= 8


def test_the_words_hold_no_figure():
    """Figures are measured; a figure in the words would be a claim nothing checks."""
    for words in WORDS.values():
        for sentence in words.say:
            assert not re.search(r"\d", sentence.replace("K2", "")), sentence


def test_the_checklist_is_one_line_an_item():
    lines = []
    items = [
        Item("a", True, "fine"),
        Item("b", False, "bad", "do this"),
        Item("c", False, "no", required=False),
    ]
    assert draw_checklist(items, lines.append) == "NO-GO"
    assert lines == ["ok      a  fine", "FAILED  b  bad  → do this", "warn    c  no", "NO-GO"]
    assert draw_checklist(items[::2], lines.append) == "GO"


# --- pages and materials --------------------------------------------------------------------------


def test_the_pages_show_the_figures_of_a_run(tmp_path):
    done, _ = performed(tmp_path, {"streaming": (works,)})
    kept = keep(done, tmp_path, "simulated")
    run = json.loads(kept.read_text())
    pages = demo_card.pages(run)
    assert "| it works | 42 a second | kept | `k2 status` |" in pages["key-figures.md"]
    assert run["made_at"] in pages["key-figures.md"]
    assert "simulated trades" in pages["key-figures.md"]
    assert all(section.title in pages["quick-reference.md"] for section in SECTIONS)
    assert ElementTree.fromstring(pages["positioning.svg"]).tag.endswith("svg")
    written = demo_card.write(run, tmp_path / "card")
    assert {path.name for path in written} == set(pages)


def test_the_committed_pages_are_there():
    assert {path.name for path in (REPOSITORY / "docs/demo").iterdir()} >= set(demo_card.pages({}))


def test_a_notebook_with_outputs_needs_no_kernel(tmp_path):
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [{"outputs": []}]}))
    assert not materials.has_outputs(path)
    path.write_text(json.dumps({"cells": [{"outputs": [{"text": "1"}]}]}))
    assert materials.has_outputs(path)
    assert not materials.has_outputs(tmp_path / "missing.ipynb")


def test_an_executed_copy_is_asked_of_jupyter_with_its_token():
    asked = opened_copy("http://127.0.0.1:8888/?token=t", "a.ipynb")
    assert asked == "http://127.0.0.1:8888/api/contents/executed/a.ipynb?token=t"


def test_loopback_is_known_in_every_form():
    assert all(map(_is_loopback, ("127.0.0.1:1", "http://127.0.0.1:1/x", "localhost:1", "[::1]:1")))
    assert not _is_loopback("https://example.org:1")
    assert not _is_loopback("10.0.0.1:9092")


def test_screenshots_without_a_browser_say_what_they_need(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Invalid, match="screenshots need"):
        list(take("http://127.0.0.1:1", tmp_path))


def test_screenshots_need_an_edge(k2, tmp_path):
    done = k2("demo", "screenshots", "--data-dir", tmp_path)
    assert done.code == 1
    assert "no edge runs" in done.stderr


def test_the_card_needs_a_run(k2, tmp_path):
    done = k2("demo", "card", "--data-dir", tmp_path)
    assert done.code == 1
    assert "no demonstration was performed" in done.stderr


def test_without_a_stack_the_checklist_is_no_go(k2, tmp_path):
    done = k2("demo", "check", "--json", "--data-dir", tmp_path)
    assert (done.code, done.json["decision"]) == (1, "NO-GO")
    assert k2("demo", "--data-dir", tmp_path).code == 1
