"""Time travel: an older snapshot answers with the same rows many commits later.

    python -m tests.chaos.travel --commits 100

hashes all rows of a snapshot as Flight streams them, in canonical order, lets the writer commit,
and hashes them again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import k2client
from tests.chaos.stack import Stack, until


def fingerprint(k2: k2client.Client, snapshot_id: int) -> tuple[int, str]:
    """Rows of a snapshot, and a hash of every value of every column in order."""
    rows = k2.trades([], as_of=snapshot_id).to_arrow()
    digest = hashlib.sha256()
    for row in rows.to_pylist():
        digest.update(repr(row).encode())
    return len(rows), digest.hexdigest()


def run(stack: Stack, commits: int) -> dict[str, object]:
    """Fingerprints of one snapshot, `commits` apart."""
    with k2client.connect(str(stack.addresses["control"])) as k2:
        until(lambda: len(k2.snapshots()) >= 3, "three snapshots")
        chosen = k2.snapshots()[0]
        before = fingerprint(k2, chosen.snapshot_id)

        def later() -> int:
            ids = [snapshot.snapshot_id for snapshot in k2.snapshots()]
            return ids.index(chosen.snapshot_id)

        until(lambda: later() >= commits, f"{commits} commits", timeout_s=30 + 3 * commits)
        passed, after = later(), fingerprint(k2, chosen.snapshot_id)
    return {
        "snapshot_id": str(chosen.snapshot_id),
        "commits_later": passed,
        "rows": before[0],
        "equal": before == after,
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = ("--venue", "synthetic", "--rate", "200")
        environment = {"K2_LAKE__COMMIT_INTERVAL_S": "0.5"}
        with Stack(Path(folder), *options, environment=environment) as stack:
            report = run(stack, arguments.commits)
    print(json.dumps(report, indent=2))
    return 0 if report["equal"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
