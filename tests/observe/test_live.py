"""A real Prometheus on a real stack: every panel has data, and alerts fire and clear."""

import logging
import os
import signal
import urllib.request

import pytest

from tests.chaos.stack import BRISK, CLOCK, Stack, until
from tests.observe.panels import ask
from tests.observe.test_alerts import ALERTS
from tests.observe.test_boards import BUILT
from tests.observe.watched import Scraper, Traffic, ask_venue, inject, spoil
from tests.support import tools

log = logging.getLogger(__name__)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.tools,
    pytest.mark.timeout(600),
]
ENVIRONMENT = BRISK | {
    "K2_FEED__SYMBOLS": "BTCUSDT,ETHUSDT,BNBUSDT,SOLUSDT,LINKUSDT,SHIBUSDT",
    "K2_DEGRADE__DWELL_S": "2",
    "K2_LAKE__ROWS_PER_S_MAX": "300",
}
CALM_RATE, BUSY_RATE = 60, 600
FIRES_S, CLEARS_S = 60, 150
DATA_S = 60

# Panels that show nothing until something happens, and what brings their data in this test.
DISTURBED = {
    "K2 System Health: Transitions": "an injected pressure",
    "K2 System Health: Calls that fail": "queries that are refused",
    "K2 System Health: Queries shed": "queries that are refused",
    "K2 System Health: Refusal latency": "queries that are refused",
    "K2 Ingest: Frames that are no trades": "garbage of the venue",
    "K2 Lake: Dead letters": "records that are no trades",
    "K2 Lake: Rows of ops tables": "records that are no trades, and gaps",
    "K2 Queries: Refused": "queries that are refused",
    "K2 Queries: Refusal": "queries that are refused",
    "K2 Queries: Incomplete answers": "answers over a gap",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    tools.tool("prometheus")
    folder = tmp_path_factory.mktemp("observed")
    options = ("--venue", "synthetic", "--rate", str(CALM_RATE), "--observe")
    with Stack(folder, *options, environment=ENVIRONMENT) as running:
        yield running


@pytest.fixture(scope="module")
def scraper(stack, tmp_path_factory):
    targets = stack.data_dir / "run" / "targets.json"
    with (
        Scraper(tmp_path_factory.mktemp("scraper"), targets) as running,
        Traffic(stack),
    ):
        yield running


def empty_panels(scraper):
    """The panels of which a query returns nothing, each with the legend of the query."""
    return {
        f"{board['title']}: {one.panel}": one.series
        for board in BUILT.values()
        for one in scraper.shown(board)
        if not one.values
    }


def test_each_panel_but_those_of_disturbances_has_data_of_a_calm_stack(scraper):
    deadline_s = CLOCK.monotonic_s() + DATA_S
    while empty := {
        name: expr for name, expr in empty_panels(scraper).items() if name not in DISTURBED
    }:
        assert CLOCK.monotonic_s() < deadline_s, empty
        CLOCK.sleep(2)
    log.info("without data until a disturbance: %s", sorted(empty_panels(scraper)))


def test_the_prometheus_beside_the_stack_reads_every_process_and_has_the_rules(stack):
    listed = stack.recorded()
    measured = {name for name, process in listed.items() if "metrics" in process["addresses"]}
    assert measured == {"venue", "feed", "lake", "query", "control", "edge"}
    assert listed["prometheus"]["state"] == "SERVING"
    beside = stack.addresses["prometheus"]

    def reached():
        up = ask(beside, "query", query='up{job="k2"} == 1')["result"]
        return {one["metric"]["process"] for one in up}

    until(lambda: reached() == measured, "all processes are scraped", 30)
    groups = ask(beside, "rules")["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == set(ALERTS)


def test_what_a_process_serves_is_clean_for_promtool(stack):
    for process in stack.recorded().values():
        if address := process["addresses"].get("metrics"):
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
                tools.run("promtool", "check", "metrics", input=answer.read().decode())


def test_five_alerts_fire_and_clear(stack, scraper):
    fired = []

    def fires(alert):
        until(lambda: scraper.firing(alert), f"{alert} fires", FIRES_S)
        fired.append(alert)
        log.info("%s fires: %s", alert, scraper.firing(alert)[0])

    pid = stack.pid("query")
    os.kill(pid, signal.SIGSTOP)
    try:
        ask_venue(stack, f"/k2/rate?trades_per_s={BUSY_RATE}")
        fires("K2ProcessLost")
        assert scraper.firing("K2ProcessLost")[0]["process"] == "query"
    finally:
        os.kill(pid, signal.SIGCONT)
    fires("K2ConsumerLag")
    spoil(stack)
    ask_venue(stack, "/k2/faults?garbage=20")
    fires("K2DeadLetters")
    ask_venue(stack, f"/k2/rate?trades_per_s={CALM_RATE}")
    inject(stack, "queries_running", 0.9, FIRES_S)
    fires("K2LevelAboveNormal")
    fires("K2GapsOpen")
    until(lambda: refused_in(scraper) > 0, "queries are refused", FIRES_S)
    inject(stack, "queries_running", 0.0, 1)  # in the place of the one before
    for alert in fired:
        until(lambda alert=alert: not scraper.firing(alert), f"{alert} clears", CLEARS_S)
        log.info("%s has cleared", alert)


def refused_in(scraper):
    """The refusals that Prometheus has seen grow: one that was there at first has no rate."""
    grown = scraper.ask("query", query="sum(increase(k2_query_refused_total[1m]))")["result"]
    return float(grown[0]["value"][1]) if grown else 0.0


def test_each_panel_has_data_after_the_disturbances(scraper):
    CLOCK.sleep(2)
    assert empty_panels(scraper) == {}
    for board in BUILT.values():
        for one in scraper.shown(board):
            log.info("%s: %s", board["title"], one.line())
