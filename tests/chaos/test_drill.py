"""The drill of backup and restore, with every change."""

import pytest

from tests.chaos import drill

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]


def test_a_lost_lake_comes_back_and_goes_on(tmp_path):
    report = drill.run(tmp_path, rate=200)
    assert report["faults"] == []
    assert report["rows_of_snapshot"] > 0
    assert 0 < report["copied_second"] < report["backup_bytes"]


def test_the_checks_see_what_is_wrong():
    hole = [{"first_id": "3", "last_id": "4"}]
    assert drill.faults_of("S", [1, 2, 5], hole, before=2) == []
    assert "doubled" in drill.faults_of("S", [1, 1], [], before=1)[0]
    assert "are lost" in drill.faults_of("S", [1, 3], [], before=3)[0]
    assert "neither held" in drill.faults_of("S", [1, 2, 6], hole, before=2)[0]
    assert "held and in a hole" in drill.faults_of("S", [1, 2, 3], hole, before=2)[0]
