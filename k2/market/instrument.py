"""Instruments: names, base and quote, priority tiers and the first partition of a symbol.

Partitions are tier-pure: each tier owns as many partitions of a topic, in the order of `Tier`, so
that deferring a tier is pausing its partitions. A symbol's *first* placement is this module's pure
choice; it is then kept on a compacted topic for the life of the trades topic (`partition_map.py`),
so a later change of tiers changes policy, never placement.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from k2 import limits
from k2.errors import Invalid, Reason

_QUOTES = (
    "FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USDP", "USD1", "EURI", "BIDR", "IDRT",
    "BTC", "ETH", "BNB", "EUR", "GBP", "AUD", "USD", "TRY", "ZAR", "UAH", "NGN", "BRL", "JPY",
    "DAI", "VAI", "XRP", "TRX", "DOGE", "PLN", "RON", "ARS", "MXN", "COP", "CZK", "RUB",
)  # fmt: skip
# They end as many a base with an older quote does (GALAEUR is GALA/EUR, SNXUSD is SNX/USD), so they
# are quotes of known bases alone.
_QUOTES_OF_KNOWN = ("AEUR", "XUSD", "RLUSD", "U")
_LONGEST_FIRST = tuple(sorted((*_QUOTES, *_QUOTES_OF_KNOWN), key=len, reverse=True))


# They part symbols, keys and streams, or would have to be escaped in a venue's frames.
_NOT_IN_SYMBOLS = frozenset('@/&?#:,%"\\ ')


class Tier(IntEnum):
    """Priority of a symbol; the lowest number is shed last."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


_TIERS = {
    Tier.CRITICAL: ("BTC", "ETH"),
    Tier.HIGH: ("BNB", "SOL", "XRP"),
    Tier.NORMAL: (
        "ADA", "AVAX", "DOGE", "DOT", "LINK", "LTC", "TRX", "AAVE", "APT", "ATOM", "BCH", "ETC",
        "FIL", "HBAR", "NEAR", "SUI", "TON", "UNI", "XLM",
    ),
    Tier.LOW: (
        "SHIB", "PEPE", "ALGO", "ARB", "AXS", "BONK", "CHZ", "CRV", "DYDX", "ENA", "FET", "FLOKI",
        "FLOW", "GALA", "GRT", "ICP", "IMX", "INJ", "KAVA", "LDO", "MANA", "QNT", "RENDER", "RUNE",
        "SAND", "SEI", "STX", "THETA", "TIA", "VET", "WIF",
    ),
}  # fmt: skip
_TIER_OF_BASE = {base: tier for tier, bases in _TIERS.items() for base in bases}
_STABLE_QUOTES = frozenset(
    {"USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD", "USD1", "XUSD", "RLUSD", "U"}
)
_KNOWN = frozenset(
    (*(base for base, tier in _TIER_OF_BASE.items() if tier is not Tier.LOW), *_LONGEST_FIRST)
)


class Instrument(NamedTuple):
    """An id space and a symbol in it; with a trade id, a trade's identity."""

    exchange: str
    symbol: str

    @property
    def key(self) -> str:
        """`EXCHANGE:SYMBOL`, the key of its messages."""
        return f"{self.exchange}:{self.symbol}"


def parse_key(key: str) -> Instrument:
    """Read `EXCHANGE:SYMBOL`.

    Raises:
        Invalid: BAD_REQUEST when it has another form.
    """
    exchange, colon, symbol = key.partition(":")
    if not (exchange and colon and symbol):
        raise Invalid(Reason.BAD_REQUEST, f"{key!r} is not EXCHANGE:SYMBOL")
    return Instrument(exchange, symbol)


def is_symbol(text: str) -> bool:
    """Return whether a venue may name an instrument so: upper case, in any script."""
    return (
        bool(text)
        and text.isprintable()
        and text == text.upper()
        and not _NOT_IN_SYMBOLS.intersection(text)
        and len(text.encode()) <= limits.SYMBOL_BYTES_MAX
    )


def split_symbol(symbol: str) -> tuple[str, str]:
    """Split a symbol into base and quote, by the longest known quote it ends with.

    Where two quotes fit, a known base decides: ADAEUR is ADA/EUR, BTCAEUR is BTC/AEUR. An unknown
    quote gives the whole symbol as base and an empty quote: nothing is guessed.
    """
    fitting = [
        (symbol.removesuffix(quote), quote)
        for quote in _LONGEST_FIRST
        if symbol.endswith(quote) and symbol != quote
    ]
    of_known = [pair for pair in fitting if pair[0] in _KNOWN]
    others = [pair for pair in fitting if pair[1] not in _QUOTES_OF_KNOWN]
    return (*of_known, *others, (symbol, ""))[0]


def tier_of(symbol: str) -> Tier:
    """Rank a symbol by its base if it is known and traded for a dollar; all others are LOW."""
    base, quote = split_symbol(symbol)
    return _TIER_OF_BASE.get(base, Tier.LOW) if quote in _STABLE_QUOTES else Tier.LOW


class Priorities:
    """The tier of each symbol: as the settings say, else `tier_of`.

    Args:
        chosen: tier names (critical, high, normal, low) by `EXCHANGE:SYMBOL`.
    """

    def __init__(self, chosen: Mapping[str, str] | None = None) -> None:
        self._chosen = {parse_key(key): Tier[name.upper()] for key, name in (chosen or {}).items()}

    def tier(self, instrument: Instrument) -> Tier:
        """Return the tier of an instrument."""
        return self._chosen.get(instrument, tier_of(instrument.symbol))

    def of_partitions(
        self, placed: Mapping[Instrument, int], partitions_per_tier: int
    ) -> tuple[Tier, ...]:
        """Return the tier of each partition: that of the most critical symbol placed in it.

        Args:
            placed: the partition of each instrument.
            partitions_per_tier: a partition without a symbol has the tier that owns it.
        """
        within: dict[int, Tier] = {}
        for instrument, partition in placed.items():
            tier = self.tier(instrument)
            within[partition] = min(tier, within.get(partition, tier))
        return tuple(
            within.get(partition, Tier(partition // partitions_per_tier))
            for partition in range(len(Tier) * partitions_per_tier)
        )

    def misplaced(
        self, placed: Mapping[Instrument, int], partitions_per_tier: int
    ) -> tuple[tuple[Instrument, Tier], ...]:
        """List the instruments in a partition of another tier than theirs, with that tier.

        Args:
            placed: the partition of each instrument.
            partitions_per_tier: as in `of_partitions`.
        """
        tiers = self.of_partitions(placed, partitions_per_tier)
        return tuple(
            (instrument, tiers[partition])
            for instrument, partition in sorted(placed.items())
            if tiers[partition] is not self.tier(instrument)
        )


def first_partition(
    instrument: Instrument, partitions_per_tier: int, priorities: Priorities | None = None
) -> int:
    """Choose the partition of a new symbol: a stable one among those of its tier."""
    tier = (priorities or Priorities()).tier(instrument)
    return int(tier) * partitions_per_tier + (
        zlib.crc32(instrument.key.encode()) % partitions_per_tier
    )
