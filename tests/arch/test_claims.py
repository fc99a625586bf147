"""Every claim of a demonstration has a line in docs/claims.md, with a figure and a command."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/claims.md").read_text()
VERDICTS = {"kept", "corrected", "not claimed"}

# What a presenter of such a platform says, as (id, a word that the line must contain).
CLAIMS = {
    "research-tier": "10 µs",
    "latency-500ms": "500 ms",
    "p99-500ms": "p99",
    "live-binance": "Binance",
    "symbols": "BNB",
    "rate-130": "130",
    "rate-138": "138",
    "scale-1m": "1,000,000",
    "presto": "Presto",
    "bucketing": "buckets",
    "kafka-schema": "schema",
    "topic-name": "market.crypto.trades.binance",
    "feed-log": "log",
    "acid": "ACID",
    "time-travel": "past",
    "immutable": "snapshot",
    "ratio-10": "10:1",
    "snappy": "Snappy",
    "unlimited": "unlimited",
    "metrics-83": "83",
    "prometheus-grafana": "System Health",
    "http-metric": "k2_http_requests_total",
    "level-metric": "k2_degradation_level",
    "alerts": "alerts",
    "five-levels": "five levels",
    "shedding": "dropped",
    "enrichment": "SOFT",
    "critical-only": "AGGRESSIVE",
    "stop-accepting": "CIRCUIT_BREAK",
    "hysteresis": "hysteresis",
    "hybrid": "Iceberg",
    "bars": "bars",
    "fifteen-minutes": "15 minutes",
    "transparent": "users",
    "dollars-085": "$0.85",
    "dollars-15k": "$15,000",
    "costs-include": "monitoring, backup",
    "snowflake": "35-40 %",
    "kdb": "60 %",
    "savings": "$8,000-10,000",
    "open-source": "open source",
    "single-node": "one machine",
    "weeks-4-6": "4-6 weeks",
    "schema-evolution": "schema evolves",
    "idempotent": "idempotent",
    "consumer-validation": "consumer validation",
    "end-to-end": "consistency",
    "audit": "audit",
    "documents-161": "161",
    "coverage-95": "95 %",
    "tests-86": "86",
    "runbooks": "runbooks",
    "offline": "offline",
    "cold-start": "15 minutes",
    "twelve-minutes": "12 minutes",
    "quick-five": "5 minutes",
    "reset-30s": "30 seconds",
    "load-5min": "5 minutes",
    "errors-0": "unhandled",
    "uptime-100": "up",
    "object-store": "9001",
}


def lines():
    rows = [row.split(" | ") for row in re.findall(r"^\| (.+) \|$", PAGE, re.MULTILINE)]
    return {row[0]: row for row in rows if row[0] not in ("id", "---")}


def test_no_claim_is_missing_and_none_is_unknown():
    assert set(lines()) == set(CLAIMS)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_has_a_verdict_a_figure_and_a_command_where_there_is_something_to_show(name):
    _, claim, verdict, figure, command = lines()[name]
    assert CLAIMS[name] in claim
    assert verdict in VERDICTS
    assert figure
    assert re.fullmatch(r"`[^`]+`", command) or (verdict, command) == ("not claimed", "none")


def test_figures_that_the_project_knows_are_right():
    catalogue = (ROOT / "docs/metrics.md").read_text()
    assert int(re.search(r"\*\*(\d+)\*\* metrics", catalogue)[1]) > 100
    rules = "".join(path.read_text() for path in (ROOT / "servers/local/observe/rules").iterdir())
    assert rules.count("alert:") >= 16
    assert len(list((ROOT / "docs/decisions").glob("[0-9]*.md"))) > 40
    cost = (ROOT / "docs/cost-model.md").read_text()
    for figure in ("0.0076", "19,866", "10,512"):
        assert figure in PAGE
        assert figure in cost
    performance = (ROOT / "docs/performance.md").read_text()
    assert "40,525" in performance
    assert "250,626" in performance
