"""The symbols of the synthetic market: what they cost, in which steps, and how much they trade."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from servers.venue.market import hash_random

_UNIT = 10**8  # mantissas are in units of 1e-8
_TYPICAL_SIZE = 120.0  # of a trade, in the quote currency


@dataclass(frozen=True)
class Listing:
    """One symbol.

    Attributes:
        tick, lot: steps of price and quantity, mantissas in units of 1e-8.
        price_ticks: where the price stands when the walk stands at zero.
        size_lots: scale of a trade's size.
        weight: its share of all trades, against the weights of others.
        beta: how far it goes along with the market.
        volatility: of its own, a square root of a second.
    """

    tick: int
    lot: int
    price_ticks: int
    size_lots: float
    weight: float
    beta: float
    volatility: float


def _listed(price: str, tick: str, lot: str, weight: float, beta: float) -> Listing:
    tick_units, lot_units = (int(Decimal(step) * _UNIT) for step in (tick, lot))
    return Listing(
        tick=tick_units,
        lot=lot_units,
        price_ticks=int(Decimal(price) / Decimal(tick)),
        size_lots=max(1.0, _TYPICAL_SIZE / float(Decimal(price) * Decimal(lot))),
        weight=weight,
        beta=beta,
        volatility=0.5e-4 * beta,
    )


LISTED: dict[str, Listing] = {
    "BTCUSDT": _listed("64000", "0.01", "0.00001", 30, 0.9),
    "ETHUSDT": _listed("3200", "0.01", "0.0001", 22, 1.1),
    "BNBUSDT": _listed("580", "0.01", "0.001", 6, 0.9),
    "SOLUSDT": _listed("150", "0.01", "0.001", 10, 1.3),
    "XRPUSDT": _listed("0.52", "0.0001", "1", 8, 1.1),
    "ADAUSDT": _listed("0.45", "0.0001", "0.1", 3, 1.2),
    "AVAXUSDT": _listed("28", "0.01", "0.01", 2.5, 1.3),
    "DOGEUSDT": _listed("0.12", "0.00001", "1", 5, 1.4),
    "DOTUSDT": _listed("6.2", "0.001", "0.01", 1.5, 1.2),
    "LINKUSDT": _listed("14", "0.01", "0.01", 2, 1.2),
    "LTCUSDT": _listed("78", "0.01", "0.001", 1.5, 1.0),
    "TRXUSDT": _listed("0.13", "0.0001", "0.1", 1.2, 0.7),
    "ATOMUSDT": _listed("8.1", "0.001", "0.01", 0.5, 1.2),
    "PEPEUSDT": _listed("0.000012", "0.00000001", "1", 0.6, 1.5),
    "NEARUSDT": _listed("5.4", "0.001", "0.1", 0.5, 1.3),
    "SHIBUSDT": _listed("0.000024", "0.00000001", "1", 0.8, 1.4),
    "UNIUSDT": _listed("9.5", "0.001", "0.01", 0.4, 1.2),
}


def listing_of(symbol: str) -> Listing:
    """Return a symbol's listing; one not listed trades seldom, at a price made from its name."""
    known = LISTED.get(symbol)
    if known is not None:
        return known
    cents = 10 + hash_random.key_of(0, symbol, "listing") % 10_000
    return _listed(str(Decimal(cents) / 100), "0.001", "0.1", 0.5, 1.2)
