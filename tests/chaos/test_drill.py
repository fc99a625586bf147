"""The drill of backup and restore, with every change."""

import pytest

from tests.chaos import drill

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(420)]


def test_a_lost_lake_comes_back_and_goes_on(tmp_path):
    report = drill.run(tmp_path, rate=200)
    assert report["faults"] == []
    assert report["rows_of_snapshot"] > 0
    assert 0 < report["copied_second"] < report["backup_bytes"]
