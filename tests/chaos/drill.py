"""The drill: a lake is backed up under load, destroyed, restored beside its tape, and goes on.

    python -m tests.chaos.drill --rate 500

checks, after `k2 restore --keep-tape` and a start with two feeds, each of which is killed:

* `k2 verify` exits 0;
* every id the feed had acknowledged before the end is in the lake, once, from the first on, though
  two feeds put it on the tape;
* what is missing lies in a hole that begins after it: the time while nothing ran; the death of
  either feed leaves none;
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
from tests.chaos.kills import kill_and_wait
from tests.chaos.stack import BRISK, Stack, until
from tests.chaos.travel import fingerprint
from tests.support.commanded import commanded

FEEDS = ("feed", "feed-2")  # of the stack's second life


def backed_up(stack: Stack, folder: Path) -> dict[str, Any]:
    """Back up a running stack twice, with commits between; what is there to be lost after that."""
    with k2client.connect(str(stack.addresses["control"])) as k2:
        until(lambda: len(k2.snapshots()) >= 3, "two commits of rows")
        until(lambda: _is_whole(stack), "what was lost before the drill is filled")
        first = stack.json("backup", str(folder))
        _await_commit(k2)
        _, second = commanded(stack.configured(), "backup", str(folder))
        snapshot_id = int(first["tables"][0]["snapshot_id"])
        rows = fingerprint(k2.trades(None, as_of=snapshot_id))
        _await_commit(k2)
        return {
            "first": first,
            "second": second,
            "snapshot_id": snapshot_id,
            "fingerprint": rows,
            "acknowledged": acknowledged(k2),
        }


def _is_whole(stack: Stack) -> bool:
    """Whether the lake holds every id from the first to the last."""
    held = [set(committed_ids(stack, symbol)) for symbol in SYMBOLS]
    return all(ids and len(ids) == max(ids) - min(ids) + 1 for ids in held)


def _await_commit(k2: k2client.Client) -> None:
    """Wait for another commit of trades."""

    def newest() -> int:
        return k2.snapshots(limit=1)[0].snapshot_id

    before = newest()
    until(lambda: newest() != before, "another commit")


def run(stack: Stack, backup: Path) -> dict[str, Any]:
    """The drill; what it found.

    Args:
        stack: a running one, over the synthetic market; it is stopped and started.
        backup: the folder of the backup, outside the stack's.
    """
    known = backed_up(stack, backup)
    stack.stop()
    shutil.rmtree(stack.data_dir / "lake")
    restored = stack.json("restore", str(backup), "--keep-tape")
    stack.start("--feeds", str(len(FEEDS)))
    with k2client.connect(str(stack.addresses["control"])) as k2:

        def goes_on() -> bool:
            now = acknowledged(k2)
            return all(now.get(one, -1) > known["acknowledged"][one] for one in SYMBOLS)

        until(goes_on, "trades of every symbol are acknowledged again")
        for name in FEEDS:
            kill_and_wait(stack, name)
        verified = settle(stack)
        same = fingerprint(k2.trades(None, as_of=known["snapshot_id"])) == known["fingerprint"]
    faults = _wrong(stack, known, verified)
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
        "duplicates": verified["document"].get("duplicate"),
        "verified": verified["document"].get("message"),
        "faults": faults,
    }


def _wrong(stack: Stack, known: dict[str, Any], verified: dict[str, Any]) -> list[str]:
    """What is wrong with the account of the stack's second life."""
    faults = []
    if verified["exit"] != 0:
        faults.append(f"k2 verify exits {verified['exit']}")
    for symbol in SYMBOLS:
        ids = committed_ids(stack, symbol)
        holes = holes_of(verified["document"], symbol)
        faults += wrong_ids(symbol, ids, known["acknowledged"][symbol], holes)
        if len(holes) > 1:
            faults.append(f"{symbol}: more than the time while nothing ran is missing: {holes}")
    return faults


def main() -> int:
    """The command."""
    arguments = asked(__doc__, rate=500.0)

    def drilled(folder: Path) -> dict[str, Any]:
        options = ("--venue", "synthetic", "--rate", str(arguments.rate))
        with Stack(folder / "k2", *options, environment=BRISK) as stack:
            return run(stack, folder / "backup")

    return in_a_folder(drilled)


if __name__ == "__main__":
    raise SystemExit(main())
