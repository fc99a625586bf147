"""Finds the files that K2 reads at run time and keeps outside its packages.

In a checkout they lie where people look for them; a wheel holds them in `k2/shipped/`
(pyproject.toml, force-include).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_CHECKOUT: Final = Path(__file__).parents[1]
_IN_WHEEL: Final = Path(__file__).parent / "shipped"


def shipped_file(name: str) -> Path:
    """Return where a file or folder of the repository is, by its path from the root."""
    return (_IN_WHEEL if _IN_WHEEL.exists() else _CHECKOUT) / name
