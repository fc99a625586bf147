"""Computes what a stream of trades costs a month, from measured figures and list prices. Pure.

    cores   = messages/s x (1/feed + copies/broker + 1/lake + 1/tail) / utilisation
    tape    = messages/s x bytes on the tape x hours kept x copies
    lake    = messages/s x bytes a trade x days kept
    commits = one each interval of each lake worker, so many objects each
    zones   = messages/s x bytes on the tape x crossings

The month has 730 hours. Every figure is the steady state: with all that is kept already there.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

HOURS = 730.0
_GB = 1e9
_DAY_S = 86_400.0
_PUTS_PER_COMMIT = 4  # a data file, a manifest, a list of manifests, metadata
_COMPACTION = 1.1  # of PUTs: merged files are written once more
PRICES_FILE = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True)
class Price:
    """A list price.

    Attributes:
        price: in dollars.
        unit: what it buys.
        what: the product.
        source: the public page.
    """

    price: float
    unit: str
    what: str
    source: str


@dataclass(frozen=True)
class Prices:
    """All prices, and the month of their list."""

    checked: str
    region: str
    vcpu_hour: Price
    object_gb_month: Price
    put_1000: Price
    get_1000: Price
    disk_gb_month: Price
    zone_gb: Price


@dataclass(frozen=True)
class Measured:
    """What `make bench` and a running stack measured; rows a second are of one core.

    Attributes:
        feed_rows: venue to acknowledged on the tape.
        broker_rows: of one copy; no better than the feed, which shared two cores with the broker.
        lake_rows: tape to committed.
        tail_rows: tape to queryable, while queries run.
        lake_bytes: of the lake a trade.
        tape_bytes: of the tape a trade, one copy.
    """

    feed_rows: float = 40_525.0
    broker_rows: float = 40_525.0
    lake_rows: float = 250_626.0
    tail_rows: float = 242_305.0
    lake_bytes: float = 7.7
    tape_bytes: float = 75.0


@dataclass(frozen=True)
class Deployment:
    """How it is run.

    Attributes:
        messages_per_s: around the clock.
        utilisation: of the cores that are paid for.
        lake_days: trades are kept so long.
        tape_hours: the tape is kept so long.
        copies: of the tape.
        zones: that these are spread over.
        commit_interval_s: between two commits of a lake worker.
        vcpu_min: the smallest machine.
        queries_per_s: small ones.
        gets_per_query: objects that a query reads and no cache holds.
    """

    messages_per_s: float
    utilisation: float = 0.5
    lake_days: float = 90.0
    tape_hours: float = 24.0
    copies: int = 3
    zones: int = 3
    commit_interval_s: float = 10.0
    vcpu_min: float = 2.0
    queries_per_s: float = 1.0
    gets_per_query: float = 2.0


@dataclass(frozen=True)
class Bill:
    """A month, in dollars.

    Attributes:
        cores, tape, lake, requests, zones: its parts.
        vcpus: that are paid for.
        messages: of the month.
    """

    cores: float
    tape: float
    lake: float
    requests: float
    zones: float
    vcpus: float
    messages: float

    @property
    def total(self) -> float:
        """The whole month."""
        return self.cores + self.tape + self.lake + self.requests + self.zones

    @property
    def per_million(self) -> float:
        """Dollars for a million messages."""
        return self.total / self.messages * 1e6


def read_prices(path: Path = PRICES_FILE) -> Prices:
    """Read the file of prices."""
    content = tomllib.loads(path.read_text())
    priced = {name: Price(**entry) for name, entry in content.items() if isinstance(entry, Mapping)}
    return Prices(checked=str(content["checked"]), region=str(content["region"]), **priced)


def bill(wanted: Deployment, measured: Measured, prices: Prices) -> Bill:
    """Compute the bill of a month.

    Raises:
        ValueError: a rate, the utilisation or a measured figure is not above zero.
    """
    _check(wanted, measured)
    per_s = wanted.messages_per_s
    work = per_s * (
        1 / measured.feed_rows
        + wanted.copies / measured.broker_rows
        + 1 / measured.lake_rows
        + 1 / measured.tail_rows
    )
    vcpus = max(wanted.vcpu_min, math.ceil(work / wanted.utilisation))
    month_s = HOURS * 3600
    tape_gb = per_s * measured.tape_bytes * wanted.tape_hours * 3600 * wanted.copies / _GB
    lake_gb = per_s * measured.lake_bytes * wanted.lake_days * _DAY_S / _GB
    writers = max(1, math.ceil(per_s / (measured.lake_rows * wanted.utilisation)))
    puts = month_s / wanted.commit_interval_s * writers * _PUTS_PER_COMMIT * _COMPACTION
    gets = month_s * wanted.queries_per_s * wanted.gets_per_query
    crossed_gb = per_s * measured.tape_bytes * month_s * crossings(wanted) / _GB
    return Bill(
        cores=vcpus * HOURS * prices.vcpu_hour.price,
        tape=tape_gb * prices.disk_gb_month.price,
        lake=lake_gb * prices.object_gb_month.price,
        requests=puts / 1000 * prices.put_1000.price + gets / 1000 * prices.get_1000.price,
        zones=crossed_gb * prices.zone_gb.price,
        vcpus=vcpus,
        messages=per_s * month_s,
    )


def crossings(wanted: Deployment) -> float:
    """Return how often a message crosses a zone: to its leader, and to the other copies.

    Readers read the copy of their own zone.
    """
    if wanted.zones <= 1:
        return 0.0
    return (wanted.zones - 1) / wanted.zones + (wanted.copies - 1)


def sensitivity(
    wanted: Deployment, measured: Measured, prices: Prices
) -> list[tuple[str, float, float]]:
    """Change one assumption at a time: its name, the bill a month, and its ratio to the first."""
    base = bill(wanted, measured, prices).total
    twice = replace(measured, lake_bytes=2 * measured.lake_bytes)
    half = replace(
        measured,
        feed_rows=measured.feed_rows / 2,
        broker_rows=measured.broker_rows / 2,
        lake_rows=measured.lake_rows / 2,
        tail_rows=measured.tail_rows / 2,
    )
    changed = [
        ("as assumed", wanted, measured),
        ("one zone instead of three", replace(wanted, zones=1), measured),
        ("one copy of the tape, one zone", replace(wanted, zones=1, copies=1), measured),
        ("rows kept for a year", replace(wanted, lake_days=365), measured),
        ("rows kept for 30 days", replace(wanted, lake_days=30), measured),
        ("tape kept for 7 days", replace(wanted, tape_hours=168), measured),
        ("cores used to 80 %", replace(wanted, utilisation=0.8), measured),
        ("cores used to 25 %", replace(wanted, utilisation=0.25), measured),
        ("a core does half as much", wanted, half),
        ("twice the bytes a trade", wanted, twice),
        ("a commit each second", replace(wanted, commit_interval_s=1), measured),
    ]
    totals = [(name, bill(how, what, prices).total) for name, how, what in changed]
    return [(name, total, total / base) for name, total in totals]


def per_million_expression(rate: str, lake_bytes: str, prices: Prices) -> str:
    """Write the cost of a million messages on one machine as PromQL, for a board.

    It is `bill` of `at_scale` while the smallest machine suffices.

    Args:
        rate: an expression of the messages a second.
        lake_bytes: an expression of the bytes a trade.
        prices: of the lists.
    """
    one = at_scale(1.0)
    empty = bill(one, Measured(), prices)
    fixed = empty.cores + empty.requests
    lake = one.lake_days * _DAY_S / _GB * prices.object_gb_month.price
    millions = HOURS * 3600 / 1e6
    return (
        f"({fixed:.4f} + {rate} * ({empty.tape:.6f} + {lake:.8f} * {lake_bytes}))"
        f" / ({rate} * {millions:.3f})"
    )


def at_scale(messages_per_s: float) -> Deployment:
    """Choose how so many messages a second are run: below 1,000 on one machine, else in copies."""
    if messages_per_s < 1000:
        return Deployment(messages_per_s, copies=1, zones=1)
    return Deployment(messages_per_s)


def _check(wanted: Deployment, measured: Measured) -> None:
    figures = {
        "messages a second": wanted.messages_per_s,
        "utilisation": wanted.utilisation,
        "commit interval": wanted.commit_interval_s,
        "copies": wanted.copies,
        **{f"measured {name}": value for name, value in vars(measured).items()},
    }
    for name, value in figures.items():
        if not value > 0:
            raise ValueError(f"{name}: {value:g} is not above zero")
    if wanted.utilisation > 1:
        raise ValueError(f"utilisation: {wanted.utilisation:g} is above 1")
