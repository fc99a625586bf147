"""Answers questions for rows: trades, and what is made of trades."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

import k2client
from k2 import limits
from k2client.errors import Invalid
from servers.edge import documents, negotiation
from servers.edge.live import NewestTrades, Watcher
from servers.edge.negotiation import AnswerForm
from servers.edge.parts import Parts, RequestClass
from servers.edge.problems import PROBLEMS
from servers.edge.row_answers import NEXT_CURSOR, Answer, Ask, RowQuestion, answered
from servers.edge.row_cursor import PATTERN as CURSOR_PATTERN
from servers.edge.row_cursor import Cursor

RECENT: Final = "15m"
_NAME: Final = Field(min_length=1, max_length=limits.SYMBOL_BYTES_MAX)
Name = Annotated[str, _NAME]
Names = Annotated[list[Name] | None, Field(max_length=limits.SYMBOLS_PER_QUERY_MAX)]
Word = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_,]+$")]
Words = Annotated[list[Word] | None, Field(max_length=limits.SYMBOLS_PER_QUERY_MAX)]
_OF_A_PAGE: Final = frozenset({"limit", "cursor", "format", "plan_only"})
_RENAMED: Final = {"symbol": "symbols", "exchange": "exchanges"}  # the parameter is repeated
_STREAMS: Final[dict[str, Any]] = {form.media_type: {} for form in negotiation.FORMS if form.write}

ROWS: Final[dict[int | str, dict[str, Any]]] = PROBLEMS | {
    200: {
        "description": "Rows, in the form that Accept or `format` asks for",
        "content": _STREAMS,
        "headers": {
            name: {"schema": {"type": "string"}, "description": about}
            for name, about in {
                "k2-token": "asks for the same rows again, as `as_of`",
                NEXT_CURSOR: "`cursor` of the next page, of forms other than JSON;"
                f" not where `limit` is above {limits.EDGE_ROWS_MAX}",
                "k2-snapshot-id": "the newest snapshot that the rows are from",
                "k2-source": "LIVE, RECORDED or SIMULATED",
                "k2-completeness": "whether rows are known to be missing",
                "k2-level": "of degradation",
                "k2-gaps-total": "runs of missing ids among the rows",
                "ETag": "the same for the same rows",
            }.items()
        },
    },
    304: {"description": "The rows are those of If-None-Match"},
}
"""The answers of a route for rows, as OpenAPI has them."""

router = APIRouter(tags=["rows"], responses=ROWS)
router_live = APIRouter(tags=["rows"], responses=PROBLEMS)


class PageParameters(BaseModel):
    """The parameters of a page."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(
        default=limits.EDGE_ROWS_DEFAULT,
        ge=1,
        le=limits.LIMIT_ROWS_MAX,
        description=f"rows at most; in JSON no more than {limits.EDGE_ROWS_MAX}",
    )
    cursor: str | None = Field(
        default=None,
        max_length=limits.EDGE_CURSOR_CHARS_MAX,
        pattern=CURSOR_PATTERN,
        description="`next_cursor` of a page: the next one of the same answer",
    )
    format: Literal["json", "ndjson", "csv", "arrow", "parquet"] | None = Field(
        default=None, description="the form of the answer, in place of Accept"
    )
    plan_only: bool = Field(default=False, description="plan and estimate, without rows; JSON")


class SourceParameters(PageParameters):
    """Which trades a question is about, its symbols aside."""

    exchange: Words = Field(default=None, description="may be repeated; unset: all that know it")
    as_of: str | None = Field(
        default=None,
        max_length=limits.READ_TOKEN_CHARS_MAX,
        pattern=r"^[ -~]*$",
        description="a snapshot's id, a time, or the read token of an answer",
    )
    consistency: Literal["union", "committed"] | None = Field(
        default=None, description="lake and tail (default), or the lake alone"
    )
    allow_partial: bool = Field(
        default=False, description="answer although a side is missing; `provenance` says which"
    )
    columns: Words = Field(default=None, description="may be repeated; unset: all")


class RowsParameters(SourceParameters):
    """A question about some symbols."""

    symbol: Names = Field(default=None, description="may be repeated; unset: all")


class RangedParameters(RowsParameters):
    """A half-open range of event times."""

    start: str | None = Field(
        default=None,
        max_length=64,
        description="the first time inside: ISO 8601, or microseconds since 1970",
    )
    end: str | None = Field(default=None, max_length=64, description="the first time outside")
    last: str | None = Field(
        default=None,
        max_length=64,
        description="the length of a range that ends now, such as 15m, instead of both",
    )


class TradesParameters(RangedParameters):
    """A question for trades."""

    order: Literal["asc", "desc"] = Field(default="desc", description="newest or oldest first")


