"""Reads the arguments of `k2 up` and `k2 doctor` on top of the settings."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from k2 import limits, settings
from k2.errors import Invalid, Reason
from k2.market.instrument import is_symbol
from k2.settings import Settings
from servers.local import jupyter
from servers.local.observe import prometheus


@dataclass(frozen=True)
class Options:
    """The arguments of `k2 up`, in the settings.

    Attributes:
        settings: with the arguments in them; the data directory is absolute.
        ports: free or fixed.
        ports_asked: whether that was an argument.
        observe: whether Prometheus is started too, where it is installed.
        notebooks: whether Jupyter is started too, where it is installed.
        observe_port, notebooks_port: where they are to listen.
        exchange_asked: whether an exchange was named, by argument or setting.
    """

    settings: Settings
    ports: str
    exchange_asked: bool
    ports_asked: bool = False
    observe: bool = False
    notebooks: bool = False
    observe_port: int = prometheus.PORT
    notebooks_port: int = jupyter.PORT


class Arguments(argparse.ArgumentParser):
    """Parses the arguments of a command; raises Invalid where argparse ends the process."""

    def __init__(self, command: str) -> None:
        super().__init__(prog=command, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise Invalid(Reason.BAD_REQUEST, f"{self.prog}: {message}")


def read_options(loaded: Settings, argv: list[str]) -> Options:
    """Read the arguments of `up`.

    Args:
        loaded: the settings without them.
        argv: the arguments.

    Raises:
        Invalid: BAD_REQUEST or BAD_SETTING, naming what is wrong.
    """
    arguments = _parser().parse_args(argv)
    feed = _given(
        venue=arguments.venue,
        exchange=arguments.exchange,
        symbols=_symbols(arguments.symbols),
        copies=arguments.feeds,
    )
    venue = _given(rate=arguments.rate, speed=arguments.speed)
    given = loaded.model_dump(exclude_unset=True)
    given["data_dir"] = absolute(arguments.data_dir or loaded.data_dir, "K2_DATA_DIR")
    given["cache_dir"] = absolute(loaded.cache_dir, "K2_CACHE_DIR")
    given["feed"] = given.get("feed", {}) | feed
    given["venue"] = given.get("venue", {}) | venue
    merged = settings.load(**given)
    return Options(
        settings=merged,
        ports=arguments.ports or "fixed",
        exchange_asked="exchange" in merged.feed.model_fields_set,
        ports_asked=arguments.ports is not None,
        observe=arguments.observe,
        notebooks=arguments.notebooks,
        observe_port=arguments.observe_port,
        notebooks_port=arguments.notebooks_port,
    )


def absolute(path: str | Path, where: str) -> Path:
    """Resolve `~` and relative parts of a path.

    Args:
        path: as it was given.
        where: what to give instead, for the message.

    Raises:
        Invalid: BAD_SETTING when the user has no home directory.
    """
    try:
        return Path(path).expanduser().resolve()
    except RuntimeError as error:
        raise Invalid(
            Reason.BAD_SETTING,
            f"{path}: there is no such home directory; give an absolute path ({where})",
        ) from error


def _parser() -> Arguments:
    parser = Arguments("up")
    parser.add_argument("--data-dir")
    parser.add_argument("--venue")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--speed", type=float)
    parser.add_argument("--symbols")
    parser.add_argument("--exchange")
    parser.add_argument("--feeds", type=int)
    parser.add_argument("--ports", choices=("free", "fixed"))
    parser.add_argument("--observe", action="store_true")
    parser.add_argument("--notebooks", action="store_true")
    parser.add_argument("--observe-port", type=int, default=prometheus.PORT)
    parser.add_argument("--notebooks-port", type=int, default=jupyter.PORT)
    return parser


def _given(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _symbols(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    named = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [symbol for symbol in named if not is_symbol(symbol)]
    if wrong or not named or len(named) > limits.STREAMS_PER_CONNECTION_MAX:
        raise Invalid(Reason.BAD_SETTING, f"symbols are names such as BTCUSDT,ETHUSDT: {text!r}")
    return named
