"""Each declared metric is exported and moves; ten of them equal a count made without them.

The stack is driven from outside alone: its venue, its broker, its API, its processes and files.
"""

import random  # noqa: TID251 what a fault takes
import threading
from contextlib import contextmanager, suppress

import grpc
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

import k2client
from k2 import limits
from k2.v1 import query_service_pb2_grpc
from k2client.errors import K2Error
from k2client.trades_request import TradesQuestion
from scripts.metrics_catalogue import declarations
from tests.chaos.faults import PARTITIONS, TOPIC, store_away
from tests.chaos.stack import BRISK, CLOCK, Stack, until
from tests.observe.scrapes import (
    Scrapes,
    log_ends,
    quieten,
    tape_records,
    venue_json,
)
from tests.observe.watched import Traffic, inject, spoil
from tests.support.otlp import collector

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]
ENVIRONMENT = BRISK | {
    "K2_FEED__SYMBOLS": "BTCUSDT,ETHUSDT,BNBUSDT,SOLUSDT,LINKUSDT,SHIBUSDT",
    "K2_DEGRADE__DWELL_S": "2",
    "K2_LAKE__MAINTAIN_INTERVAL_S": "2",
    "K2_TELEMETRY__TRACE_SAMPLE": "0.2",
}
RATE = 60
POISON = 5
STORE_AWAY_S = 4.0
SHED_S = 12

# What stays at 0 on a stack that lives for minutes, each with the reason.
STAYS = {
    "k2_feed_ids_reused_total": "ids of an hour ago come again",
    "k2_feed_ids_void_total": "the practice venue prints no id without a trade",
    "k2_feed_queue_frames": "the feed is slower than the venue",
    "k2_feed_renewals_total": "a connection is 23 hours old",
    "k2_feed_resets_total": "a venue begins its ids again",
    "k2_flight_streams_waiting": "a client does not read what is more than the sockets hold",
    "k2_lake_catching_up_partitions": "more waited than is read between two scrapes",
    "k2_lake_fenced_total": "a second writer commits in the place of the first",
    "k2_lake_orphans_removed_total": "a file is older than the grace of two hours and more",
    "k2_lake_retention_removed_rows_total": "the table outgrows 64 MiB, or a day ends",
    "k2_produce_errors_total": "a broker refuses a record for good",
    "k2_tail_partitions_released": "the tail is full",
    "k2_tail_restarts_total": "a commit judges a record as the tail did not",
}


class Driven:
    """A stack that was driven, and the counts that were made meanwhile."""

    def __init__(self, stack):
        self.stack = stack
        self.scrapes = Scrapes(stack)
        self.control = str(stack.addresses["control"])
        self.counted = {}

    @contextmanager
    def client(self, request_class="interactive"):
        with k2client.connect(
            self.control,
            deadline_s=20.0,
            retry=k2client.Retry(attempts_max=1),
            request_class=request_class,
        ) as k2:
            yield k2

    def pair(self, name, measured, counted):
        """Note a metric's value and what was counted without it."""
        self.counted[name] = (measured, counted)


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    folder = tmp_path_factory.mktemp("driven")
    options = ("--venue", "synthetic", "--rate", str(RATE))
    with collector() as there, Stack(folder, *options, environment=traced(there)) as stack:
        made = Driven(stack)
        restart(made)
        count_frames(made)
        with Traffic(stack):
            disturb(made)
            shed(made)
        count_all(made)
        yield made


def traced(there):
    """The settings of a stack that sends traces to a collector."""
    return ENVIRONMENT | {"K2_TELEMETRY__OTLP_ENDPOINT": there.address}


def restart(driven):
    """Kill the query server, once."""
    stack = driven.stack
    stack.kill("query")
    until(lambda: stack.recorded()["query"]["restarts"] == 1, "query is started again")
    until(lambda: stack.recorded()["query"]["state"] == "SERVING", "query serves again")
    measured = driven.scrapes.total("k2_process_restarts_total", process="query")
    driven.pair("restarts", measured, 1)


