import numpy as np
import pandas as pd
import pytest

import k2client
from k2client.caller_name import calling_for
from k2client.errors import Internal, Invalid, NotFound, Unavailable
from tests.fakes.k2_server import K2Server

NAMES = [f"trades/0/3/{each}" for each in range(3)]


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path):
    for name in ("K2_ADDRESS", "K2_DATA_DIR", "K2_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_connecting_sends_nothing_and_finds_its_address_or_says_so(monkeypatch):
    with k2client.connect("127.0.0.1:1") as k2:
        assert k2.address == "127.0.0.1:1"
    monkeypatch.setenv("K2_ADDRESS", "127.0.0.1:2")
    with k2client.connect() as k2:
        assert k2.address == "127.0.0.1:2"
    monkeypatch.delenv("K2_ADDRESS")
    with pytest.raises(NotFound):
        k2client.connect()


def test_the_deadline_bounds_the_tries():
    k2 = k2client.connect("127.0.0.1:1", deadline_s=0.3, retry=k2client.Retry(attempts_max=1000))
    with k2, pytest.raises(Unavailable):
        k2.status()


def test_a_verification_without_a_result_is_a_defect():
    with K2Server() as server, k2client.connect(server.address) as k2:
        server.verify_ok = None
        with pytest.raises(Internal):
            k2.verify()


def test_exports():
    assert k2client.__all__ == [
        "Client",
        "K2Error",
        "Retry",
        "ShapeQuestion",
        "Trades",
        "TradesQuestion",
        "connect",
        "errors",
        "records",
    ]


@pytest.fixture
def server():
    with K2Server() as running:
        yield running


@pytest.fixture
def k2(server):
    with k2client.connect(server.address) as client:
        yield client


def test_letters_come_page_by_page_up_to_the_limit(k2, server):
    assert [each.name for each in k2.dead_letters()] == NAMES
    assert [each.name for each in k2.dead_letters(limit=2)] == NAMES[:2]
    assert (server.requests[-1].page_size, server.requests[-1].HasField("range")) == (2, False)


def test_a_letter_has_its_bytes_and_what_they_would_be(k2):
    found = k2.dead_letter(NAMES[0])
    assert found.value.startswith(b"\x00\xff")
    assert found.letter.schema_id == 7
    assert (found.trade.trade_id, found.trade.price, found.trade.event_time) == (2**60, "1.5", None)
    assert k2.dead_letter(NAMES[1]).trade is None


def test_a_replay_gives_each_outcome(k2, server):
    sent, refused = k2.replay_dead_letters(NAMES[:2], again=True)
    assert (sent.state, sent.partition, sent.offset) == ("SENT", 3, 2**40)
    assert (refused.state, refused.fault, refused.partition) == ("REFUSED", "TRUNCATED", None)
    assert server.requests[-1].again
    assert server.requests[-1].WhichOneof("repair") is None


def test_an_empty_repair_is_a_repair(k2, server):
    k2.replay_dead_letters(NAMES[:1], value=b"")
    assert server.requests[-1].WhichOneof("repair") == "value"


def test_a_trade_with_an_unknown_field_is_refused_before_it_is_sent(k2):
    with pytest.raises(Invalid):
        k2.replay_dead_letters(NAMES[:1], trade={"no_such": 1})


def test_names_and_times_come_in_any_form_or_are_refused(k2, server):
    k2.replay_dead_letters(pd.Index(NAMES[:2]))
    assert list(server.requests[-1].names) == NAMES[:2]
    k2.replay_dead_letters(NAMES[0])
    assert list(server.requests[-1].names) == NAMES[:1]
    k2.dead_letters(start=np.datetime64("2021-01-08"), end="20210109")
    times = server.requests[-1].range
    assert (times.start_time.seconds, times.end_time.seconds) == (1_610_064_000, 1_610_150_400)
    for call in (
        lambda: k2.replay_dead_letters([]),
        lambda: k2.dead_letters(start=1_610_064_000_278),
        lambda: k2.dead_letters(fault=["TRUNCATED"]),
        lambda: k2.dead_letter(7),
        lambda: k2.gaps(["BTCUSDT"]),
        lambda: k2.backfill(7, 1, 2),
        lambda: k2.expire(older_than=20_210_108),
        lambda: k2.snapshot(1.5),
    ):
        with pytest.raises(Invalid) as caught:
            call()
        assert caught.value.reason == "BAD_REQUEST"


def test_a_connection_is_one_caller_of_one_class_on_both_planes(server):
    seen = []
    for _ in range(2):
        with k2client.connect(server.address, request_class="batch") as k2:
            k2.trades("BTCUSDT").to_arrow()
        planes = server.headers[-2:]
        assert [each["k2-class"] for each in planes] == ["batch", "batch"]
        (name,) = {each["k2-client-id"] for each in planes}
        seen.append(name)
    assert len(set(seen)) == 2
    with k2client.connect(server.address) as k2:
        k2.status()
    assert "k2-class" not in server.headers[-1], "the server decides"


def test_calls_carry_the_name_that_they_are_made_for_on_both_planes(server):
    with k2client.connect(server.address) as k2:
        with calling_for("http:10.0.0.1"):
            k2.trades("BTCUSDT").to_arrow()
        assert [each["k2-client-id"] for each in server.headers[-2:]] == ["http:10.0.0.1"] * 2
        k2.status()
    assert server.headers[-1]["k2-client-id"] != "http:10.0.0.1"


def test_a_class_that_does_not_exist_is_refused():
    with pytest.raises(Invalid, match="none of critical, interactive, batch"):
        k2client.connect("127.0.0.1:1", request_class="urgent")


def test_the_level_is_set_watched_and_listed():
    with K2Server() as server, k2client.connect(server.address) as k2:
        made = k2.set_override("soft", 1.5, "r")
        assert (made.level, made.reason) == ("SOFT", "r")
        assert (made.expire_time - made.set_time).total_seconds() == 1.5
        assert k2.degradation().override == made
        assert next(k2.watch_degradation()).override == made
        assert k2.clear_override() == made
        assert k2.clear_override() is None
        assert [each.cause for each in k2.transitions(1)] == ["OVERRIDE_ENDED"]
        assert k2.inject_pressure("rss_bytes", 0.5, 60.0).minute == 1


@pytest.mark.parametrize(("level", "for_s"), [("hot", 1.0), ("", 1.0), ("SOFT", 1e30)])
def test_what_is_no_level_or_duration_is_not_sent(level, for_s):
    with k2client.connect("127.0.0.1:1") as k2, pytest.raises(Invalid):
        k2.set_override(level, for_s, "r")
