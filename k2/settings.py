"""What can be chosen about a K2 process; the environment is read here and nowhere else in `k2`.

Sources, strongest first: arguments, `K2_...` environment variables (`K2_DATA_DIR`, nested ones with
two underscores: `K2_LAKE__COMMIT_INTERVAL_S`; a list is `A,B` or JSON), the file `k2.toml` (or the
one `K2_CONFIG` names), defaults.
"""

from __future__ import annotations

import json
import os
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from k2 import limits
from k2.errors import Invalid, Reason

_MASK = "********"
_PASSWORD = re.compile(r"(://[^:/@\s\"]*:)[^@/\s\"]*@")  # in an address

_OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"  # of every program that sends traces

EXCHANGE_PATTERN = r"^[A-Z0-9_]{1,32}$"
_INSTRUMENT = re.compile(r"[A-Z0-9_]{1,32}:[^\s:]+")


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _listed(value: object) -> object:
    """Read a list from its text, `A,B` or a JSON array; anything else stays as it is."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(
                f'a list is A,B or a JSON array such as ["A", "B"]: {error}'
            ) from error
    return [part.strip() for part in value.split(",") if part.strip()]


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_listed)]


def _spelt(path: Path) -> Path:
    """Check that every part of K2 can name a path, also Java and SQLite."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{str(path)!r} is no name in UTF-8: choose another folder") from None
    return path


Folder = Annotated[Path, AfterValidator(_spelt)]


Tiers = dict[str, Literal["critical", "high", "normal", "low"]]


def _mapped(value: object) -> object:
    """Read a table from its text, a JSON object; anything else stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        example = '{"BINANCE:BTCUSDT": "critical"}'
        raise ValueError(f"a table is a JSON object such as {example}: {error}") from error


def _of_instruments(tiers: Tiers) -> Tiers:
    """Check that every key names an instrument; one that does not would rank nothing."""
    for key in tiers:
        if not _INSTRUMENT.fullmatch(key) or key != key.upper():
            raise ValueError(f"{key!r} is not EXCHANGE:SYMBOL, such as BINANCE:BTCUSDT")
    return tiers


class TapeSettings(_Group):
    """Where the tape is and how it is laid out."""

    bootstrap: str = "127.0.0.1:9092"
    registry_url: str = "http://127.0.0.1:8081/apis/ccompat/v7"
    topic: str = "market.crypto.trades.binance"
    partitions_per_tier: int = Field(
        default=2, ge=1, le=64, description="four tiers, each with so many"
    )
    retention_hours: int = Field(default=24, ge=1)
    retention_bytes_per_partition: int = Field(default=1024 * limits.MIB, ge=limits.MIB)


class LakeSettings(_Group):
    """Where the lake is and how often it commits."""

    catalog_uri: str = Field(default="", description="unset: SQLite under the data directory")
    warehouse: str = Field(default="", description="unset: a folder under the data directory")
    commit_interval_s: float = Field(default=limits.COMMIT_INTERVAL_S, gt=0)
    commit_bytes_max: int = Field(default=limits.COMMIT_BYTES_MAX, ge=limits.MIB)
    retention_hours: int | None = Field(
        default=None, ge=1, description="unset: rows are kept while the budget lasts"
    )
    bytes_max: int = Field(
        default=limits.LAKE_BYTES_MAX,
        ge=limits.LAKE_BYTES_MIN,
        description="of the newest snapshot; the oldest files above it go",
    )
    letters_bytes_max: int = Field(
        default=limits.LETTERS_BYTES_MAX,
        ge=limits.LAKE_BYTES_MIN,
        description="the same of the table of dead letters",
    )
    retain_interval_s: float = Field(
        default=limits.RETAIN_INTERVAL_S, gt=0, description="between two looks at retention"
    )
    maintain: bool = Field(
        default=True, description="merge files and remove unnamed ones in the lake process"
    )
    maintain_interval_s: float = Field(
        default=limits.MAINTAIN_INTERVAL_S, gt=0, description="between looks for files to merge"
    )
    compact_target_bytes: int = Field(
        default=limits.COMPACT_TARGET_BYTES, ge=limits.MIB, description="of a merged file"
    )
    sweep_interval_s: float = Field(
        default=limits.SWEEP_INTERVAL_S, gt=0, description="between looks for unnamed files"
    )
    sweep_grace_s: float = Field(
        default=limits.SWEEP_GRACE_S,
        ge=limits.SWEEP_GRACE_MIN_S,
        description="how long a file stays that nothing names; longer than any query reads",
    )
    rows_per_s_max: float | None = Field(
        default=None, gt=0, description="unset: as many as it can; a bound, to try an overload"
    )


class FeedSettings(_Group):
    """The venue and the symbols of a feed."""

    venue: str = Field(default="auto", description="auto, live, synthetic or recording:PATH")
    venue_url: str = Field(
        default="wss://stream.binance.com:9443", description="WebSocket base of the venue"
    )
    exchange: str = Field(default="BINANCE", pattern=EXCHANGE_PATTERN)
    symbols: Names = (
        "BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "AVAXUSDT", "DOGEUSDT",
        "DOTUSDT", "LINKUSDT", "LTCUSDT", "TRXUSDT", "SHIBUSDT", "PEPEUSDT",
    )  # fmt: skip
    source: Literal["live", "recorded", "simulated"] = "live"
    stale_s: float = Field(default=limits.FEED_STALE_S, gt=0)
    copies: int = Field(
        default=1, ge=1, le=limits.FEEDS_MAX, description="processes that listen to the same"
    )
    name: str = Field(
        default="feed",
        pattern=r"^feed[a-z0-9-]{0,32}$",
        description="of the process; a second feed of the same venue needs another one",
    )
    rest_url: str = Field(
        default="", description="REST base of the venue; unset: the one that goes with venue_url"
    )
    rest_weight_per_minute: int = Field(
        default=limits.FEED_WEIGHT_PER_MINUTE,
        ge=1,
        description="of the venue's limit for this address, what backfill may see used",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Of all feed processes of the stack."""
        return ("feed", *(f"feed-{number}" for number in range(2, self.copies + 1)))