def count_frames(driven):
    """Compare what the feed took with what the venue sent, while nothing is lost between them."""
    quieten(driven.stack, driven.scrapes)
    sent = venue_json(driven.stack, "/k2/status")["sent"]
    skipped = driven.scrapes.total("k2_feed_frames_skipped_total")
    driven.pair("frames", driven.scrapes.total("k2_feed_frames_total") - skipped, sent)
    venue_json(driven.stack, f"/k2/rate?trades_per_s={RATE}")


def disturb(driven):
    """Bring gaps, duplicates, malformed frames, dead letters, failed commits, a venue away."""
    stack, scrapes = driven.stack, driven.scrapes
    for fault in ("drop=6", "duplicate=3", "reorder=3", "garbage=20"):
        venue_json(stack, f"/k2/faults?{fault}&seed=3")
        CLOCK.sleep(1.5)
    spoil(stack, POISON)
    inject(stack, "queries_running", 0.7, 5)
    CLOCK.sleep(2)
    scrapes.read()
    away = store_away(stack, random.Random(1))
    venue_json(stack, "/k2/faults?garbage=5")  # letters that cannot be committed
    CLOCK.sleep(STORE_AWAY_S)
    away.undo()
    venue_json(stack, "/k2/faults?disconnect=1")
    until(lambda: scrapes.total("k2_venue_cuts_total") > 0, "the venue cuts a connection")
    until(lambda: scrapes.total("k2_feed_reconnects_total") > 0, "the feed connects again")
    venue_json(stack, "/k2/faults?drop=9")
    CLOCK.sleep(0.5)
    stack.kill("venue")  # what was dropped is asked for while it is away
    until(lambda: scrapes.total("k2_backfill_failures_total") > 0, "a request finds no venue")
    until(lambda: stack.recorded()["venue"]["restarts"] == 1, "the venue is started again")
    until(lambda: stack.recorded()["venue"]["state"] == "SERVING", "the venue serves again")
    frames = scrapes.total("k2_feed_frames_total")
    until(lambda: scrapes.total("k2_feed_frames_total") > frames, "the feed reads again")
    ask_all_sides(driven)


def ask_all_sides(driven):
    """Answers of the lake, of the tail, of both, and one that is not read to its end."""
    with driven.client() as k2, suppress(K2Error):
        k2.trades(None, consistency="committed").to_arrow()
        k2.trades(None).to_arrow()
        k2.trades("BTCUSDT", limit=5, order="desc").to_arrow()
    notice_running(driven)
    repeat_failure(driven)
    reorder(driven)
    send_again(driven.stack)
    cancel_plans(driven)


def notice_running(driven):
    """Ask for all, again and again, until a scrape falls into an answer."""
    names = "k2_query_running", "k2_flight_streams_running", "k2_query_memory_bytes"

    def noticed():
        driven.scrapes.read()
        return all(driven.scrapes.highest_of(name) > 0 for name in names)

    stop = threading.Event()

    def ask():
        with driven.client() as k2:
            while not stop.is_set():
                with suppress(K2Error):
                    k2.trades(None).to_arrow()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        until(noticed, "a scrape sees an answer that runs")
    finally:
        stop.set()
        asking.join()


def repeat_failure(driven):
    """Ask what fails more often than lines of one message are written."""
    with driven.client() as k2:
        for _ in range(2 * limits.LOG_LINES_MAX):
            with suppress(K2Error):
                k2.trades("NOSUCHSYMBOL").to_arrow()


def reorder(driven):
    """Let trades come late until a commit notes it; the next commit notes that none did."""

    def noted():
        venue_json(driven.stack, "/k2/faults?reorder=3&seed=3")
        return driven.scrapes.total("k2_quality_late_ratio")

    with suppress(AssertionError):
        until(noted, "a commit has late trades", 30)


def send_again(stack):
    """Put a trade on the tape twice, without the header that counts tell trades by."""
    where = {"bootstrap.servers": str(stack.addresses["broker"])}
    consumer, producer = Consumer(where | {"group.id": "of-a-test"}), Producer(where)
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
    read = iter(lambda: consumer.consume(1, 10.0)[0], None)
    trade = next(one for one in read if dict(one.headers() or ()).get("source"))
    producer.produce(TOPIC, trade.value(), trade.key(), trade.partition())
    assert producer.flush(20) == 0
    consumer.close()


