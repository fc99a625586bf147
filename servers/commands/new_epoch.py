"""`python -m servers new-epoch [--yes] [--force]`: recovers from a tape that does not fit the lake.

Ends the epoch of the tape that the lake is in, and those of the ops tables whose topics do not fit
them either; the next start of the lake's writer begins the next ones with the tape that it finds.
Needs the lake alone, and the data directory to itself. Without --yes it only shows what would
happen. Where nothing is known to be wrong, it asks for --force.

result     ended (now), awaiting (the next epoch), epoch, positions, snapshot_id, rows, reason,
           lost, message; the exit code is 0
"""

from __future__ import annotations

import json
import logging
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from k2.errors import Data, Invalid, Reason
from k2.lake.commit.committer import Store, TradeStore
from k2.lake.commit.event_files import OpsStore
from k2.lake.iceberg.catalog import Catalog, open_catalog
from k2.lake.iceberg.snapshot import LakeSnapshot
from k2.lake.iceberg.tables import OPS_LAYOUTS
from k2.lake.ingest.epoch_transition import end_epoch, newest
from k2.lake.ingest.tape_check import assert_fits
from k2.settings import Settings
from k2.tape.consumer import TapeReader
from k2.tape.topics import INCOMPATIBLE_TAPE, TapeAdmin, TopicDescription
from k2.tape.truncation_check import read_marks
from servers.local.stack_file import holding
from servers.local.stack_options import Arguments
from servers.probes import answers_tcp
from servers.runtime import Runtime

FORCED = "FORCED"
_TRADES: Store = TradeStore()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TapeFinding:
    """The verdict on a tape.

    Attributes:
        reason: why it does not fit the lake; None where nothing is known to be wrong.
        message: the same in words.
        lost: records that were never committed and are gone; None where that cannot be counted.
    """

    reason: Reason | None
    message: str
    lost: int | None = None


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """End the epoch, or show what that would do.

    Raises:
        Invalid: ALREADY_RUNNING while a stack runs; BAD_REQUEST when nothing is known to be wrong.
        Unavailable: LAKE_UNAVAILABLE.
        Overloaded: DISK_FULL.
    """
    parser = Arguments("new-epoch")
    parser.add_argument("--yes", action="store_true")
    parser.add_argument("--force", action="store_true")
    asked = parser.parse_args(argv)
    folder = settings.data_dir / "run"
    folder.mkdir(parents=True, exist_ok=True)
    with holding(folder, runtime.clock), closing(open_catalog(settings, runtime.clock)) as catalog:
        trades = newest(catalog, _TRADES)
        if trades is None or trades.epochs.ended:
            runtime.emit("result", **_nothing_to_do(trades))
            return 0
        with runtime.interruptible():  # a tape that is away is asked for long
            found = finding(settings, trades)
            wrong = _wrong_of_ops(settings, catalog, found)
        if found.reason is not None or asked.force:
            wrong[_TRADES] = found.reason or FORCED  # last: then all that was wrong has ended
        if asked.yes and not wrong:
            message = f"{found.message}; --force ends the epoch all the same"
            raise Invalid(Reason.BAD_REQUEST, message)
        ended = wrong if asked.yes or asked.force else {}
        for number, (store, why) in enumerate(ended.items()):
            end_epoch(catalog, runtime.clock, why, f"{runtime.run_id}-end-{number}", store)
        runtime.emit("result", **_document(trades, found, ended=_TRADES in ended))
    return 0


def finding(settings: Settings, head: LakeSnapshot) -> TapeFinding:
    """Say what is wrong with the tape: ask it where it answers, else read the last start's failure.

    Args:
        settings: where the tape is, if the caller says so.
        head: the lake's newest snapshot of trades.
    """
    facts = _tape_facts(settings, settings.tape.topic)
    if facts is None:
        return _last_failure(settings.data_dir)
    try:
        marks = partial(read_marks, partial(TapeReader.assigned, settings.tape))
        assert_fits(head, facts, head.positions.epoch, marks)
    except Data as error:
        return TapeFinding(error.reason, error.message, _overtaken(head, facts, error.reason))
    return TapeFinding(None, "the tape answers, and fits the lake")


def _wrong_of_ops(settings: Settings, catalog: Catalog, trades: TapeFinding) -> dict[Store, str]:
    """List the ops tables whose topics do not fit; a cluster decides for one that is silent."""
    wrong: dict[Store, str] = {}
    for topic, layout in OPS_LAYOUTS.items():
        store: Store = OpsStore(layout)
        head = newest(catalog, store)
        if head is None or head.epochs.ended:
            continue
        facts = _tape_facts(settings, topic)
        if facts is None and trades.reason is Reason.CLUSTER_CHANGED:
            wrong[store] = trades.reason
        elif facts is not None:
            try:
                rules = layout.rules
                assert_fits(head, facts, head.positions.epoch, lambda _: {}, rules)
            except Data as error:
                wrong[store] = error.reason
    return wrong


def _tape_facts(settings: Settings, topic: str) -> TopicDescription | None:
    named = "bootstrap" in settings.tape.model_fields_set
    if not (named and answers_tcp(settings.tape.bootstrap)):
        return None
    with closing(TapeAdmin(settings.tape.bootstrap)) as admin:
        return admin.facts(topic)


def _overtaken(head: LakeSnapshot, facts: TopicDescription, reason: Reason) -> int | None:
    """Count the records that retention removed before they were committed."""
    if reason is not Reason.RETENTION_OVERTOOK:
        return None
    pairs = zip(facts.log_start, head.positions.offsets, strict=True)
    return sum(max(0, start - at) for start, at in pairs)


def _last_failure(data_dir: Path) -> TapeFinding:
    """Read why the stack of a data directory ended, if it refused the tape."""
    try:
        failure = json.loads((data_dir / "run" / "stack.json").read_text()).get("failure") or {}
    except (OSError, ValueError):
        failure = {}
    if failure.get("reason") in INCOMPATIBLE_TAPE:
        return TapeFinding(Reason(failure["reason"]), str(failure.get("message", "")))
    return TapeFinding(
        None, "nothing is known to be wrong with the tape: start K2, and it says what does not fit"
    )


def _nothing_to_do(head: LakeSnapshot | None) -> dict[str, Any]:
    if head is None:
        message = "the lake is empty and takes any tape: nothing to do"
        return {"ended": False, "awaiting": False, "epoch": None, "message": message}
    epoch = head.positions.epoch
    message = f"epoch {epoch} has ended already; the next start begins epoch {epoch + 1}"
    known = _document(head, TapeFinding(None, message), ended=False)
    return known | {"awaiting": True, "reason": head.epochs.ended, "message": message}


def _document(head: LakeSnapshot, found: TapeFinding, *, ended: bool) -> dict[str, Any]:
    epoch = head.positions.epoch
    lost = "what the tape had above them" if found.lost is None else f"{found.lost} records"
    done = (
        f"epoch {epoch} of the tape has ended; the next start begins epoch {epoch + 1}"
        if ended
        else f"nothing was changed; with --yes, epoch {epoch} ends and the next start begins"
        f" epoch {epoch + 1}"
    )
    return {
        "ended": ended,
        "awaiting": ended,
        "epoch": epoch,
        "positions": head.positions.encode(),
        "snapshot_id": str(head.snapshot_id),
        "committed_at_us": head.committed_at_us,
        "rows": head.rows_total,
        "reason": found.reason,
        "lost": found.lost,
        "message": f"{found.message}. The lake keeps its {head.rows_total} rows up to positions"
        f" {head.positions.encode()}; {lost}, if it is gone, shows as holes in trade ids. {done}",
    }