class VenueSettings(_Group):
    """The practice venue."""

    listen: str = "127.0.0.1:0"
    rate: float = Field(
        default=130.0, gt=0, description="trades a second over the subscribed symbols"
    )
    speed: float = Field(
        default=1.0, ge=0, description="of a recording; 0 = as fast as it is taken"
    )
    seed: int = 7
    cut_s: float = Field(
        default=limits.VENUE_CUT_S, gt=0, description="life of a connection, as at Binance"
    )


class QuerySettings(_Group):
    """The query server."""

    listen_flight: str = "127.0.0.1:8815"
    listen_grpc: str = "127.0.0.1:0"
    tail_bytes_max: int = Field(default=limits.TAIL_BYTES_MAX, ge=limits.MIB)
    tail_recent_s: float = Field(default=limits.TAIL_RECENT_S, ge=0)
    stream_idle_s: float = Field(
        default=limits.STREAM_IDLE_S,
        gt=0,
        description="a stream whose reader takes no batch for so long ends",
    )


class ControlSettings(_Group):
    """The control plane."""

    listen: str = "127.0.0.1:50051"
    query_address: str = Field(default="", description="host:port of the query server's gRPC")


class EdgeSettings(_Group):
    """The HTTP edge."""

    listen: str = "127.0.0.1:8000"
    control_address: str = Field(
        default="", description="host:port of the control server; unset: control.listen"
    )
    prometheus_url: str = Field(
        default="", description="of a Prometheus of this stack, whose panels the page then shows"
    )


class AccessSettings(_Group):
    """Who may call beside this machine itself."""

    trusted_networks: Networks = Field(
        default=(), description="networks such as 172.18.0.0/16, taken for this machine"
    )


class DegradeSettings(_Group):
    """How the degradation level follows pressure."""

    confirm_s: float = Field(
        default=0.5, ge=0, description="pressure stays up so long before the level rises"
    )
    dwell_s: float = Field(
        default=15.0, gt=0, description="pressure stays down so long before the level falls by one"
    )
    shadow: bool = Field(
        default=False, description="measure and publish what would be shed, and shed nothing"
    )


