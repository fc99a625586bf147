"""Answers about the platform: health, level, snapshots, gaps, status, sizes, metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import k2client
from k2 import limits
from k2client import records
from k2client.errors import K2Error, NotFound
from k2client.json_form import json_value
from servers.edge import documents
from servers.edge import panels as board
from servers.edge.parts import EdgeParts, Parts
from servers.edge.problems import PROBLEMS

_TRANSITIONS: Final = 20
_SERVING: Final = "SERVING"
_NOT_SERVING: Final = "NOT_SERVING"
_NEEDED: Final = ("feed", "query")  # without one of each there is nothing new or no answer

router = APIRouter(responses=PROBLEMS, tags=["platform"])
Limit = Annotated[int, Query(ge=1, le=limits.EDGE_LISTED_MAX, description="the newest so many")]


@router.get(
    "/health",
    response_model=documents.HealthDocument,
    responses={503: {"model": documents.HealthDocument, "description": "It does not serve"}},
)
async def health(parts: Parts) -> Response:
    """Tell whether K2 serves: a feed listens and queries are answered.

    A degraded platform serves, at any level. No key is looked at.
    """
    try:
        status = await parts.control.run(lambda: parts.state.client().status())
    except K2Error as error:
        missing = {"status": _NOT_SERVING, "level": None, "processes": {"control": error.reason}}
        return JSONResponse(missing, 503)
    states = {component.name: component.state for component in status.components}
    serves = all(_one_serves(kind, states) for kind in _NEEDED)
    said = {
        "status": _SERVING if serves else _NOT_SERVING,
        "level": status.level,
        "processes": states,
    }
    return JSONResponse(said, 200 if serves else 503)


def _one_serves(kind: str, states: dict[str, str]) -> bool:
    return any(name.startswith(kind) and state == _SERVING for name, state in states.items())


@router.get("/v1/snapshots", response_model=documents.SnapshotsDocument)
async def snapshots(parts: Parts, limit: Limit = limits.PAGE_SIZE_DEFAULT) -> Response:
    """List the retained snapshots of the lake, newest first.

    `as_of` takes the id of one: the rows as they were committed then.
    """
    return await _answer(parts, lambda k2: k2.snapshots(limit))


@router.get("/v1/gaps", response_model=documents.GapsDocument)
async def gaps(
    parts: Parts,
    symbol: Annotated[str | None, Query(min_length=1)] = None,
    exchange: Annotated[str | None, Query(min_length=1)] = None,
    state: Literal["open", "filled", "unfillable", "void"] | None = None,
    limit: Limit = limits.PAGE_SIZE_DEFAULT,
) -> Response:
    """List the runs of trade ids that were missed, and what became of them."""
    return await _answer(
        parts, lambda k2: k2.gaps(symbol, exchange=exchange, state=state, limit=limit)
    )


@router.get("/v1/degradation", response_model=documents.DegradationDocument)
async def degradation(parts: Parts) -> Response:
    """Return the degradation level, the pressures behind it, and its last changes."""

    def ask(k2: k2client.Client) -> dict[str, Any]:
        shown: dict[str, Any] = json_value(k2.degradation())
        return shown | {"transitions": k2.transitions(_TRANSITIONS)}

    return await _answer(parts, ask)


@router.get("/v1/status", response_model=documents.StatusDocument)
async def status(parts: Parts) -> Response:
    """Return the state of the platform and of each of its components."""
    return await _answer(parts, lambda k2: k2.status())


@router.get("/v1/stats", response_model=documents.StatsDocument)
async def stats(parts: Parts) -> Response:
    """Return how much there is: the newest snapshot, the topics of the tape, the feeds."""
    return await _answer(parts, _stats)


def _stats(k2: k2client.Client) -> dict[str, object]:
    return {
        "snapshot": _newest(k2),
        "topics": k2.topics().topics,
        "feeds": k2.feeds(),
        "gaps": Counter(gap.state for gap in k2.gaps()),
    }


def _newest(k2: k2client.Client) -> records.Snapshot | None:
    try:
        return k2.snapshot()
    except NotFound:
        return None


@router.get("/v1/panels", response_model=documents.PanelsDocument)
async def panels(parts: Parts) -> Response:
    """Tell which panels the board System Health has, and whether a Prometheus has their values."""
    titles = [panel["title"] for panel in board.panels()]
    return await _timed(parts, lambda: {"prometheus": bool(parts.prometheus_url), "titles": titles})


@router.get("/v1/panels/{panel}/{target}", response_model=documents.SeriesDocument)
async def panel_series(
    parts: Parts,
    panel: Annotated[int, Path(ge=0, le=999)],
    target: Annotated[int, Path(ge=0, le=99)],
    last_s: Annotated[int, Query(ge=60, le=86_400)] = 900,
    step_s: Annotated[int, Query(ge=5, le=3_600)] = 15,
) -> Response:
    """Return the series of a query of a panel, both by their place on the board."""
    query = board.query_of(panel, target)
    if not parts.prometheus_url:
        raise NotFound("OUT_OF_RANGE", "this stack has no Prometheus: k2 up --observe brings one")
    end_s = parts.clock.now_us() / 1e6
    return await _timed(
        parts, lambda: board.ranged(parts.prometheus_url, query, end_s, last_s, step_s)
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
)
async def metrics(parts: Parts, request: Request) -> Response:
    """Return the metrics of this process, for Prometheus."""
    encode, kind = choose_encoder(request.headers.get("Accept", ""))
    content = await parts.control.run(lambda: encode(_registry(parts)))
    return Response(content, media_type=kind)


def _registry(parts: EdgeParts) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    for collector in parts.collectors:
        registry.register(collector)
    return registry


async def _answer(parts: EdgeParts, ask: Callable[[k2client.Client], object]) -> Response:
    """Ask K2 in a thread; the answer is `{"data": …, "timing_ms": …}`."""
    return await _timed(parts, lambda: ask(parts.connections.client()))


async def _timed(parts: EdgeParts, make: Callable[[], object]) -> Response:
    started_s = parts.clock.monotonic_s()
    data = await parts.control.run(lambda: json_value(make()))
    took_s = parts.clock.monotonic_s() - started_s
    return JSONResponse({"data": data, "timing_ms": {"total": round(took_s * 1e3, 3)}})
