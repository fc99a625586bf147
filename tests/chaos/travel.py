"""Time travel: an older snapshot and a read token answer with the same rows many commits later.

    python -m tests.chaos.travel --commits 100

hashes all rows of a snapshot as Flight streams them, in canonical order, lets the writer commit,
and hashes them again. The same for the read token of an answer from lake and tail; that once more
when the snapshot it was pinned to is gone and the query server was killed.
"""

from __future__ import annotations

import hashlib
from typing import Any

import k2client
from tests.chaos.command import asked, on_a_stack
from tests.chaos.stack import Stack, until

TOKENS = 3


def fingerprint(answer: k2client.Trades) -> tuple[int, str]:
    """Rows of an answer, and a hash of every value of every column in order."""
    rows = answer.to_arrow()
    digest = hashlib.sha256()
    for row in rows.to_pylist():
        digest.update(repr(row).encode())
    return len(rows), digest.hexdigest()


def run(stack: Stack, commits: int) -> dict[str, object]:
    """Fingerprints of one snapshot and of some tokens, `commits` apart."""
    with k2client.connect(str(stack.addresses["control"])) as k2:
        until(lambda: len(k2.snapshots()) >= 3, "three snapshots")
        chosen = k2.snapshots()[0].snapshot_id
        before = fingerprint(k2.trades(None, as_of=chosen))
        unions = [_union(k2) for _ in range(TOKENS)]

        def later() -> int:
            return [snapshot.snapshot_id for snapshot in k2.snapshots()].index(chosen)

        until(lambda: later() >= commits, f"{commits} commits", timeout_s=30 + 3 * commits)
        passed, after = later(), fingerprint(k2.trades(None, as_of=chosen))
        again = [fingerprint(k2.trades(None, as_of=str(one["token"]))) for one in unions]
    return {
        "snapshot_id": str(chosen),
        "commits_later": passed,
        "rows": before[0],
        "equal": before == after,
        "tokens": unions,
        "tokens_equal": [one["rows"] for one in unions] == again,
    }


def _union(k2: k2client.Client) -> dict[str, object]:
    """An answer from lake and tail: its token and fingerprint; then the next commit."""
    answer = k2.trades(None)
    rows, origin = fingerprint(answer), answer.provenance
    until(lambda: k2.snapshots(limit=1)[0].snapshot_id != origin.snapshot_id, "a commit")
    return {
        "token": origin.token,
        "snapshot_id": str(origin.snapshot_id),
        "rows": rows,
        "rows_of_the_tail": origin.rows_tail,
    }


def outlived(stack: Stack, unions: list[dict[str, object]]) -> bool:
    """Whether tokens answer the same without their snapshots, from another query server.

    As soon as one snapshot is gone: which of them stay longer is the lake's affair.
    """
    with k2client.connect(str(stack.addresses["control"])) as k2:

        def gone() -> bool:
            kept = {str(one.snapshot_id) for one in k2.snapshots()}
            return any(one["snapshot_id"] not in kept for one in unions)

        until(gone, "the expiry of a snapshot", timeout_s=600)
        stack.kill("query")
        return all(
            fingerprint(k2.trades(None, as_of=str(one["token"]), deadline_s=120)) == one["rows"]
            for one in unions
        )


def main() -> int:
    """The command."""
    arguments = asked(__doc__, commits=100)

    def travelled(stack: Stack) -> dict[str, Any]:
        report: dict[str, Any] = run(stack, arguments.commits)
        report["tokens_equal_without_a_snapshot"] = outlived(stack, report["tokens"])
        wrong = [name for name, value in report.items() if "equal" in name and not value]
        return report | {"faults": wrong}

    return on_a_stack(travelled, 200.0, {"K2_LAKE__COMMIT_INTERVAL_S": "0.5"})


if __name__ == "__main__":
    raise SystemExit(main())
