"""A machine is lost: its backup is restored elsewhere, where the tape is another, empty one.

    python -m tests.chaos.moved --rate 200

checks that `k2 up` refuses the new broker by name, that `k2 tape new-epoch` is the way out, that
new rows come after it with each id once, that `k2 verify` exits 0, and that a snapshot of the
backup answers with the same rows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import k2client
from tests.chaos.kills import committed
from tests.chaos.load import ENVIRONMENT, SYMBOLS
from tests.chaos.stack import Stack, until
from tests.chaos.travel import fingerprint


def refusal(data_dir: Path, *options: str) -> str:
    """Why a stack does not start; nothing where it does."""
    try:
        with Stack(data_dir, *options, environment=ENVIRONMENT):
            return ""
    except AssertionError as error:
        return str(error)


def doubled(symbol: str, ids: list[int]) -> list[str]:
    """What is wrong with a symbol's ids."""
    return (
        []
        if len(ids) == len(set(ids)) > 0
        else [f"{symbol}: {len(ids)} rows of {len(set(ids))} ids"]
    )


def run(folder: Path, rate: float) -> dict[str, Any]:
    """Back up, lose the machine, restore elsewhere, go on; what was wrong."""
    here, elsewhere, backup = folder / "k2", folder / "elsewhere", folder / "backup"
    options = ("--venue", "synthetic", "--rate", str(rate))
    with (
        Stack(here, *options, environment=ENVIRONMENT) as stack,
        k2client.connect(str(stack.addresses["control"])) as k2,
    ):
        until(lambda: len(k2.snapshots()) >= 2, "two commits")
        tables = {one["name"]: one for one in stack.json("backup", str(backup))["tables"]}
        snapshot_id = int(tables["market.trades"]["snapshot_id"])
        before = fingerprint(k2.trades([], as_of=snapshot_id))
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
        if fingerprint(k2.trades([], as_of=snapshot_id)) != before:
            faults.append("a snapshot of the backup answers differently")
        for symbol in SYMBOLS:
            faults += doubled(symbol, committed(stack, symbol).column("trade_id").to_pylist())
        verified = stack.k2("verify", "--json", check=False)
        rows = k2.snapshots()[0].rows_total
    if verified.returncode != 0:
        faults.append(f"k2 verify exits {verified.returncode}: {verified.stderr}")
    message = json.loads(verified.stdout or "{}").get("message")
    return {"rows_restored": restored, "rows": rows, "verified": message, "faults": faults}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), arguments.rate)
    print(json.dumps(report, indent=2))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
