"""Reads the text of a metrics endpoint.

`prometheus_client` has a parser, but it belongs to the server: a client is installed without it.
"""

from __future__ import annotations

import re
from typing import Final

_SAMPLE: Final = re.compile(r"^([a-zA-Z_:][\w:]*)(\{[^}]*\})? (\S+)", re.MULTILINE)
_FAMILY: Final = re.compile(r"^# TYPE (k2_\w+) ", re.MULTILINE)
_FRESHNESS: Final = "k2_freshness_seconds"


def samples(text: str, name: str) -> dict[str, float]:
    """Read the samples of a metric, by their labels as written."""
    return {labels: float(value) for found, labels, value in _SAMPLE.findall(text) if found == name}


def families(text: str) -> set[str]:
    """List the metrics of K2 that are declared."""
    return set(_FAMILY.findall(text))


def freshness(text: str) -> tuple[float, float] | None:
    """Read the freshness of all rows together, seconds, and their number; None: not there."""
    total, count = samples(text, f"{_FRESHNESS}_sum"), samples(text, f"{_FRESHNESS}_count")
    return (sum(total.values()), sum(count.values())) if total and count else None
