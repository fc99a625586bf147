"""Writes the OpenAPI document of the HTTP edge: `python -m scripts.openapi`.

`clients/typescript/openapi.json` is committed; the types of the status page are made from it. A
test writes it again and compares.
"""

from __future__ import annotations

import json
from pathlib import Path

from k2.clock import SystemClock
from servers.edge.app import document, make_app
from servers.edge.parts import EdgeParts

FILE = Path(__file__).parents[1] / "clients/typescript/openapi.json"
_NOWHERE = "127.0.0.1:1"  # nothing is sent


def text() -> str:
    """Write the document of the application."""
    parts = EdgeParts.of(_NOWHERE, SystemClock())
    made = document(make_app(parts))
    parts.close()
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
    print(FILE.name)
