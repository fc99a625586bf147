"""Runs the practice venue: a synthetic market or a recording, on one loopback port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from k2 import limits
from k2.errors import Invalid, Reason
from k2.feed import recording
from k2.market.instrument import is_symbol
from k2.metrics import exported
from k2.settings import Settings
from k2.telemetry import Counter, DataclassInstance, Gauge
from servers.network import reached_at, split_address
from servers.process import Process
from servers.runtime import Runtime
from servers.venue.archive import Archive, RecordingArchive, SyntheticArchive
from servers.venue.hub import Hub
from servers.venue.market.synthetic_market import Market, Segment, continued, opened
from servers.venue.recorded_source import RecordedSource
from servers.venue.state_files import read_segments, write_segments
from servers.venue.synthetic_source import MarketRate, SyntheticSource
from servers.venue.venue_server import MarketSource, Venue, VenueOptions

_RECORDING = "recording:"


@dataclass(frozen=True)
class HubCounters:
    """Connections now and ever, and frames sent."""

    connections: Annotated[Gauge, exported("k2_venue_connections", "Connections that are open.")]
    connections_total: Counter
    sent: Annotated[
        Counter,
        exported("k2_venue_trades_sent_total", "Trades sent, counted for each connection."),
    ]


@dataclass(frozen=True)
class SyntheticCounters:
    """Progress of the synthetic market; `ids` has the last trade id of each symbol."""

    rate: Annotated[
        Gauge, exported("k2_venue_rate", "Trades a second that the practice venue prints.")
    ]
    until_us: int
    ids: Mapping[str, int]


@dataclass(frozen=True)
class RecordingCounters:
    """Progress of a recording."""

    speed: Gauge
    position: Gauge
    safe_position: Gauge
    ended: bool


class _Show(NamedTuple):
    """The market that is played, its past, its counters, and its rate where it has one."""

    source: MarketSource
    archive: Archive
    counters: Callable[[], DataclassInstance]
    rate: MarketRate | None = None


def run(settings: Settings, runtime: Runtime, argv: list[str]) -> int:
    """Serve until the process is asked to stop.

    Raises:
        Invalid: BAD_SETTING.
        NotFound: there is no such recording.
        Data: the data directory belongs to another market or recording.
        Unavailable: PORT_IN_USE.
    """
    if argv:
        raise Invalid(Reason.BAD_REQUEST, "the venue takes no arguments, only settings")
    host, port = split_address(settings.venue.listen, settings.access.trusted_networks)
    with Process.running("venue", settings, runtime) as process:
        hub = Hub()
        show = _show(settings, runtime, hub)
        process.counters.add(lambda: HubCounters(**hub.counters()))
        process.counters.add(show.counters)
        asyncio.run(_serve(process, hub, show, (host, port)))
    return 0


async def _serve(process: Process, hub: Hub, show: _Show, address: tuple[str, int]) -> None:
    runtime = process.runtime
    venue = Venue(
        source=show.source,
        archive=show.archive,
        hub=hub,
        clock=runtime.clock,
        terms=VenueOptions(
            cut_s=process.settings.venue.cut_s,
            trusted=process.settings.access.trusted_networks,
        ),
        rate=show.rate,
    )
    host = reached_at(address[0])
    port = await venue.start(*address)
    process.start({"ws": f"ws://{host}:{port}", "http": f"http://{host}:{port}"})
    process.serve()
    try:
        await _until_stopped(runtime, venue)
    finally:
        runtime.stopping.set()
        await venue.close()


async def _until_stopped(runtime: Runtime, venue: Venue) -> None:
    """Return when the process is asked to stop; raise what the source fails with."""
    asked = asyncio.create_task(asyncio.to_thread(runtime.stopping.wait))
    failed = asyncio.create_task(venue.failed())
    done, _ = await asyncio.wait({asked, failed}, return_when=asyncio.FIRST_COMPLETED)
    if failed in done:
        failed.result()
    failed.cancel()


def _show(settings: Settings, runtime: Runtime, hub: Hub) -> _Show:
    what = settings.feed.venue
    if what == "synthetic":
        return _synthetic(settings, runtime, hub)
    if what.startswith(_RECORDING):
        return _recorded(settings, runtime, hub, Path(what.removeprefix(_RECORDING)))
    raise Invalid(
        Reason.BAD_SETTING,
        f"feed.venue is {what!r}: the practice venue plays synthetic or recording:PATH",
    )


def _synthetic(settings: Settings, runtime: Runtime, hub: Hub) -> _Show:
    seed, symbols, clock = settings.venue.seed, _checked(settings), runtime.clock
    kept = settings.data_dir / "venue" / "segments.json"
    segments = _segments(settings, kept, symbols, clock.now_us())
    source = SyntheticSource(market=Market(seed, segments), hub=hub, clock=clock)
    archive = SyntheticArchive(Market(seed, segments), clock)
    rate = MarketRate(
        symbols=symbols,
        trades_per_s=settings.venue.rate,
        kept=kept,
        source=source,
        archive=archive,
        clock=clock,
    )

    def counters() -> SyntheticCounters:
        until_us, shown = source.until_us, rate.shown
        ids = {symbol: shown.emitted(symbol, until_us) for symbol in symbols}
        return SyntheticCounters(rate.trades_per_s, until_us, ids)

    return _Show(source, archive, counters, rate)


def _segments(
    settings: Settings, kept: Path, symbols: tuple[str, ...], now_us: int
) -> tuple[Segment, ...]:
    """Load or extend the segments of the market, which the data directory keeps."""
    seed, rate = settings.venue.seed, settings.venue.rate
    known = read_segments(kept, seed)
    if known:
        segments = continued(Market(seed, known), symbols, rate, now_us)
    else:
        segments = opened(symbols, rate)
    if segments != known:
        write_segments(kept, seed, segments)
    return segments


def _recorded(settings: Settings, runtime: Runtime, hub: Hub, path: Path) -> _Show:
    traded = recording.symbols(path)
    source = RecordedSource(
        path=path,
        kept=settings.data_dir / "venue" / "position.json",
        speed=settings.venue.speed,
        hub=hub,
        clock=runtime.clock,
    )
    archive = RecordingArchive(path, traded, lambda: source.position)

    def counters() -> RecordingCounters:
        return RecordingCounters(
            speed=settings.venue.speed,
            position=source.position,
            safe_position=source.safe_position,
            ended=source.ended,
        )

    return _Show(source, archive, counters)


def _is_playable(symbol: str) -> bool:
    """Whether a symbol fits the frames that the synthetic market writes."""
    size = max(len(symbol.encode()), len(symbol.lower().encode()))
    return is_symbol(symbol) and 2 <= size <= limits.VENUE_SYMBOL_BYTES_MAX


def _checked(settings: Settings) -> tuple[str, ...]:
    """Check the settings of the market; returns the symbols to trade."""
    symbols = tuple(dict.fromkeys(symbol.upper() for symbol in settings.feed.symbols))
    wrong = [symbol for symbol in symbols if not _is_playable(symbol)]
    if wrong or not 1 <= len(symbols) <= limits.VENUE_SYMBOLS_MAX:
        raise Invalid(
            Reason.BAD_SETTING,
            f"feed.symbols: 1 to {limits.VENUE_SYMBOLS_MAX} names like BTCUSDT, not {wrong}",
        )
    if settings.venue.rate > limits.VENUE_RATE_MAX:
        raise Invalid(
            Reason.BAD_SETTING,
            f"venue.rate: the practice venue trades at most {limits.VENUE_RATE_MAX:,.0f} a second",
        )
    return symbols
