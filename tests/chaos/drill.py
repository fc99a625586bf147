"""The drill: a lake is backed up under load, destroyed, restored beside its tape, and goes on.

    python -m tests.chaos.drill --rate 500

checks, after `k2 restore --keep-tape`:

* `k2 verify` exits 0;
* every id the feed had acknowledged before the end is in the lake, once, from the first on;
* what is missing lies in holes that begin after it: the time while nothing ran;
* a snapshot of the backup answers with the same rows as before.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import k2client
from tests.chaos.account import (
    SYMBOLS,
    acknowledged,
    committed_ids,
    holes_of,
    settle,
    wrong_ids,
)
from tests.chaos.command import asked, in_a_folder
from tests.chaos.stack import BRISK, Stack, until
from tests.chaos.travel import fingerprint


def backed_up(stack: Stack, folder: Path) -> dict[str, Any]:
    """Back up a running stack twice, with commits between; what is there to be lost after that."""
    with k2client.connect(str(stack.addresses["control"])) as k2:
        until(lambda: len(k2.snapshots()) >= 3, "two commits of rows")
        first = stack.json("backup", str(folder))
        commits = len(k2.snapshots())
        until(lambda: len(k2.snapshots()) > commits, "another commit")
        second = stack.json("backup", str(folder))
        snapshot_id = int(first["tables"][0]["snapshot_id"])
        rows = fingerprint(k2.trades(None, as_of=snapshot_id))
        commits = len(k2.snapshots())
        until(lambda: len(k2.snapshots()) > commits, "a commit after the backup")
        return {
            "first": first,
            "second": second,
            "snapshot_id": snapshot_id,
            "fingerprint": rows,
            "acknowledged": acknowledged(k2),
        }


def run(folder: Path, rate: float) -> dict[str, Any]:
    """The drill in a folder of its own; what it found."""
    data_dir, backup = folder / "k2", folder / "backup"
    options = ("--venue", "synthetic", "--rate", str(rate))
    with Stack(data_dir, *options, environment=BRISK) as stack:
        known = backed_up(stack, backup)
    shutil.rmtree(data_dir / "lake")
    restored = stack.json("restore", str(backup), "--keep-tape")
    faults = []
    with Stack(data_dir, *options, environment=BRISK) as stack:
        verified = settle(stack)
        if verified["exit"] != 0:
            faults.append(f"k2 verify exits {verified['exit']}")
        for symbol in SYMBOLS:
            ids, holes = committed_ids(stack, symbol), holes_of(verified["document"], symbol)
            faults += wrong_ids(symbol, ids, known["acknowledged"][symbol], holes)
        with k2client.connect(str(stack.addresses["control"])) as k2:
            same = fingerprint(k2.trades(None, as_of=known["snapshot_id"])) == known["fingerprint"]
    if not same:
        faults.append("a snapshot of the backup answers differently")
    first, second = known["first"], known["second"]
    return {
        "rows_of_snapshot": known["fingerprint"][0],
        "backup_bytes": second["bytes"],
        "copied_first": first["copied_bytes"],
        "copied_second": second["copied_bytes"],
        "restored_files": restored["files"],
        "restored_positions": restored["tables"][0]["positions"],
        "verified": verified["document"].get("message"),
        "faults": faults,
    }


def main() -> int:
    """The command."""
    arguments = asked(__doc__, rate=500.0)
    return in_a_folder(lambda folder: run(folder, arguments.rate))


if __name__ == "__main__":
    raise SystemExit(main())
