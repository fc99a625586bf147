from pathlib import Path

from k2 import shipped_files
from k2.shipped_files import shipped_file


def test_a_checkout_has_its_files_at_its_root():
    assert shipped_file("artifacts.lock") == Path(__file__).parents[2] / "artifacts.lock"


def test_a_wheel_has_them_in_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_files, "_IN_WHEEL", tmp_path)
    assert shipped_file("clients/notebooks") == tmp_path / "clients/notebooks"
