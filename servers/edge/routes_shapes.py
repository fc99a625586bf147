"""Answers questions for what is made of trades: bars, days, the newest, the instruments."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

import k2client
from servers.edge import documents
from servers.edge.live import ChangingBars, Watcher
from servers.edge.parts import Parts, RequestClass
from servers.edge.problems import PROBLEMS
from servers.edge.routes_rows import (
    ROWS,
    Name,
    RangedParameters,
    RowsParameters,
    SourceParameters,
    question_of,
)
from servers.edge.row_answers import Answer, answered

_EVERY: Final = r"^[1-9][0-9]{0,7}(ms|s|m|h|d|w|mo)$"
_ZONE: Final = r"^[A-Za-z0-9_+/-]{1,64}$"
_DAY: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
Every = Annotated[
    str, Field(pattern=_EVERY, description="n of ms s m h that divides a day, or 1d 1w 1mo")
]
Zone = Annotated[str, Field(pattern=_ZONE, description="of the IANA database, whose days they are")]

router = APIRouter(tags=["rows"], responses=ROWS)
router_live = APIRouter(tags=["rows"], responses=PROBLEMS)


class BarsParameters(RangedParameters):
    """A question for bars."""

    every: Every = "1m"
    fill: Literal["none", "prev", "null"] = Field(
        default="none",
        description="bars without trades: left out, with the last close (prev: at the start of the"
        " range that of the hour before it, else null), or null",
    )
    tz: Zone = "UTC"
    order: Literal["asc", "desc"] = Field(default="desc", description="newest or oldest first")


class SummaryParameters(SourceParameters):
    """A question for a day."""

    tz: Zone = "UTC"


@router.get("/v1/bars", response_model=documents.BarsDocument)
async def bars(
    parts: Parts,
    request: Request,
    asked: Annotated[BarsParameters, Query()],
    k2_class: RequestClass = None,
) -> Response:
    """Return bars: open, high, low, close, volumes, vwap, and whether they are final.

    Newest first. The range's start is moved to the start of a bar.
    """
    return await answered(parts, request, question_of(request, asked, _bars, k2_class))


@router.get("/v1/latest", response_model=documents.TradesDocument)
async def latest(
    parts: Parts,
    request: Request,
    asked: Annotated[RowsParameters, Query()],
    k2_class: RequestClass = None,
) -> Response:
    """Return the newest trade of each instrument."""
    return await answered(parts, request, question_of(request, asked, _latest, k2_class))


@router.get("/v1/symbols", response_model=documents.SymbolsDocument)
async def symbols(
    parts: Parts,
    request: Request,
    asked: Annotated[RangedParameters, Query()],
    k2_class: RequestClass = None,
) -> Response:
    """Return the instruments that have trades: first and last one, and how many."""
    return await answered(parts, request, question_of(request, asked, _symbols, k2_class))


@router.get("/v1/summary/{symbol}/{date}", response_model=documents.SummaryDocument)
async def summary(
    parts: Parts,
    request: Request,
    asked: Annotated[SummaryParameters, Query()],
    symbol: Annotated[Name, Path()],
    date: Annotated[str, Path(pattern=_DAY, description="such as 2026-01-31")],
    k2_class: RequestClass = None,
) -> Response:
    """Return a day of an instrument in one row: prices, volumes, means, first and last trade.

    Of a day that goes on, the twap ends with the newest trade.
    """
    fixed = {"symbols": [symbol], "date": date}
    return await answered(parts, request, question_of(request, asked, _summary, k2_class, fixed))


async def _watching_bars(
    parts: Parts,
    symbol: Annotated[Name, Query()],
    exchange: Annotated[Name | None, Query()] = None,
    every: Annotated[Every, Query()] = "1m",
    tz: Annotated[Zone, Query()] = "UTC",
) -> AsyncIterator[Watcher]:
    """Watch the bars of a symbol until the answer ends."""
    key = ("bars", symbol, exchange, every, tz)

    def newest() -> ChangingBars:
        return ChangingBars(symbol, exchange, every, tz)

    watcher = await parts.live.watch(key, "bars", newest)
    try:
        yield watcher
    finally:
        watcher.leave()


@router_live.get("/v1/bars/stream", response_class=EventSourceResponse)
async def bars_stream(
    watcher: Annotated[Watcher, Depends(_watching_bars)],
) -> AsyncIterable[ServerSentEvent]:
    """Send the newest bars of a symbol, and each again when it has changed, as events.

    An event `bars` has rows as `/v1/bars` has them, oldest first: a later row of a `bar_start`
    replaces an earlier one. An event `problem` says why there is nothing new.
    """
    async for event in watcher.events():
        yield event


def _bars(k2: k2client.Client, given: Mapping[str, Any]) -> Answer:
    return k2.bars(**_with_symbols(given))


def _latest(k2: k2client.Client, given: Mapping[str, Any]) -> Answer:
    return k2.latest(**_with_symbols(given))


def _symbols(k2: k2client.Client, given: Mapping[str, Any]) -> Answer:
    return k2.symbols(**given)


def _summary(k2: k2client.Client, given: Mapping[str, Any]) -> Answer:
    return k2.summary(**given)


def _with_symbols(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"symbols": None} | dict(given)
