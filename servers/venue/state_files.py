"""The state of a practice venue between its runs: small JSON documents, replaced as a whole.

`segments.json` makes a synthetic market go on with contiguous ids, `position.json` makes a
recording go on where it stood.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from k2.errors import Data, K2Error, Reason, Unavailable, error_of
from servers.venue.market.synthetic_market import Segment


def read_document(path: Path) -> dict[str, Any] | None:
    """Read a document as it was last written; None when it never was.

    Raises:
        Data: STAMP_MISMATCH when the file holds something else.
        Unavailable: VENUE_UNAVAILABLE when it cannot be read.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(
            Reason.VENUE_UNAVAILABLE, f"{path} cannot be read: {error.strerror}"
        ) from error
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(document, dict):
        raise _damaged(path, TypeError("not an object"))
    return document


def write_document(path: Path, document: Mapping[str, Any], *, durable: bool) -> None:
    """Replace a document: a reader, or the next run, finds the old or the new one, never half.

    Args:
        path: in a folder that is made when it is missing.
        document: JSON values.
        durable: whether it must survive a loss of power, too.

    Raises:
        Overloaded: DISK_FULL, or NOT_WRITABLE.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump(document, file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        reason = Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.NOT_WRITABLE
        raise error_of(reason, f"{path} cannot be written: {error.strerror}") from error


def read_segments(path: Path, seed: int) -> tuple[Segment, ...]:
    """Read the segments of a market; none when it was never opened.

    Raises:
        Data: STAMP_MISMATCH when the file is damaged, or of a market of another seed.
    """
    document = read_document(path)
    if document is None:
        return ()
    try:
        kept_seed = int(document["seed"])
        segments = tuple(
            Segment(
                from_time_us=int(entry["from_time_us"]),
                from_id={str(symbol): int(first) for symbol, first in entry["from_id"].items()},
                quota={str(symbol): int(quota) for symbol, quota in entry["quota"].items()},
            )
            for entry in document["segments"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error
    if not segments or any(entry.quota.keys() != entry.from_id.keys() for entry in segments):
        raise _damaged(path, ValueError("a segment lacks its ids"))
    if kept_seed != seed:
        raise Data(
            Reason.STAMP_MISMATCH,
            f"{path} belongs to the market of seed {kept_seed}, not {seed}:"
            " use that seed or another data directory",
        )
    return segments


def write_segments(path: Path, seed: int, segments: Sequence[Segment]) -> None:
    """Keep the segments of a market, durably."""
    entries = [
        {
            "from_time_us": segment.from_time_us,
            "from_id": dict(segment.from_id),
            "quota": dict(segment.quota),
        }
        for segment in segments
    ]
    write_document(path, {"seed": seed, "segments": entries}, durable=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path, error: Exception) -> K2Error:
    return Data(Reason.STAMP_MISMATCH, f"{path} is damaged ({error}): restore it or start anew")
