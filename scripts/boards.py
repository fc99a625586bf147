"""Builds the Grafana boards of `compose/observe` from code: `python -m scripts.boards`.

The JSON is committed. A test builds it again and compares, and checks that each metric and label
that a query names is declared. Another runs each query on a real Prometheus that scrapes a stack.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    ValueMap,
    ValueMappingResult,
)

from k2cli.cost.cost_model import per_million_expression, read_prices

FOLDER = Path(__file__).parents[1] / "compose/observe/grafana/dashboards"
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="k2-prometheus")
LEVELS = ("NORMAL", "SOFT", "GRACEFUL", "AGGRESSIVE", "CIRCUIT_BREAK")
COLORS = ("green", "yellow", "orange", "red", "dark-red")
RATE = "$__rate_interval"


class Query(NamedTuple):
    """A query of a panel: PromQL, and the name of its series."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """A panel: a line chart, or one number.

    Attributes:
        title: what it shows.
        unit: Grafana's name of it.
        queries: what it shows.
        about: the text behind its title.
        single: whether it is one number.
        levels: whether its values are levels.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    about: str = ""
    single: bool = False
    levels: bool = False


class Board(NamedTuple):
    """A board: its rows of panels, by their titles."""

    uid: str
    title: str
    about: str
    rows: Mapping[str, tuple[Panel, ...]]


