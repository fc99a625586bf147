"""Builds the MCP server: one tool a verb of `k2client`, all of them read-only.

A tool connects when it is called, so it follows a stack that starts again on other ports. It asks
for one row more than it shows, which says whether there are more; the row counts of a provenance
are those of the rows that K2 read. An error is a result with K2's reason, for the model to read.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import Field

import k2client
from k2cli.assistant import answers
from k2cli.assistant.answers import ROWS_DEFAULT, ROWS_MAX
from k2client.errors import K2Error
from k2client.json_form import json_value

Connect = Callable[[], k2client.Client]

_INSTRUCTIONS = """\
K2 is a market-data lakehouse: trades of venues as one exact table, and what is computed from them.
Ranges are half-open, times are UTC, decimals and 64-bit ids are exact and come as strings: compute
with decimals, never with floats. Each answer has its provenance: `source` SIMULATED or RECORDED
means that the data is not live (say so), `completeness` and `gaps` say what is missing. To ask for
the same rows again at any later time, repeat the question with `as_of` = `provenance.token`, and
with `start` = `provenance.range.start_time` instead of `last`. `cut` true: there are more rows.
"""
_READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)

_Symbols = Annotated[
    str | list[str] | None, Field(description="A symbol such as BTCUSDT, or several; unset: all.")
]
_Symbol = Annotated[str, Field(description="A symbol such as BTCUSDT.")]
_Zone = Annotated[str | None, Field(description="Time zone of days and bars; unset: UTC.")]
_Limit = Annotated[int, Field(ge=1, le=ROWS_MAX, description="The largest number of rows.")]
_Exchanges = Annotated[
    str | list[str] | None, Field(description="Exchanges; unset: each that knows the symbol.")
]
_Columns = Annotated[list[str] | None, Field(description="Columns to return; unset: all.")]
_Consistency = Annotated[
    Literal["union", "committed"] | None,
    Field(description="union (default): lake and tail; committed: the lake only."),
]
_AsOf = Annotated[
    str | None,
    Field(description="A snapshot id, a time, or a read token: the state to answer from."),
]
_Partial = Annotated[bool, Field(description="Answer although a side is missing.")]
_Start = Annotated[str | None, Field(description="First time inside, ISO 8601.")]
_End = Annotated[str | None, Field(description="First time outside, ISO 8601.")]
_Last = Annotated[
    str | None, Field(description="Length of a range that ends now: 90s, 15m, 2h, 1d.")
]
_Order = Annotated[Literal["asc", "desc"], Field(description="Oldest or newest first.")]

_STATE = {"consistency": (_Consistency, None), "as_of": (_AsOf, None)}
_SCOPE = {"exchanges": (_Exchanges, None), "columns": (_Columns, None)}
_RANGE = {"start": (_Start, None), "end": (_End, None), "last": (_Last, None)}
_ROWS = {"limit": (_Limit, ROWS_DEFAULT), "allow_partial": (_Partial, False)}
_COMMON = _RANGE | _SCOPE | _STATE | _ROWS
_NEWEST_FIRST = {"order": (_Order, "desc")}
_REQUIRED = inspect.Parameter.empty

Parameters = Mapping[str, tuple[Any, Any]]
"""The type and the default of each parameter of a tool."""


@dataclass(frozen=True)
class Question:
    """A verb of the client that answers with rows.

    Attributes:
        verb: its name, in the client and as a tool.
        description: what it answers, for the model.
        parameters: what a caller may give.
    """

    verb: str
    description: str
    parameters: Parameters


QUESTIONS = (
    Question(
        "trades",
        "Trades, from lake and tail as one, each exactly once.",
        {"symbols": (_Symbols, None)} | _NEWEST_FIRST | _COMMON,
    ),
    Question(
        "bars",
        "Bars: open, high, low, close, volume, quote volume, count, vwap, buy volume, final.",
        {
            "symbols": (_Symbols, None),
            "every": (Annotated[str, Field(description="Length: 1s, 5m, 1h, 1d, 1w, 1mo.")], "1m"),
            "fill": (
                Annotated[
                    Literal["none", "prev", "null"] | None,
                    Field(description="What a bar without trades is: absent, last close, null."),
                ],
                None,
            ),
            "tz": (_Zone, None),
        }
        | _NEWEST_FIRST
        | _COMMON,
    ),
    Question("vwap", "Volume-weighted mean price.", {"symbols": (_Symbols, None)} | _COMMON),
    Question("twap", "Time-weighted mean price.", {"symbols": (_Symbols, None)} | _COMMON),
    Question("latest", "The newest trade of each symbol.", {"symbols": (_Symbols, None)} | _COMMON),
    Question(
        "asof",
        "Each trade of `left` with the trade of `right` at that time, as columns right_*.",
        {
            "left": (_Symbol, _REQUIRED),
            "right": (_Symbol, _REQUIRED),
            "tolerance": (
                Annotated[str | None, Field(description="Largest distance in time: 5s.")],
                None,
            ),
            "direction": (
                Annotated[
                    Literal["backward", "forward"] | None,
                    Field(description="The last trade before (default), or the first after."),
                ],
                None,
            ),
        }
        | _NEWEST_FIRST
        | _COMMON,
    ),
    Question(
        "markouts",
        "How the price moved after each trade, signed by its side, at several horizons.",
        {
            "symbols": (_Symbols, None),
            "horizons": (
                Annotated[list[str] | None, Field(description="Such as 1s, 10s, 1m (default).")],
                None,
            ),
        }
        | _NEWEST_FIRST
        | _COMMON,
    ),
    Question(
        "summary",
        "A day of each symbol: open, high, low, close, volume, count, vwap, twap, largest trade.",
        {
            "symbols": (_Symbols, None),
            "date": (Annotated[str, Field(description="The day, YYYY-MM-DD.")], _REQUIRED),
            "tz": (_Zone, None),
        }
        | _SCOPE
        | _STATE
        | _ROWS,
    ),
    Question(
        "symbols",
        "The symbols that K2 has, with first and last trade.",
        {"symbols": (_Symbols, None)} | _COMMON,
    ),
    Question(
        "availability",
        "Per day and symbol: available, degraded, pending or missing, and what is missing.",
        {"symbols": (_Symbols, None), "tz": (_Zone, None)} | _COMMON,
    ),
)


class _StrictServer(MCPServer[Any]):
    """Refuses arguments that a tool does not have; the SDK would answer without them."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool by its name.

        Raises:
            ToolError: there is no such tool or argument, or an argument has another type.
        """
        known = {tool.name: tool.input_schema["properties"] for tool in await self.list_tools()}
        unknown = sorted(arguments.keys() - known.get(name, arguments).keys())
        if unknown:
            raise ToolError(f"{name} has no argument {', '.join(unknown)}")
        return await super().call_tool(name, arguments, context)


def build(connect: Connect) -> MCPServer[Any]:
    """Build the server.

    Args:
        connect: makes a connection to K2, at each call of a tool.
    """
    server = _StrictServer(
        "k2",
        title="K2",
        instructions=_INSTRUCTIONS,
        version=metadata.version("k2-lakehouse"),
        log_level="WARNING",
    )
    for question in QUESTIONS:
        _add(server, question.verb, question.description, _rows_tool(question, connect))
    _add_reports(server, connect)
    return server


def _add(server: MCPServer[Any], name: str, description: str, tool: Callable[..., Any]) -> None:
    server.add_tool(tool, name, description=description, annotations=_READ_ONLY)


def _rows_tool(question: Question, connect: Connect) -> Callable[..., CallToolResult]:
    """Make the function of a tool, with the parameters of its question as its signature."""

    def answer(**asked: Any) -> CallToolResult:  # noqa: ANN401 as the signature says
        limit = asked.pop("limit")
        given = {
            name: value
            for name, value in asked.items()
            if name == "symbols" or value not in (None, False)
        }

        def ask(k2: k2client.Client) -> dict[str, Any]:
            rows = getattr(k2, question.verb)(limit=limit + 1, **given)
            return answers.row_document(rows, limit)

        return _result(connect, ask)

    answer.__name__ = question.verb
    answer.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # the SDK reads it
        [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
            for name, (kind, default) in question.parameters.items()
        ],
        return_annotation=CallToolResult,
    )
    return answer


def _add_reports(server: MCPServer[Any], connect: Connect) -> None:
    """Add the tools that answer with records of the platform."""

    def snapshots(limit: _Limit = ROWS_DEFAULT) -> CallToolResult:
        def ask(k2: k2client.Client) -> dict[str, Any]:
            return answers.record_document("snapshots", k2.snapshots(limit + 1), limit, k2)

        return _result(connect, ask)

    def gaps(
        symbol: str | None = None,
        exchange: str | None = None,
        state: Literal["open", "filled", "unfillable", "void"] | None = None,
        limit: _Limit = ROWS_DEFAULT,
    ) -> CallToolResult:
        def ask(k2: k2client.Client) -> dict[str, Any]:
            listed = k2.gaps(symbol, exchange=exchange, state=state, limit=limit + 1)
            return answers.record_document("gaps", listed, limit, k2)

        return _result(connect, ask)

    def status() -> CallToolResult:
        def ask(k2: k2client.Client) -> dict[str, Any]:
            return {
                "status": json_value(k2.status()),
                "degradation": json_value(k2.degradation()),
                "provenance": answers.platform_origin(k2),
            }

        return _result(connect, ask)

    _add(server, "snapshots", "The retained snapshots of the lake, newest first.", snapshots)
    _add(server, "gaps", "Runs of trade ids that were missed, and their states.", gaps)
    _add(server, "status", "State, level and pressures of the platform.", status)


def _result(connect: Connect, ask: Callable[[k2client.Client], dict[str, Any]]) -> CallToolResult:
    """Ask K2, and convert the answer or the error."""
    try:
        with connect() as k2:
            text, failed = answers.compact(ask(k2)), False
    except K2Error as error:
        text, failed = answers.compact(answers.error_document(error)), True
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=json.loads(text),
        is_error=failed,
    )
