"""Checks and upgrades the version of a data directory's layout, before anything starts.

A newer one than this K2 knows is refused by name: this K2 might damage it. An older
one is upgraded in place, step by step, each step durable before the next. A step can be repeated:
the version is written after it.

0   as the first release made it: without a number
1   the same, with its number
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from k2.errors import Data, Reason
from servers.local.stamp import LAYOUT_VERSION, Stamp, read_stamp, write_stamp

STAMP = "stamp.json"
RESTORING = "restoring"
_LAKE = "lake"


@dataclass(frozen=True)
class LayoutStep:
    """From one version to the next.

    Attributes:
        name: what it does, in words.
        apply: does it to a data directory; may be repeated.
    """

    name: str
    apply: Callable[[Path], None]


def _nothing(_data_dir: Path) -> None:
    """Do nothing: the version number is written after every step."""


STEPS = (LayoutStep("number the data directory", _nothing),)  # the n-th leads from version n


def check(data_dir: Path) -> Stamp | None:
    """Read the stamp of a data directory that this K2 may use; None where there is none yet.

    Raises:
        Data: DATA_DIR_NEWER, RESTORE_UNFINISHED or STAMP_MISMATCH.
    """
    if _is_unfinished(data_dir):
        raise Data(
            Reason.RESTORE_UNFINISHED,
            f"a restore into {data_dir} did not finish: run `k2 restore` again, as it was",
        )
    stamp = read_stamp(data_dir / STAMP)
    if stamp is not None:
        check_version(stamp.version, str(data_dir))
    return stamp


def check_version(version: int, where: str) -> None:
    """Refuse a version that this K2 does not know.

    Raises:
        Data: DATA_DIR_NEWER.
    """
    if version > LAYOUT_VERSION:
        raise Data(
            Reason.DATA_DIR_NEWER,
            f"{where} has version {version}; this K2 knows versions up to {LAYOUT_VERSION}: use the"
            " K2 that made it, or a newer one",
            metadata={"version": str(version), "known": str(LAYOUT_VERSION)},
        )


def upgrade(
    data_dir: Path, say: Callable[[str], None], steps: Sequence[LayoutStep] = STEPS
) -> None:
    """Bring a data directory to the newest version; call it while holding the directory.

    Args:
        data_dir: one that `check` accepts.
        say: called with the name of each step.
        steps: all there are.

    Raises:
        Data: see `check`.
        OSError: a step could not be done; the directory stays at the version before it.
    """
    stamp = check(data_dir)
    shutil.rmtree(data_dir / RESTORING, ignore_errors=True)
    if stamp is None:
        return
    for version in range(stamp.version, len(steps)):
        say(f"upgrading {data_dir} to version {version + 1}: {steps[version].name}")
        steps[version].apply(data_dir)
        write_stamp(data_dir / STAMP, replace(stamp, version=version + 1))


def _is_unfinished(data_dir: Path) -> bool:
    """Whether a restore was cut off; the lake is what it puts in place last."""
    staged = data_dir / RESTORING
    return staged.exists() and ((staged / _LAKE).exists() or not (data_dir / _LAKE).exists())


assert len(STEPS) == LAYOUT_VERSION, "each version but the first has a step that leads to it"
