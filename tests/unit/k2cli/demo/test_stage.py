"""The checklist from a state, addresses, the restart of a stack, the search for an hour of ids."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from k2cli.demo.evidence import Latency
from k2cli.demo.stage import fresh_start, history_load
from k2cli.demo.stage.history_load import Load, estimated_first_id, first_id_before, load, seldom
from k2cli.demo.stage.page_addresses import (
    FAILED,
    HEALTHY,
    NO_PART,
    PAGES,
    Found,
    looked_at,
    opened_url,
    url_of,
)
from k2cli.demo.stage.readiness import StageState, ages_s, checklist, decision
from k2cli.operate.fetching import NotServed
from k2client.errors import Data, Invalid, Unavailable
from k2client.records import GapRecord
from k2client.stack import Stack

READY = StageState(
    running=True,
    processes={"feed": "SERVING", "lake": "SERVING"},
    restarts={"feed": 0, "lake": 0},
    ages_s={"feed": 60.0, "lake": 60.0},
    level="NORMAL",
    source="simulated",
    trades_per_s=130.0,
    answers=Latency(10.0, 40.0, 25),
    pages=(Found("edge", "http://127.0.0.1:8000", HEALTHY, ""),),
    materials="DIR",
)


def failed(state):
    return [item.name for item in checklist(state) if not item.ok]


def test_all_as_it_should_be_is_go():
    assert failed(READY) == []
    assert decision(checklist(READY)) == "GO"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"processes": {"feed": "RESTARTING"}}, "every process serves"),
        ({"processes": {}}, "every process serves"),
        ({"restarts": {"feed": 1}}, "stable"),
        ({"level": "SOFT"}, "level is NORMAL"),
        ({"level": ""}, "level is NORMAL"),
        ({"trades_per_s": 0.0}, "trades arrive"),
        ({"trades_per_s": None}, "trades arrive"),
        ({"without_history": ("ETHUSDT",)}, "an hour of history of every symbol"),
        ({"open_ids": 3}, "no trade id is missing"),
        ({"answers": Latency(10.0, 500.0, 25)}, "the newest trades in less than 500 ms (p99)"),
        ({"answers": None}, "the newest trades in less than 500 ms (p99)"),
        ({"pages": (Found("edge", "u", FAILED, "no"),)}, "every address of this stack answers"),
    ],
)
def test_one_thing_wrong_is_no_go(change, name):
    state = replace(READY, **change)
    assert failed(state) == [name]
    assert decision(checklist(state)) == "NO-GO"


def test_a_restart_counts_until_the_process_has_run_for_five_minutes():
    restarted = replace(READY, restarts={"feed": 1})
    assert failed(replace(restarted, ages_s={"feed": 299.0})) == ["stable"]
    assert failed(replace(restarted, ages_s={"feed": 301.0})) == []
    assert failed(replace(restarted, ages_s={})) == ["stable"], "not known is not stable"


def test_missing_materials_only_warn():
    state = replace(READY, materials=None)
    assert failed(state) == ["backup materials"]
    assert decision(checklist(state)) == "GO"


def test_nothing_runs():
    assert decision(checklist(StageState(running=False))) == "NO-GO"


def test_ages_come_from_the_metrics():
    assert ages_s({"feed": "k2_process_start_time_seconds 90.5\n", "lake": ""}, 100.0) == {
        "feed": 9.5
    }


# --- addresses ------------------------------------------------------------------------------------


def stack_with(tmp_path, **addresses):
    processes = [
        {"name": name, "addresses": {kind: url}, "state": "SERVING"}
        for name, (kind, url) in addresses.items()
    ]
    return Stack(tmp_path, True, {"processes": processes, "source": "simulated"})


def answer(url):
    if "8000" in url or "3000" in url:
        return "{}"
    raise NotServed(f"{url} answered 500")


def test_each_address_is_healthy_failed_or_no_part(tmp_path):
    described = stack_with(
        tmp_path, edge=("http", "127.0.0.1:8000"), prometheus=("prometheus", "http://127.0.0.1:9")
    )
    found = looked_at(described, answer, listens=lambda port: port == 3000)
    assert {page.name: page.state for page in found} == {
        "edge": HEALTHY, "prometheus": FAILED, "grafana": HEALTHY, "jupyter": NO_PART,
        "kafka-ui": NO_PART, "object-store": NO_PART,
    }  # fmt: skip
    assert found[2].message == "served beside this stack"


def test_a_page_with_a_token_is_opened_with_it(tmp_path):
    (jupyter,) = [page for page in PAGES if page.name == "jupyter"]
    listed = "http://127.0.0.1:8888/lab?token=abc"
    described = stack_with(tmp_path, jupyter=("jupyter", listed))
    assert url_of(described, jupyter) == "http://127.0.0.1:8888"
    assert opened_url(described, jupyter) == listed
    assert opened_url(Stack(tmp_path, True, {}), jupyter) == "http://127.0.0.1:8888/"


# --- reset ----------------------------------------------------------------------------------------


def test_only_simulated_trades_are_reset(tmp_path):
    nothing = Stack(tmp_path, False, {})
    fresh_start.refuse_real(tmp_path, nothing)
    for source in ("live", "recorded"):
        (tmp_path / "stamp.json").write_text(json.dumps({"source": source}))
        with pytest.raises(Data, match=f"holds {source} trades.*--data-dir DIR"):
            fresh_start.refuse_real(tmp_path, nothing)
    (tmp_path / "stamp.json").write_text("{")
    with pytest.raises(Data, match="cannot be read"):
        fresh_start.refuse_real(tmp_path, nothing)
    (tmp_path / "stamp.json").write_text(json.dumps({"source": "simulated"}))
    fresh_start.refuse_real(tmp_path, nothing)


def test_a_stack_starts_again_on_its_ports(tmp_path):
    processes = [
        {"name": "broker", "addresses": {"broker": "127.0.0.1:9092"}},
        {"name": "feed", "addresses": {"metrics": "127.0.0.1:9102"}},
        {"name": "edge", "addresses": {"http": "http://127.0.0.1:8000", "metrics": "127.0.0.1:9"}},
        {"name": "prometheus", "addresses": {"prometheus": "http://127.0.0.1:24000"}},
        {"name": "jupyter", "addresses": {"jupyter": "http://127.0.0.1:8889/?token=a"}},
    ]
    described = Stack(tmp_path, True, {"processes": processes, "addresses": {"control": "h:1"}})
    settings = {
        "feed.symbols": ["BTCUSDT", "ETHUSDT"], "venue.rate": 500.0, "lake.retention_hours": None,
        "feed.source": "simulated", "data_dir": "/x", "degrade.dwell_s": 15.0,
    }  # fmt: skip
    restart = fresh_start.restart_of(described, settings)
    beside = ("--observe", "--observe-port", "24000", "--notebooks", "--notebooks-port", "8889")
    assert restart.arguments == ("--venue", "synthetic", *beside)
    assert restart.settings == {
        "K2_FEED__SYMBOLS": '["BTCUSDT", "ETHUSDT"]',
        "K2_VENUE__RATE": "500.0",
        "K2_TAPE__BOOTSTRAP": "127.0.0.1:9092",
        "K2_CONTROL__LISTEN": "h:1",
        "K2_EDGE__LISTEN": "127.0.0.1:8000",
        "K2_TELEMETRY__LISTEN": "127.0.0.1:9102",
        "K2_DEGRADE__DWELL_S": "3",
        "K2_FEED__REST_WEIGHT_PER_MINUTE": "5500",
    }


class Ledger:
    """A K2 whose venue has only the ids from 100 on."""

    def __init__(self):
        self.asked = []

    def backfill(self, symbol, first, last):
        self.asked.append((symbol, first, last))

    def gaps(self):
        return [
            gap
            for symbol, first, last in self.asked
            for gap in (ledger_row(symbol, first, 99), ledger_row(symbol, 100, last))
        ]


def ledger_row(symbol, first, last):
    state = "UNFILLABLE" if last < 100 else "FILLED"
    return GapRecord("BINANCE", symbol, first, last, state, "REQUESTED", None, None, None, "", "f")


def test_only_what_came_counts_as_loaded(monkeypatch):
    demo = SimpleNamespace(k2=Ledger(), symbols=("A", "B"))
    monkeypatch.setattr(
        history_load,
        "_wanted",
        lambda demo, symbol: None if symbol in str(demo.k2.asked) else Load(symbol, 90, 119),
    )
    assert load(demo, lambda *_: None)[0] == 2 * 20
    assert [symbol for symbol, *_ in demo.k2.asked] == ["A", "B"]


def test_an_hour_that_the_venue_does_not_have_is_no_success(monkeypatch):
    demo = SimpleNamespace(k2=Ledger(), symbols=("A", "B"))
    monkeypatch.setattr(
        history_load,
        "_wanted",
        lambda _, symbol: Load(symbol, 90, 119) if symbol == "B" else None,
    )
    with pytest.raises(Unavailable, match="the hour of B: see `k2 gaps --state unfillable`"):
        load(demo, lambda *_: None)


def test_a_chosen_setting_is_not_replaced():
    assert fresh_start.demo_settings({"degrade.dwell_s": 1.0}) == {
        "feed.rest_weight_per_minute": 5500
    }


def test_what_is_stored_goes_and_the_rest_stays(tmp_path):
    for name in ("kafka", "lake", "registry", "schemas", "venue", "logs"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / "stamp.json").write_text("{}")
    fresh_start.empty(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "stamp.json", "venue"]


# --- load -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_s", [0.5, 3.0, 35.0, 900.0])
def test_the_search_ends_close_below_the_hour(per_s):
    asked = []
    oldest_id, oldest_us = 10_000_000, 2_000_000_000_000

    def time_of(trade_id):
        asked.append(trade_id)
        return oldest_us - int((oldest_id - trade_id) / per_s * 1e6)

    found = first_id_before(oldest_id, oldest_us, oldest_us - 3_600_000_000, time_of)
    hour = int(3600 * per_s)
    assert oldest_id - found >= hour
    assert oldest_id - found <= max(hour * 1.1, 1024)
    assert len(asked) <= 4


def test_the_search_ends_at_the_first_id():
    assert first_id_before(500, 2_000_000_000_000, 0, lambda _: 1_000_000_000_000) == 0
    assert first_id_before(5000, 2_000_000_000_000, 0, lambda _: None) == 3976


def test_without_a_venue_the_rate_of_what_is_there_decides():
    oldest, newest = (1_000_000, 3_700_000_000), (1_000_600, 3_760_000_000)  # 10 a second
    first = estimated_first_id(oldest, newest, 100_000_000)
    assert 36_000 <= 1_000_000 - first <= 36_000 * 1.25
    assert estimated_first_id((50, 2), (60, 3), 0) == 0


def test_a_log_gets_a_step_now_and_then_and_the_last():
    shown = []
    step = seldom(lambda *what: shown.append(what), 3600)
    for done in range(5):
        step("a", done, 4)
    assert shown == [("a", 0, 4), ("a", 4, 4)]


def test_a_reset_never_starts_beside_a_stack_of_another(tmp_path):
    nothing = Stack(tmp_path, False, {})
    fresh_start.refuse_others(nothing, control_listens=False)
    fresh_start.refuse_others(Stack(tmp_path, False, {"state": "STOPPED"}), control_listens=True)
    with pytest.raises(Invalid, match="docker compose down -v"):
        fresh_start.refuse_others(nothing, control_listens=True)
