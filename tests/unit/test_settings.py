import pytest
from pydantic import ValidationError

from k2 import settings
from k2.errors import Invalid, Reason


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in settings.environment():
        if name.startswith("K2_"):
            monkeypatch.delenv(name)


def test_defaults_live_under_the_data_directory(tmp_path):
    loaded = settings.load()
    assert loaded.catalog_uri == f"sqlite:///{tmp_path}/.k2/lake/catalog.db"
    assert loaded.warehouse == f"file://{tmp_path}/.k2/lake/warehouse"


def test_environment_beats_the_file_and_arguments_beat_both(tmp_path, monkeypatch):
    (tmp_path / "k2.toml").write_text(
        'log_level = "error"\n[lake]\ncommit_interval_s = 3\n[feed]\nexchange = "BINANCE_UM"\n'
    )
    monkeypatch.setenv("K2_LAKE__COMMIT_INTERVAL_S", "4")
    monkeypatch.setenv("K2_FEED__SYMBOLS", '["BTCUSDT"]')
    loaded = settings.load(log_level="debug")
    assert loaded.lake.commit_interval_s == 4
    assert loaded.feed.symbols == ("BTCUSDT",)
    assert loaded.feed.exchange == "BINANCE_UM"
    assert loaded.log_level == "debug"


def test_a_named_file_is_read(tmp_path, monkeypatch):
    (tmp_path / "other.toml").write_text("[venue]\nrate = 9\n")
    monkeypatch.setenv("K2_CONFIG", str(tmp_path / "other.toml"))
    assert settings.load().venue.rate == 9


@pytest.mark.parametrize(
    "overrides",
    [{"log_level": "loud"}, {"lake": {"commit_interval_s": 0}}, {"lake": {"no_such": 1}}],
)
def test_a_wrong_setting_is_named(overrides):
    with pytest.raises(Invalid, match=next(iter(overrides))) as caught:
        settings.load(**overrides)
    assert caught.value.reason is Reason.BAD_SETTING


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "k2.toml").write_text("not toml")
    with pytest.raises(Invalid) as caught:
        settings.load()
    assert caught.value.reason is Reason.BAD_SETTING


def test_settings_are_frozen_and_mask_secrets():
    loaded = settings.load(ticket_key="hush")
    assert "hush" not in repr(loaded)
    with pytest.raises(ValidationError):
        loaded.log_level = "info"


def test_where_they_say():
    loaded = settings.load(lake={"catalog_uri": "postgresql://c", "warehouse": "s3://w"})
    assert (loaded.catalog_uri, loaded.warehouse) == ("postgresql://c", "s3://w")