class RecentParameters(RowsParameters):
    """A question for the newest trades."""

    last: str = Field(default=RECENT, max_length=64, description="the length of the range")
    order: Literal["asc", "desc"] = Field(default="desc", description="newest or oldest first")


@router.get("/v1/trades", response_model=documents.TradesDocument)
async def trades(
    parts: Parts,
    request: Request,
    asked: Annotated[TradesParameters, Query()],
    k2_class: RequestClass = None,
) -> Response:
    """Return trades of a half-open range of event times, newest first.

    They are of lake and tail as one, each exactly once. Pages of one answer have the same rows
    whatever is committed meanwhile.
    """
    return await answered(parts, request, question_of(request, asked, _trades, k2_class))


@router.get("/v1/trades/recent", response_model=documents.TradesDocument)
async def recent_trades(
    parts: Parts,
    request: Request,
    asked: Annotated[RecentParameters, Query()],
    k2_class: RequestClass = None,
) -> Response:
    """Return the trades of the last 15 minutes, or of another duration, newest first.

    Trades that are not committed yet are among them: they are read from the tail.
    """
    return await answered(parts, request, question_of(request, asked, _trades, k2_class))


async def _watching_trades(
    parts: Parts,
    symbol: Annotated[Name, Query()],
    exchange: Annotated[Name | None, Query()] = None,
) -> AsyncIterator[Watcher]:
    """Watch the trades of a symbol until the answer ends; what cannot be asked has its status."""
    key = ("trades", symbol, exchange)
    watcher = await parts.live.watch(key, "trades", lambda: NewestTrades(symbol, exchange))
    try:
        yield watcher
    finally:
        watcher.leave()


@router_live.get("/v1/trades/stream", response_class=EventSourceResponse)
async def trades_stream(
    watcher: Annotated[Watcher, Depends(_watching_trades)],
) -> AsyncIterable[ServerSentEvent]:
    """Send the newest trades of a symbol, and then those that come, as server-sent events.

    An event `trades` has rows as `/v1/trades` has them, oldest first, at most twice a second. An
    event `problem` says why there is nothing new. A stream that ends is to be opened again, as
    browsers do; it begins with the newest trades, so a reader drops the ids it has.
    """
    async for event in watcher.events():
        yield event


def _trades(k2: k2client.Client, given: Mapping[str, Any]) -> Answer:
    return k2.trades(given.get("symbols"), **_without(given, "symbols"))


def _without(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


def question_of(
    request: Request,
    asked: PageParameters,
    ask: Ask,
    request_class: str | None,
    fixed: Mapping[str, Any] | None = None,
) -> RowQuestion:
    """Make the question of a request.

    Args:
        request: its path and its Accept.
        asked: its parameters.
        ask: asks K2.
        request_class: how urgent it is.
        fixed: further parameters, of its path.

    Raises:
        Invalid: NOT_ACCEPTABLE, BAD_PAGE_TOKEN, LIMIT_OUT_OF_BOUNDS.
    """
    form = negotiation.chosen(request.headers.get("Accept", ""), asked.format)
    form = negotiation.JSON if asked.plan_only else form
    _check_limit(asked.limit, form)
    named = _named(asked.model_dump(exclude_none=True)) | dict(fixed or {})
    cursor = None
    if asked.cursor is not None:
        cursor = Cursor.decode(asked.cursor)
        given = _named(asked.model_dump(exclude_unset=True)) | dict(fixed or {})
        _check_same(cursor, request.url.path, given)
        named = dict(cursor.asked)
    return RowQuestion(
        path=request.url.path,
        asked=named,
        ask=ask,
        limit=asked.limit,
        form=form,
        cursor=cursor,
        by_time=ask is _trades,
        plan_only=asked.plan_only,
        request_class=request_class,
    )


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters by the client's names; names that are split at commas as lists."""
    return {
        _RENAMED.get(name, name): _listed(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name not in _OF_A_PAGE
    }


def _listed(names: list[str]) -> list[str]:
    return [part for name in names for part in name.split(",")]


def _check_limit(limit: int, form: AnswerForm) -> None:
    if form.write is None and limit > limits.EDGE_ROWS_MAX:
        raise Invalid(
            "LIMIT_OUT_OF_BOUNDS",
            f"limit: a page in JSON has at most {limits.EDGE_ROWS_MAX} rows: take its next_cursor,"
            " or another form",
            metadata={"field": "limit"},
        )


def _check_same(cursor: Cursor, path: str, given: Mapping[str, Any]) -> None:
    """Check that a page is one of the answer that its cursor is of."""
    other = [name for name, value in given.items() if cursor.asked.get(name) != value]
    if cursor.path != path or other:
        what = ", ".join(other) or "path"
        raise Invalid("BAD_PAGE_TOKEN", f"cursor: it is of a request with another {what}")
