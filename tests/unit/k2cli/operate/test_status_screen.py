"""Frames of `k2 status --watch`: bars and rates on any width, plain text without a terminal."""

import datetime as dt
import io
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from k2cli.operate import status_screen
from k2cli.operate.status_screen import StatusFrame, lines
from k2client import records

NOW = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
LAKE = records.ProcessDegradation(
    "lake",
    "SERVING",
    "SOFT",
    (
        records.Pressure("writer_lag_s", 61.5, 0.6, injected=True),
        records.Pressure("rss_bytes", 1e9, 0.25, injected=False),
        records.Pressure("disk_free_bytes", None, 0.1, injected=False),
        records.Pressure("tail_bytes", 0.0, 0.05, injected=False),
    ),
    NOW,
)
OVERRIDE = records.Override("SOFT", "a rehearsal", NOW, NOW)
DEGRADATION = records.Degradation("SOFT", "less", OVERRIDE, True, True, (LAKE,), NOW)
SNAPSHOT = records.Snapshot(
    7, None, NOW, records.OffsetVector(0, (1,)), (), 12345, 678, 1, 1, "append", "w", "c", "t", "k"
)
DOCUMENT = {
    "state": "RUNNING",
    "source": "simulated",
    "venue": "synthetic",
    "processes": [
        {"name": "broker", "state": "SERVING", "level": None, "restarts": 0},
        {"name": "lake", "state": "SERVING", "level": "SOFT", "restarts": 2},
    ],
}
FRAME = StatusFrame(DOCUMENT, DEGRADATION, 1000, (2.0, 100.0), [SNAPSHOT], 10.0)
LATER = replace(FRAME, trades=1250, freshness=(4.5, 200.0), at_s=12.0)


def texts(frame=LATER, before=FRAME, width=120, encoding="utf-8"):
    return [line.plain.rstrip() for line in lines(frame, before, width, encoding)]


def test_a_wide_terminal_shows_a_process_and_its_pressures_side_by_side():
    assert texts() == [
        "RUNNING · simulated trades from synthetic",
        "level SOFT: less · OVERRIDE SOFT until 2026-01-31 00:00:00.000Z: a rehearsal"
        " · INJECTED pressure · SHADOW: published and not obeyed",
        "broker     SERVING   -",
        "lake       SERVING   SOFT restarts 2 ██████████░░░░░░ 0.60 writer_lag_s 61.5 injected",
        " " * 36 + "████░░░░░░░░░░░░ 0.25 rss_bytes 1,000,000,000",
        " " * 36 + "██░░░░░░░░░░░░░░ 0.10 disk_free_bytes -",
        "trades/s 125 · writer lag 61.5 s · freshness 25 ms on average",
        "commit 2026-01-31 00:00:00.000Z  +678 rows  12,345 in all",
    ]


def test_a_narrow_terminal_shows_each_pressure_on_its_line():
    shown = texts(width=40)
    assert shown[3:5] == [
        "lake       SERVING   SOFT restarts 2",
        "  █████░░░ 0.60 writer_lag_s 61.5 injected",
    ]


def test_an_encoding_without_blocks_is_no_failure():
    assert all(line.isascii() for line in texts(encoding="ascii"))


def test_without_a_control_plane_the_supervisor_still_tells():
    down = StatusFrame(DOCUMENT, None, None, None, [], 1.0)
    assert texts(down, None) == [
        "RUNNING · simulated trades from synthetic",
        "level not known: the control plane does not answer",
        "broker     SERVING   -",
        "lake       SERVING   SOFT restarts 2",
        "trades/s - · writer lag - s",
    ]


@pytest.mark.parametrize(
    "later",
    [replace(LATER, trades=7), replace(LATER, trades=None), replace(LATER, at_s=FRAME.at_s)],
)
def test_a_rate_that_is_not_known_is_none(later):
    assert "trades/s -" in "".join(texts(later))


def test_a_freshness_without_new_rows_is_left_out():
    assert "freshness" not in "".join(texts(FRAME))
    assert "freshness" not in "".join(texts(before=replace(FRAME, freshness=None)))


def test_a_calm_process_shows_its_highest_pressure_alone():
    calm = tuple(replace(one, pressure=0.0, injected=False) for one in LAKE.pressures)
    frame = replace(
        FRAME, degradation=replace(DEGRADATION, processes=(replace(LAKE, pressures=calm),))
    )
    assert sum(" 0.00 " in line for line in texts(frame)) == 1


class Ended(Exception):
    """Ctrl-C."""


def frames(*made):
    given = iter(made)

    def read():
        try:
            return next(given)
        except StopIteration:
            raise Ended from None

    return read


def test_without_a_terminal_each_frame_is_plain_text(capsys):
    with pytest.raises(Ended):
        status_screen.watch(frames(FRAME, LATER), 0.0)
    said = capsys.readouterr().out
    assert said.count("RUNNING") == 2
    assert "trades/s -" in said
    assert "trades/s 125" in said
    assert "\x1b" not in said


def test_a_terminal_is_drawn_over_and_left_as_it_was(monkeypatch):
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(Ended):
        status_screen.watch(frames(FRAME, LATER), 0.0)
    said = terminal.getvalue()
    assert "trades/s 125" in said
    assert said.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


@pytest.fixture
def exported():
    """A process's metrics, over HTTP: a list of lines, and the address."""
    shown = []

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write("\n".join(shown).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield shown, f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_freshness_is_read_from_the_metrics_of_a_process(exported):
    shown, address = exported
    assert status_screen.freshness_at(address) is None
    shown += ["# HELP k2_freshness_seconds x", "k2_freshness_seconds_sum 2.5"]
    shown.append("k2_freshness_seconds_count 5.0")
    assert status_screen.freshness_at(address) == (2.5, 5.0)
    assert status_screen.freshness_at("127.0.0.1:1") is None