def _rate(metric: str, by: str = "") -> str:
    """Sum the rates of a counter, by labels."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[{RATE}]))"


def _quantiles(metric: str, by: str = "", where: str = "") -> tuple[Query, ...]:
    """Ask a histogram for its median and its 99th percentile, by labels, of some series."""
    labels = f"le, {by}" if by else "le"
    chosen = f"{{{where}}}" if where else ""
    legend = "".join(f" {{{{{label}}}}}" for label in by.split(", ") if label)
    rates = f"sum by ({labels}) (rate({metric}_bucket{chosen}[{RATE}]))"
    return (
        Query(f"histogram_quantile(0.5, {rates})", f"p50{legend}"),
        Query(f"histogram_quantile(0.99, {rates})", f"p99{legend}"),
    )


def _one(title: str, unit: str, expr: str, *, about: str = "", levels: bool = False) -> Panel:
    return Panel(title, unit, (Query(expr, title),), about, single=True, levels=levels)


def _lines(title: str, unit: str, *queries: Query, about: str = "", levels: bool = False) -> Panel:
    return Panel(title, unit, queries, about, levels=levels)


COST = _one(
    "Cost of a million messages",
    "currencyUSD",
    per_million_expression(
        _rate("k2_feed_trades_acknowledged_total"), "max(k2_lake_bytes_per_trade)", read_prices()
    ),
    about="At this rate on one machine, by the list prices of docs/cost-model.md.",
)

SYSTEM_HEALTH = Board(
    "k2-system-health",
    "K2 System Health",
    "API rate and latency, lag, degradation and its pressures, what is shed and deferred.",
    {
        "Degradation": (
            _one(
                "Platform level",
                "none",
                'max(k2_degradation_level{scope="platform"})',
                levels=True,
            ),
            _one("Override set", "bool", "max(k2_degradation_override)"),
            _one("Signals injected", "short", "max(k2_degradation_injected)"),
            _one("Evaluated", "s", "max(k2_degradation_evaluated_age_seconds)"),
            _lines(
                "Level",
                "none",
                Query('max(k2_degradation_level{scope="platform"})', "platform"),
                Query(
                    'max by (process) (k2_degradation_level{scope="process"})', "{{process}}"
                ),
                levels=True,
            ),
            _lines(
                "Pressure by signal",
                "percentunit",
                Query(
                    "max by (process, signal) (k2_degradation_pressure)",
                    "{{process}} {{signal}}",
                ),
                about="The highest pressure decides the level of its process.",
            ),
            _lines(
                "Transitions",
                "short",
                Query("sum by (to) (k2_degradation_transitions_total)", "to {{to}}"),
                about="Since the start of control.",
            ),
        ),
        "API": (
            _lines(
                "API rate",
                "reqps",
                Query(_rate("k2_http_requests_total", "route, code"), "{{route}} {{code}}"),
                about="Requests of the HTTP edge.",
            ),
            _lines(
                "API latency",
                "s",
                *_quantiles("k2_http_request_duration_seconds", "route", 'code=~"2.."'),
                about="Of the HTTP edge, of what succeeds; of a stream until it ended.",
            ),
            _lines(
                "Calls",
                "reqps",
                Query(_rate("k2_rpc_requests_total", "service, method"), "{{method}}"),
            ),
            _lines(
                "Calls that fail",
                "reqps",
                Query(_rate('k2_rpc_requests_total{code!="OK"}', "method, code"),
                      "{{method}} {{code}}"),
            ),
            _lines(
                "Call latency",
                "s",
                *_quantiles("k2_rpc_duration_seconds", "method", 'code="OK"'),
                about="Of calls that succeed; of a stream until it ended.",
            ),
            _lines(
                "Running",
                "short",
                Query("sum(k2_rpc_running)", "calls"),
                Query("sum(k2_flight_streams_running)", "streams"),
                Query("sum(k2_flight_streams_waiting)", "streams that wait"),
            ),
        ),
        "Lag": (
            _lines(
                "Consumer lag",
                "s",
                Query("max by (tier) (k2_consumer_lag_seconds)", "{{tier}}"),
                about="Records of paused partitions do not count: see Messages deferred.",
            ),
            _lines(
                "Consumer lag in messages",
                "short",
                Query("sum by (tier) (k2_consumer_lag_messages)", "{{tier}}"),
            ),
            _lines(
                "Freshness: frame received to queryable", "s", *_quantiles("k2_freshness_seconds")
            ),
        ),
        "Shed and deferred": (
            _lines(
                "Messages deferred",
                "short",
                Query("sum by (tier) (k2_deferred_records)", "{{tier}}"),
            ),
            _lines(
                "Partitions paused",
                "short",
                Query("sum by (tier) (k2_lake_partitions_paused)", "writer {{tier}}"),
                Query("sum by (tier) (k2_tail_partitions_paused)", "tail {{tier}}"),
            ),
            _lines(
                "Queries shed",
                "reqps",
                Query(_rate("k2_query_refused_total", "class, reason"), "{{class}} {{reason}}"),
                Query(_rate("k2_query_cancelled_total"), "cancelled"),
                Query(_rate("k2_query_deferred_total"), "deferred"),
            ),
            _lines(
                "Refusal latency",
                "s",
                *_quantiles("k2_query_refusal_seconds"),
                about="From the handler's entry to its status.",
            ),
            _lines(
                "Intake open",
                "bool",
                Query("min by (tier) (k2_feed_intake_open)", "{{tier}}"),
            ),
        ),
        "Processes": (
            _lines("Up", "bool", Query("min by (process) (k2_process_up)", "{{process}}"),
                   Query("min by (component) (k2_component_up)", "{{component}}")),
            _lines("Restarts", "short",
                   Query("sum by (process) (k2_process_restarts_total)", "{{process}}")),
            _lines("Resident memory", "bytes",
                   Query("sum by (process) (k2_process_resident_bytes)", "{{process}}")),
            _lines("CPU", "percentunit",
                   Query(_rate("k2_process_cpu_seconds_total", "process"), "{{process}}")),
        ),
        "Cost": (COST,),
    },
)  # fmt: skip

INGEST = Board(
    "k2-ingest",
    "K2 Ingest",
    "From the venue's frames to acknowledged records; gaps and their backfill.",
    {
        "Venue": (
            _one("Connections", "short", "sum(k2_feed_connected)"),
            _one("Gaps open", "short", 'max(k2_gaps{state="OPEN"})'),
            _one("Trades", "ops", "sum(k2_feed_trades_per_second)"),
            _one("Frames in the queue", "short", "sum(k2_feed_queue_frames)"),
            _lines("Frames", "ops", Query(_rate("k2_feed_frames_total"), "frames")),
            _lines("Trades by symbol", "ops",
                   Query(_rate("k2_feed_trades_total", "symbol"), "{{symbol}}")),
            _lines("Trades acknowledged", "ops",
                   Query(_rate("k2_feed_trades_acknowledged_total", "symbol"), "{{symbol}}")),
            _lines("Practice venue sends", "ops",
                   Query(_rate("k2_venue_trades_sent_total"), "sent"),
                   Query("max(k2_venue_rate)", "asked")),
        ),
        "Gaps": (
            _lines("Gaps by state", "short",
                   Query("max by (state) (k2_gaps)", "{{state}}")),
            _lines("Ids in gaps", "short", Query("max by (state) (k2_gap_ids)", "{{state}}")),
            _lines("Missed and repeated", "ops",
                   Query(_rate("k2_feed_ids_missing_total"), "ids missing"),
                   Query(_rate("k2_feed_duplicates_total"), "duplicates"),
                   Query(_rate("k2_feed_reordered_total"), "reordered"),
                   Query(_rate("k2_feed_resets_total"), "resets")),
            _lines("Backfill", "ops",
                   Query(_rate("k2_backfill_trades_total"), "trades"),
                   Query(_rate("k2_backfill_requests_total"), "requests"),
                   Query(_rate("k2_backfill_failures_total"), "failures")),
            _lines("Backfill paused", "bool", Query("max(k2_feed_backfill_paused)", "paused")),
        ),
        "Feed": (
            _lines("Reconnects", "short",
                   Query("sum(increase(k2_feed_reconnects_total[5m]))", "reconnects"),
                   Query("sum(increase(k2_feed_renewals_total[5m]))", "renewals")),
            _lines("Frames that are no trades", "ops",
                   Query(_rate("k2_feed_frames_skipped_total", "kind"), "{{kind}}"),
                   Query(_rate("k2_feed_frames_malformed_total"), "malformed")),
            _lines("Feed queue", "short", Query("sum(k2_feed_queue_frames)", "frames")),
        ),
        "Producer": (
            _lines("Records", "ops", Query(_rate("k2_produce_records_total"), "records"),
                   Query(_rate("k2_produce_errors_total"), "errors")),
            _lines("Bytes", "Bps", Query(_rate("k2_produce_bytes_total"), "bytes")),
            _lines("Produce latency", "s", *_quantiles("k2_produce_seconds")),
            _lines("Producer queue", "short", Query("sum(k2_produce_queue_records)", "records")),
        ),
    },
)  # fmt: skip

LAKE = Board(
    "k2-lake",
    "K2 Lake",
    "Commits, files, maintenance, dead letters, and what waits on the tape.",
    {
        "Commits": (
            _one("Last commit", "s", "time() - max(k2_lake_last_commit_time_seconds)"),
            _one("Rows", "short", "max(k2_lake_table_rows)"),
            _one("Size", "bytes", "max(k2_lake_table_bytes)"),
            _one("Bytes a trade", "bytes", "max(k2_lake_bytes_per_trade)"),
            _lines("Commits", "ops", Query(_rate("k2_lake_commits_total"), "commits")),
            _lines("Rows committed", "ops", Query(_rate("k2_lake_rows_total"), "rows")),
            _lines("Bytes written", "Bps", Query(_rate("k2_lake_bytes_total"), "bytes")),
            _lines("Commit latency", "s", *_quantiles("k2_lake_commit_seconds")),
            _lines("Failures", "short",
                   Query("sum(increase(k2_lake_commit_failures_total[5m]))", "failures"),
                   Query("sum(increase(k2_lake_fenced_total[5m]))", "fenced")),
        ),
        "Waiting": (
            _lines("Rows pending", "short", Query("sum(k2_lake_pending_rows)", "rows")),
            _lines("Consumer lag", "s",
                   Query("max by (tier) (k2_consumer_lag_seconds)", "{{tier}}")),
            _lines("Messages deferred", "short",
                   Query("sum by (tier) (k2_deferred_records)", "{{tier}}")),
            _lines("Partitions", "short",
                   Query("sum by (tier) (k2_lake_partitions_paused)", "paused {{tier}}"),
                   Query("sum(k2_lake_catching_up_partitions)", "catching up")),
            _lines("Retention margin", "s",
                   Query("min(k2_tape_retention_margin_seconds)", "margin"),
                   about="Until the tape removes a record that is not in the lake."),
        ),
        "Table": (
            _lines("Files", "short", Query("max(k2_lake_files)", "files")),
            _lines("Snapshots", "short", Query("max(k2_lake_snapshots)", "snapshots")),
            _lines("Files written", "ops", Query(_rate("k2_lake_files_written_total"), "files")),
            _lines("Maintenance", "short",
                   Query("sum(increase(k2_lake_compactions_total[5m]))", "compactions"),
                   Query("sum(increase(k2_lake_compacted_files_total[5m]))", "files compacted"),
                   Query("sum(increase(k2_lake_orphans_removed_total[5m]))", "orphans removed"),
                   Query("sum(increase(k2_lake_retention_removed_rows_total[5m]))",
                         "rows beyond retention")),
        ),
        "Quality": (
            _lines("Dead letters", "short",
                   Query("sum by (fault) (k2_dead_letters_total)", "{{fault}}")),
            _lines("Records judged", "short",
                   Query("max(k2_lake_duplicate_records)", "duplicates"),
                   Query("max(k2_lake_dead_records)", "dead")),
            _lines("Rows of ops tables", "ops",
                   Query(_rate("k2_ops_rows_total", "table"), "{{table}}")),
            _lines("Late share", "percentunit",
                   Query("max by (symbol) (k2_quality_late_ratio)", "{{symbol}}"),
                   about="Skipped from SOFT on."),
            _lines("Largest jump", "percentunit",
                   Query("max by (symbol) (k2_quality_largest_jump_ratio)", "{{symbol}}")),
        ),
        "Cost": (COST,),
    },
)  # fmt: skip

QUERIES = Board(
    "k2-queries",
    "K2 Queries",
    "Queries by class, their latency by side, streams, and the tail.",
    {
        "Classes": (
            _lines("Running", "short",
                   Query("sum by (class) (k2_query_running)", "{{class}}"),
                   Query("sum by (class) (k2_query_places)", "places {{class}}")),
            _lines("Answered", "reqps",
                   Query(_rate("k2_query_answered_total", "class"), "{{class}}")),
            _lines("Refused", "reqps",
                   Query(_rate("k2_query_refused_total", "class, reason"),
                         "{{class}} {{reason}}")),
            _lines("Cancelled and deferred", "reqps",
                   Query(_rate("k2_query_cancelled_total"), "cancelled"),
                   Query(_rate("k2_query_deferred_total"), "deferred")),
            _lines("Incomplete answers", "reqps",
                   Query(_rate("k2_query_incomplete_total", "completeness"), "{{completeness}}")),
        ),
        "Latency": (
            _lines("Query by side", "s", *_quantiles("k2_query_seconds", "shape, side")),
            _lines("Plan", "s", *_quantiles("k2_query_plan_seconds")),
            _lines("First batch", "s", *_quantiles("k2_query_first_batch_seconds")),
            _lines("Refusal", "s", *_quantiles("k2_query_refusal_seconds")),
        ),
        "Streams": (
            _lines("Streams", "reqps",
                   Query(_rate("k2_flight_streams_total", "code"), "{{code}}")),
            _lines("Rows", "ops", Query(_rate("k2_flight_rows_total"), "rows")),
            _lines("Bytes", "Bps", Query(_rate("k2_flight_bytes_total"), "bytes")),
            _lines("Memory of queries", "bytes", Query("sum(k2_query_memory_bytes)", "memory")),
        ),
        "Tail": (
            _lines("Rows", "short", Query("sum(k2_tail_rows)", "rows")),
            _lines("Bytes", "bytes", Query("sum(k2_tail_bytes)", "held"),
                   Query("sum(k2_tail_pending_bytes)", "not in the lake")),
            _lines("Records read", "ops", Query(_rate("k2_tail_records_total"), "records")),
            _lines("Partitions paused", "short",
                   Query("sum by (tier) (k2_tail_partitions_paused)", "{{tier}}"),
                   Query("sum(k2_tail_partitions_released)", "released")),
            _lines("Freshness", "s", *_quantiles("k2_freshness_seconds")),
        ),
    },
)  # fmt: skip

BOARDS = (SYSTEM_HEALTH, INGEST, LAKE, QUERIES)


def build(board: Board) -> str:
    """Build the JSON of a board."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags(["k2"])
        .timezone("browser")
        .time("now-15m", "now")
        .refresh("5s")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("K2")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["k2"])
            .keep_time(True)
        )
    )
    number = count(1)
    for title, panels in board.rows.items():
        built = built.with_row(dashboard.Row(title).id(next(number)))
        for panel in panels:
            shown = _single(panel) if panel.single else _chart(panel)
            built = built.with_panel(shown.id(next(number)))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _single(panel: Panel) -> stat.Panel:
    built = stat.Panel().reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    return _filled(built, panel).span(6).height(4)


