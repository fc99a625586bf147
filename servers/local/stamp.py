"""Stamps a data directory with what it holds: live, recorded or simulated rows, never mixed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from k2.errors import Data, Invalid, Reason
from k2.settings import Settings
from servers.local.stack_options import absolute

AUTO = "auto"
LIVE = "live"
SYNTHETIC = "synthetic"
RECORDING = "recording:"
LAYOUT_VERSION = 1  # of data directories made now: `layout.py`


@dataclass(frozen=True)
class Stamp:
    """The purpose of a data directory.

    Attributes:
        source: live, recorded or simulated.
        venue: live, synthetic or recording:PATH, of its first start.
        exchange: of its first start.
        version: of the directory's layout; 0 where the stamp does not say.
    """

    source: str
    venue: str
    exchange: str
    version: int = LAYOUT_VERSION


def read_stamp(path: Path) -> Stamp | None:
    """Read the stamp in a file; None where there is none.

    Raises:
        Data: STAMP_MISMATCH when it cannot be understood.
    """
    try:
        content = json.loads(path.read_text())
        source, venue, exchange = (str(content[name]) for name in ("source", "venue", "exchange"))
        return Stamp(source, venue, exchange, int(content.get("version", 0)))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Data(
            Reason.STAMP_MISMATCH,
            f"{path} does not say what this data directory holds: restore it, or take another "
            "--data-dir",
        ) from error


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Write it whole, and so that it outlives a loss of power."""
    scratch = path.with_suffix(".new")
    with scratch.open("w") as file:
        file.write(json.dumps(asdict(stamp)) + "\n")
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)


def choose_venue(wanted: str, stamp: Stamp | None, live_answers: Callable[[], bool]) -> str:
    """Choose the venue to listen to: live, synthetic or recording:PATH with an absolute path.

    `auto` is what the data directory was made for; for a new one, live if it answers, else the
    practice venue.

    Raises:
        Invalid: BAD_SETTING when it is none of those, or there is no such recording.
    """
    if wanted == AUTO:
        if stamp is not None:
            return choose_venue(stamp.venue, stamp, live_answers)
        return LIVE if live_answers() else SYNTHETIC
    if wanted in (LIVE, SYNTHETIC):
        return wanted
    if not wanted.startswith(RECORDING) or wanted == RECORDING:
        raise Invalid(
            Reason.BAD_SETTING,
            f"the venue {wanted!r} is not auto, live, synthetic or recording:PATH",
        )
    path = absolute(wanted.removeprefix(RECORDING), "K2_FEED__VENUE")
    if not path.is_file():
        raise Invalid(Reason.BAD_SETTING, f"there is no recording at {path}")
    return f"{RECORDING}{path}"


def source_of(venue: str) -> str:
    """Return what the rows of a venue are: live, recorded or simulated."""
    if venue.startswith(RECORDING):
        return "recorded"
    return "live" if venue == LIVE else "simulated"


def source_in(settings: Settings) -> str:
    """Return what the rows of a data directory are, by its stamp, else by the settings."""
    try:
        return str(json.loads((settings.data_dir / "stamp.json").read_text())["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return settings.feed.source


def check(stamp: Stamp | None, venue: str, data_dir: Path) -> None:
    """Refuse to mix.

    Raises:
        Data: STAMP_MISMATCH when the directory holds other rows than the venue gives.
    """
    if stamp is not None and stamp.source != source_of(venue):
        raise Data(
            Reason.STAMP_MISMATCH,
            f"{data_dir} holds {stamp.source} data (it was made with --venue {stamp.venue}); "
            f"--venue {venue} gives {source_of(venue)} data: take another --data-dir",
            metadata={"stamp": stamp.source, "asked": source_of(venue)},
        )