def cancel_plans(driven):
    """Call for plans and go away at once, until one was noticed."""
    asked = TradesQuestion(symbols=None).request()
    with grpc.insecure_channel(driven.control) as channel:
        stub = query_service_pb2_grpc.QueryServiceStub(channel)

        def noticed():
            for pause_s in (0.001, 0.002, 0.004, 0.008):
                call = stub.PlanQuery.future(asked)
                CLOCK.sleep(pause_s)
                call.cancel()
            return driven.scrapes.total("k2_query_cancelled_total")

        until(noticed, "a query is cancelled", 30)


def shed(driven):
    """Set a level that defers the low tier, then let the tier catch up."""
    stack, scrapes = driven.stack, driven.scrapes
    with driven.client() as k2:
        k2.set_override("GRACEFUL", 300, "a test defers the low tier")
        until(lambda: scrapes.total("k2_lake_partitions_paused") > 0, "the low tier is paused")
        until(lambda: scrapes.total("k2_deferred_records") > 0, "records are deferred")
        CLOCK.sleep(SHED_S)
        quieten(stack, scrapes, deferring=True)
        positions = k2.snapshot().positions
        behind = [end - at for end, at in zip(log_ends(stack), positions.offsets, strict=True)]
        driven.pair("deferred", scrapes.total("k2_deferred_records"), sum(behind))
        k2.set_override("AGGRESSIVE", 300, "a test has long queries refused")
        count_refused(driven)
        k2.clear_override()
        venue_json(stack, f"/k2/rate?trades_per_s={RATE}")
        until(lambda: not scrapes.total("k2_deferred_records"), "the low tier has caught up")


def count_refused(driven):
    """Ask what a level refuses, in a class that no other client is of, until it is refused."""
    refused = 0
    with driven.client("batch") as k2:

        def ask():
            nonlocal refused
            try:
                k2.trades(None).to_arrow()
            except K2Error as error:
                refused += error.reason == "SHED"
            return refused == 7

        until(ask, "the query server refuses by its level")
    shed = {"class": "batch", "reason": "SHED"}
    driven.pair("refused", driven.scrapes.total("k2_query_refused_total", **shed), refused)


def count_all(driven):
    """Compare the rest, once nothing moves."""
    stack, scrapes, pair = driven.stack, driven.scrapes, driven.pair
    quieten(stack, scrapes)
    records = tape_records(stack)
    trades = [(headers, value) for headers, value in records if headers.get("source")]
    backfilled = [value for headers, value in trades if headers["source"] == b"backfill"]
    pair("backfilled", scrapes.total("k2_backfill_trades_total"), len(backfilled))
    acknowledged = scrapes.total("k2_feed_trades_acknowledged_total")
    pair("trades", acknowledged, len(trades) - len(backfilled))
    size = sum(len(value) for _, value in trades)
    pair("bytes", scrapes.total("k2_produce_bytes_total"), size)
    with driven.client() as k2:
        rows = k2.trades(None, consistency="committed").to_arrow().num_rows
        pair("committed rows", scrapes.total("k2_lake_rows_total"), rows)
        letters = len(list(k2.dead_letters()))
        pair("dead letters", scrapes.total("k2_dead_letters_total"), letters)
        listed = [gap.state for gap in k2.gaps()]
        pair("gaps", scrapes.total("k2_gaps"), len(listed))


@pytest.mark.parametrize(
    "what",
    [
        *("frames", "trades", "committed rows", "deferred", "dead letters", "gaps", "restarts"),
        *("backfilled", "bytes", "refused"),
    ],
)
def test_a_metric_equals_a_count_made_without_it(driven, what):
    measured, counted = driven.counted[what]
    assert counted > 0, "the count says something"
    assert measured == counted


@pytest.mark.parametrize("name", sorted(declarations()))
def test_each_declared_metric_is_exported_and_moves(driven, name):
    declared = declarations()[name]
    assert driven.scrapes.kinds.get(name) == declared.kind, "no process exports it"
    if name not in STAYS:
        assert driven.scrapes.highest_of(name) > 0, "it never moved"


def test_what_stays_is_declared():
    assert STAYS.keys() <= declarations().keys()
