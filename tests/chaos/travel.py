"""Time travel: an older snapshot and a read token answer with the same rows many commits later.

    python -m tests.chaos.travel --commits 100

hashes all rows of a snapshot as Flight streams them, in canonical order, lets the writer commit,
and hashes them again. The same for the read token of an answer from lake and tail; that once more
when the snapshot it was pinned to is gone and the query server was killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path

import k2client
from tests.chaos.stack import Stack, until


def fingerprint(answer: k2client.Trades) -> tuple[int, str]:
    """Rows of an answer, and a hash of every value of every column in order."""
    rows = answer.to_arrow()
    digest = hashlib.sha256()
    for row in rows.to_pylist():
        digest.update(repr(row).encode())
    return len(rows), digest.hexdigest()


def run(stack: Stack, commits: int) -> dict[str, object]:
    """Fingerprints of one snapshot and of one token, `commits` apart."""
    with k2client.connect(str(stack.addresses["control"])) as k2:
        until(lambda: len(k2.snapshots()) >= 3, "three snapshots")
        chosen = k2.snapshots()[0].snapshot_id
        before = fingerprint(k2.trades([], as_of=chosen))
        union = k2.trades([])
        rows = fingerprint(union)

        def later() -> int:
            return [snapshot.snapshot_id for snapshot in k2.snapshots()].index(chosen)

        until(lambda: later() >= commits, f"{commits} commits", timeout_s=30 + 3 * commits)
        passed, after = later(), fingerprint(k2.trades([], as_of=chosen))
        again = fingerprint(k2.trades([], as_of=union.provenance.token))
    return {
        "snapshot_id": str(chosen),
        "commits_later": passed,
        "rows": before[0],
        "equal": before == after,
        "token": union.provenance.token,
        "token_snapshot_id": str(union.provenance.snapshot_id),
        "token_rows": rows,
        "token_rows_of_the_tail": union.provenance.rows_tail,
        "token_equal": rows == again,
    }


def outlived(stack: Stack, report: dict[str, object]) -> bool:
    """Whether the token answers the same without its snapshot, from another query server."""
    with k2client.connect(str(stack.addresses["control"])) as k2:

        def kept() -> bool:
            return report["token_snapshot_id"] in [str(one.snapshot_id) for one in k2.snapshots()]

        until(lambda: not kept(), "the expiry of the snapshot", timeout_s=600)
        stack.kill("query")
        again = k2.trades([], as_of=str(report["token"]), deadline_s=120)
        return fingerprint(again) == report["token_rows"]


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
            report["token_equal_without_its_snapshot"] = outlived(stack, report)
    print(json.dumps(report, indent=2))
    return 0 if all(value for name, value in report.items() if "equal" in name) else 1


if __name__ == "__main__":
    raise SystemExit(main())
