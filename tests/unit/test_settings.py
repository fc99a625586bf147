import json
from typing import get_origin

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_settings import NoDecode

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


def test_priorities_are_a_table_or_json(tmp_path, monkeypatch):
    (tmp_path / "k2.toml").write_text('[symbols.priority]\n"BINANCE:SHIBUSDT" = "high"\n')
    assert settings.load().symbols.priority == {"BINANCE:SHIBUSDT": "high"}
    monkeypatch.setenv("K2_SYMBOLS__PRIORITY", '{"BINANCE:BTCUSDT": "low"}')
    assert settings.load().symbols.priority["BINANCE:BTCUSDT"] == "low"


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


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("BTCUSDT,ETHUSDT", ("BTCUSDT", "ETHUSDT")),
        (" BTCUSDT , ETHUSDT, ", ("BTCUSDT", "ETHUSDT")),
        ("BTCUSDT", ("BTCUSDT",)),
        ('["BTCUSDT", "币安人生USDT"]', ("BTCUSDT", "币安人生USDT")),
        ("[]", ()),
        ("", ()),
    ],
)
def test_a_list_is_a_comma_list_or_json(tmp_path, monkeypatch, text, symbols):
    monkeypatch.setenv("K2_FEED__SYMBOLS", text)
    monkeypatch.setenv("K2_FEED__EXCHANGE", "BINANCE_UM")
    loaded = settings.load()
    assert (loaded.feed.symbols, loaded.feed.exchange) == (symbols, "BINANCE_UM")
    monkeypatch.delenv("K2_FEED__SYMBOLS")
    monkeypatch.setenv("K2_FEED", json.dumps({"symbols": text}))
    assert settings.load().feed.symbols == symbols
    monkeypatch.delenv("K2_FEED")
    (tmp_path / "k2.toml").write_text(
        f"[feed]\nsymbols = {json.dumps(text, ensure_ascii=False)}\n", encoding="utf-8"
    )
    assert settings.load().feed.symbols == symbols


def test_every_list_is_read_so():
    groups = [field.annotation for field in settings.Settings.model_fields.values()]
    fields = [
        field
        for group in (settings.Settings, *groups)
        if isinstance(group, type) and issubclass(group, BaseModel)
        for field in group.model_fields.values()
        if get_origin(field.annotation) in (tuple, list, set, frozenset, dict)
    ]
    assert fields
    assert all(NoDecode in field.metadata for field in fields)


@pytest.mark.parametrize(
    ("name", "text", "named", "form"),
    [
        ("K2_FEED__SYMBOLS", '["A"', "feed.symbols", "A,B or a JSON array"),
        ("K2_FEED__SYMBOLS", "[1]", "feed.symbols.0", "string"),
        ("K2_SYMBOLS__PRIORITY", "{BTC", "symbols.priority", "a JSON object such as"),
        ("K2_SYMBOLS__PRIORITY", '{"BTCUSDT": "low"}', "symbols.priority", "'BTCUSDT' is not"),
        ("K2_SYMBOLS__PRIORITY", '{"B:btcusdt": "low"}', "symbols.priority", "'B:btcusdt' is not"),
        ("K2_SYMBOLS__PRIORITY", '{"B:BTCUSDT": "top"}', "symbols.priority.B:BTCUSDT", "'low'"),
        ("K2_FEED", "A,B", "feed", "JSON object"),
        ("K2_FEED", "[1]", "feed", "dictionary"),
        ("K2_FEED__COPIES", "two", "feed.copies", "integer"),
        ("K2_LAKE__MAINTAIN", "perhaps", "lake.maintain", "boolean"),
        ("K2_LAKE__NO_SUCH", "1", "lake.no_such", "not permitted"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named_with_its_form(
    monkeypatch, name, text, named, form
):
    monkeypatch.setenv(name, text)
    with pytest.raises(Invalid, match=form) as caught:
        settings.load()
    assert caught.value.reason is Reason.BAD_SETTING
    assert named in caught.value.message


def test_a_secret_is_in_no_message(monkeypatch):
    monkeypatch.setenv("K2_TICKET_KEY", "hush")
    monkeypatch.setenv("K2_LOG_LEVEL", "loud")
    with pytest.raises(Invalid, match="log_level") as caught:
        settings.load()
    assert "hush" not in caught.value.message


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


@pytest.mark.parametrize("name", ["data_dir", "cache_dir"])
def test_a_folder_that_java_and_sqlite_cannot_name_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv(f"K2_{name.upper()}", f"{tmp_path}/\udcff")
    with pytest.raises(Invalid, match=name) as caught:
        settings.load()
    assert caught.value.reason is Reason.BAD_SETTING


def test_where_they_say():
    loaded = settings.load(lake={"catalog_uri": "postgresql://c", "warehouse": "s3://w"})
    assert (loaded.catalog_uri, loaded.warehouse) == ("postgresql://c", "s3://w")


def test_a_password_in_an_address_is_masked():
    loaded = settings.load(lake={"catalog_uri": "postgresql://k2:hush@db:5432/k2"})
    assert settings.masked(loaded)["lake.catalog_uri"] == '"postgresql://k2:********@db:5432/k2"'


def test_an_unset_secret_is_null():
    values = settings.masked(settings.load())
    assert values["ticket_key"] == "null"


def test_the_collector_is_that_of_every_program_unless_it_is_set(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4317")
    assert settings.load().telemetry.otlp_endpoint == "http://there:4317"
    monkeypatch.setenv("K2_TELEMETRY__TRACE_SAMPLE", "0.5")
    assert settings.load().telemetry.otlp_endpoint == "http://there:4317"
    monkeypatch.setenv("K2_TELEMETRY__OTLP_ENDPOINT", "here:4317")
    assert settings.load().telemetry.otlp_endpoint == "here:4317"
