"""Versions of data directories: newer ones are refused, older ones upgraded step by step."""

import json

import pytest

from k2.errors import Data, Reason
from servers.local.layout import RESTORING, STEPS, LayoutStep, check, check_version, upgrade
from servers.local.stamp import LAYOUT_VERSION, Stamp, read_stamp, write_stamp

OLD = {"source": "live", "venue": "live", "exchange": "BINANCE"}


@pytest.fixture
def unnumbered(tmp_path):
    (tmp_path / "stamp.json").write_text(json.dumps(OLD))
    return tmp_path


def test_a_directory_without_a_number_gets_one(unnumbered):
    said = []
    assert check(unnumbered).version == 0
    upgrade(unnumbered, said.append)
    assert json.loads((unnumbered / "stamp.json").read_text()) == OLD | {"version": LAYOUT_VERSION}
    assert said == [f"upgrading {unnumbered} to version 1: number the data directory"]
    upgrade(unnumbered, said.append)
    assert len(said) == 1


def test_a_step_that_fails_leaves_the_version_before_it(unnumbered):
    def fail(data_dir):
        raise OSError(28, "No space left on device")

    done = []
    steps = (*STEPS, LayoutStep("second", done.append), LayoutStep("third", fail))
    with pytest.raises(OSError, match="No space"):
        upgrade(unnumbered, lambda _: None, steps)
    assert done == [unnumbered]
    assert read_stamp(unnumbered / "stamp.json").version == 2


def test_a_newer_version_is_refused_by_name(tmp_path):
    write_stamp(tmp_path / "stamp.json", Stamp(**OLD, version=LAYOUT_VERSION + 1))
    with pytest.raises(Data, match="knows versions up to") as refused:
        check(tmp_path)
    assert refused.value.reason is Reason.DATA_DIR_NEWER
    check_version(LAYOUT_VERSION, "here")


def test_a_new_directory_has_no_version_yet(tmp_path):
    assert check(tmp_path) is None
    upgrade(tmp_path, lambda _: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folders", "unfinished"),
    [
        (["restoring"], True),
        (["restoring/lake", "lake"], True),
        (["restoring", "lake"], False),
        (["lake"], False),
    ],
)
def test_an_unfinished_restore_is_refused(unnumbered, folders, unfinished):
    for name in folders:
        (unnumbered / name).mkdir(parents=True, exist_ok=True)
    if unfinished:
        with pytest.raises(Data) as refused:
            check(unnumbered)
        assert refused.value.reason is Reason.RESTORE_UNFINISHED
    else:
        upgrade(unnumbered, lambda _: None)
        assert not (unnumbered / RESTORING).exists()