class SymbolSettings(_Group):
    """What is known of symbols."""

    priority: Annotated[
        Tiers, NoDecode, BeforeValidator(_mapped), AfterValidator(_of_instruments)
    ] = Field(default_factory=dict, description="by EXCHANGE:SYMBOL; others have K2's default")


class TelemetrySettings(_Group):
    """What processes say of themselves to others than K2."""

    metrics: bool = Field(default=True, description="serve /metrics on loopback")
    listen: str = Field(default="127.0.0.1:0", description="address of /metrics")
    otlp_endpoint: str = Field(
        default_factory=lambda: os.environ.get(_OTLP_ENDPOINT, ""),  # noqa: TID251 the reader
        description=f"host:port or URL of an OTLP collector over gRPC; unset: {_OTLP_ENDPOINT}, or"
        " no traces",
    )
    trace_sample: float = Field(
        default=0.01, ge=0, le=1, description="share of batches and queries that are traced"
    )
    log_files: bool = Field(
        default=False,
        description="also write logs to logs/ of the data directory; k2 up always does, by itself",
    )


class Settings(BaseSettings):
    """Everything, frozen. `load` makes one."""

    model_config = SettingsConfigDict(
        env_prefix="K2_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    data_dir: Folder = Path(".k2")
    cache_dir: Folder = Field(
        default=Path("~/.cache/k2"), description="fetched artefacts, shared by all stacks of a user"
    )
    ticket_key: SecretStr | None = Field(
        default=None, description="unset: a file in the data directory"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    tape: TapeSettings = TapeSettings()
    lake: LakeSettings = LakeSettings()
    feed: FeedSettings = FeedSettings()
    venue: VenueSettings = VenueSettings()
    query: QuerySettings = QuerySettings()
    control: ControlSettings = ControlSettings()
    edge: EdgeSettings = EdgeSettings()
    access: AccessSettings = AccessSettings()
    degrade: DegradeSettings = DegradeSettings()
    symbols: SymbolSettings = SymbolSettings()
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, k2.toml; no other source."""
        toml = Path(os.environ.get("K2_CONFIG", "k2.toml"))  # noqa: TID251 the reader
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml)

    @property
    def catalog_uri(self) -> str:
        """The catalog's address: after `sqlite:///` a path as it is, nothing in it is quoted."""
        return self.lake.catalog_uri or f"sqlite:///{self.data_dir.resolve()}/lake/catalog.db"

    @property
    def warehouse(self) -> str:
        """The warehouse's address: after `file://` a path as it is, nothing in it is quoted."""
        return self.lake.warehouse or f"file://{self.data_dir.resolve()}/lake/warehouse"


def load(**overrides: Any) -> Settings:  # noqa: ANN401 any field of Settings
    """Read the settings of this process.

    Raises:
        Invalid: BAD_SETTING, naming each field that is wrong and why.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise Invalid(Reason.BAD_SETTING, f"settings are wrong: {'; '.join(found)}") from error
    except SettingsError as error:
        raise Invalid(
            Reason.BAD_SETTING,
            f"settings are wrong: {error}: a group in the environment is a JSON object, or has a"
            " variable for each of its settings, such as K2_FEED__SYMBOLS=A,B",
        ) from error
    except ValueError as error:
        raise Invalid(Reason.BAD_SETTING, f"settings are wrong: {error}") from error


def environment() -> dict[str, str]:
    """Copy this process's environment, for the children it starts."""
    return dict(os.environ)  # noqa: TID251 the reader


def masked(settings: BaseModel, prefix: str = "") -> dict[str, str]:
    """Each setting by dotted name, as JSON; secrets masked."""
    found: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            found |= masked(value, f"{prefix}{name}.")
        elif isinstance(value, SecretStr):
            found[prefix + name] = json.dumps(_MASK)
        else:
            text = json.dumps(value, default=str)
            found[prefix + name] = _PASSWORD.sub(rf"\g<1>{_MASK}@", text)
    return found