def _chart(panel: Panel) -> timeseries.Panel:
    legend = (
        VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
    )
    built = timeseries.Panel().legend(legend).fill_opacity(10).min(0)
    return _filled(built, panel).span(8).height(8)


def _filled(built: Any, panel: Panel) -> Any:  # noqa: ANN401 builders share no type of their own
    built = built.title(panel.title).unit(panel.unit).datasource(PROMETHEUS).no_value("none")
    if panel.about:
        built = built.description(panel.about)
    if panel.levels:
        built = built.mappings([_level_names()]).max(len(LEVELS) - 1).decimals(0)
    for reference, query in zip("ABCDEFGH", panel.queries, strict=False):
        built = built.with_target(
            prometheus.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend)
            .ref_id(reference)
            .datasource(PROMETHEUS)
            .exemplar("histogram_quantile" in query.expr)
        )
    return built


def _level_names() -> ValueMap:
    return ValueMap(
        {
            str(level): ValueMappingResult(text=name, color=color, index=level)
            for level, (name, color) in enumerate(zip(LEVELS, COLORS, strict=True))
        }
    )


def write(boards: Iterable[Board] = BOARDS, folder: Path = FOLDER) -> None:
    """Write the boards to the folder from which Grafana takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for board in boards:
        (folder / f"{board.uid}.json").write_text(build(board))


if __name__ == "__main__":
    write()
