"""A machine is lost: its backup is restored elsewhere, where the tape is another, empty one.

    python -m tests.chaos.moved --rate 200

checks that `k2 up` refuses the new broker by name, that `k2 tape new-epoch` is the way out, that
new rows come after it with each id once, that `k2 verify` exits 0, and that a snapshot of the
backup answers with the same rows.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import k2client
from tests.chaos.account import SYMBOLS, committed_ids, doubled
from tests.chaos.command import asked, in_a_folder
from tests.chaos.stack import ENVIRONMENT, Stack, until
from tests.chaos.travel import fingerprint


def refusal(data_dir: Path, *options: str) -> str:
    """Why a stack does not start; nothing where it does."""
    try:
        with Stack(data_dir, *options, environment=ENVIRONMENT):
            return ""
    except AssertionError as error:
        return str(error)


def run(folder: Path, rate: float) -> dict[str, Any]:
    """Back up, lose the machine, restore elsewhere, go on; what was wrong."""
    here, elsewhere, backup = folder / "k2", folder / "elsewhere", folder / "backup"
    options = ("--venue", "synthetic", "--rate", str(rate))
    with (
        Stack(here, *options, environment=ENVIRONMENT) as stack,
        k2client.connect(str(stack.addresses["control"])) as k2,
    ):
        until(lambda: len(k2.snapshots()) >= 3, "two commits of rows")
        tables = {one["name"]: one for one in stack.json("backup", str(backup))["tables"]}
        snapshot_id = int(tables["market.trades"]["snapshot_id"])
        before = fingerprint(k2.trades(None, as_of=snapshot_id))
    shutil.rmtree(here)
    stack = Stack(elsewhere, *options, environment=ENVIRONMENT)
    stack.json("restore", str(backup))
    refused = refusal(elsewhere, *options)
    faults = [
        f"the refusal does not say {words}"
        for words in ("CLUSTER_CHANGED", "k2 tape new-epoch")
        if words not in refused
    ]
    stack.k2("tape", "new-epoch", "--yes")
    with stack, k2client.connect(str(stack.addresses["control"])) as k2:
        restored = before[0]
        until(lambda: k2.snapshots()[0].rows_total > restored, "new rows are committed")
        if fingerprint(k2.trades(None, as_of=snapshot_id)) != before:
            faults.append("a snapshot of the backup answers differently")
        for symbol in SYMBOLS:
            ids = committed_ids(stack, symbol)
            faults += doubled(symbol, ids) if ids else [f"{symbol}: no rows"]
        verified = stack.k2("verify", "--json", check=False)
        rows = k2.snapshots()[0].rows_total
    if verified.returncode != 0:
        faults.append(f"k2 verify exits {verified.returncode}: {verified.stderr}")
    message = json.loads(verified.stdout or "{}").get("message")
    return {"rows_restored": restored, "rows": rows, "verified": message, "faults": faults}


def main() -> int:
    """The command."""
    arguments = asked(__doc__, rate=200.0)
    return in_a_folder(lambda folder: run(folder, arguments.rate))


if __name__ == "__main__":
    raise SystemExit(main())
