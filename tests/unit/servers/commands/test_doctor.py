"""The doctor looks at everything and shows what a process would run with."""

import io
import json

from k2 import limits, settings
from k2.clock import SystemClock
from k2.market.instrument import Instrument
from servers.commands import doctor
from servers.local import stack_file
from servers.local.embedded_stack import check_writable
from servers.local.stack_file import holding
from servers.local.stamp import Stamp, write_stamp
from servers.runtime import Runtime
from tests.support.proxies import set_proxies


def examine(tmp_path, *argv, run_id="6" * 32, **changes):
    out = io.StringIO()
    runtime = Runtime(SystemClock(), run_id, out=out)
    nowhere = {"venue_url": "ws://127.0.0.1:9"}
    config = settings.load(
        **{"data_dir": tmp_path / "data", "cache_dir": tmp_path, "feed": nowhere} | changes
    )
    code = doctor.run(config, runtime, list(argv))
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    checks = {event["name"]: event for event in events if event["event"] == "check"}
    shown = next(event["settings"] for event in events if event["event"] == "settings")
    assert events[-1] == {"event": "done", "ok": code == 0}
    return code, checks, shown


def test_a_fit_machine_is_fit(tmp_path):
    code, checks, shown = examine(tmp_path, "--ports", "free")
    assert code == 0
    assert all(check["ok"] for check in checks.values())
    assert "will be fetched" in checks["artefacts"]["message"]
    assert "practice venue" in checks["venue"]["message"]
    assert "control" in checks["ports"]["message"]
    assert "prometheus" in checks["prometheus"]["message"]
    assert shown["lake.commit_interval_s"] == 10.0


def test_what_is_open_is_told(tmp_path):
    _, checks, _ = examine(tmp_path, "--ports", "free")
    assert checks["access"]["message"] == "peers of this machine only"
    networks = {"trusted_networks": ("172.28.0.0/16", "fd00::/64")}
    _, checks, shown = examine(tmp_path, "--ports", "free", access=networks)
    assert checks["access"]["message"].startswith("open: peers inside 172.28.0.0/16, fd00::/64")
    assert shown["access.trusted_networks"] == ["172.28.0.0/16", "fd00::/64"]


def test_sizes_stand_beside_their_budgets(tmp_path):
    for name, size in (("kafka/a/b.log", 3), ("lake/warehouse/c.parquet", 2), ("logs/d", 1)):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"x" * size * limits.MIB)
    lake = {"bytes_max": 64 * limits.MIB, "retention_hours": 48}
    _, checks, _ = examine(tmp_path, "--ports", "free", lake=lake)
    assert checks["tape on disk"]["message"] == "3 of about 9,216 MiB, kept for 24 h"
    assert checks["lake on disk"]["message"] == (
        "2 MiB; the newest snapshot may take 64 MiB, its dead letters 1,024 MiB more, "
        "rows are kept for 48 h"
    )
    assert "logs 1 MiB" in checks["other on disk"]["message"]
    _, checks, _ = examine(tmp_path, "--ports", "free", lake={"bytes_max": 2**60})
    assert "lower lake.bytes_max" in checks["lake on disk"]["message"]


def test_a_newer_data_directory_is_named(tmp_path):
    check_writable(tmp_path / "data")
    write_stamp(tmp_path / "data" / "stamp.json", Stamp("live", "live", "BINANCE", 99))
    code, checks, _ = examine(tmp_path, "--ports", "free")
    assert code == 1
    assert "knows versions up to" in checks["stamp"]["message"]


def test_what_is_wrong_is_named_and_the_rest_is_looked_at(tmp_path):
    (tmp_path / "data").write_text("a file")
    code, checks, _ = examine(tmp_path, "--ports", "free")
    assert code == 1
    assert not checks["data directory"]["ok"]
    assert str(tmp_path / "data") in checks["data directory"]["message"]
    assert checks["python"]["ok"]
    assert checks["venue"]["ok"]


def test_symbols_in_a_partition_of_another_tier_are_named(tmp_path):
    placed = {Instrument("BINANCE", symbol): 6 for symbol in ("SHIBUSDT", "PEPEUSDT")}
    assert doctor.describe_placement(settings.load(), placed) == "2 symbols are placed"
    raised = settings.load(symbols={"priority": {"BINANCE:SHIBUSDT": "critical"}})
    assert doctor.describe_placement(raised, placed) == (
        "2 symbols are placed; BINANCE:PEPEUSDT is low in partition 6, which is critical"
    )


def test_priorities_are_asked_of_a_running_stack_alone(tmp_path):
    _, checks, _ = examine(tmp_path, "--ports", "free")
    assert "K2 does not run" in checks["priorities"]["message"]
    check_writable(tmp_path / "data")
    folder = tmp_path / "data" / "run"
    (folder / "stack.json").write_text(json.dumps({"addresses": {"broker": "127.0.0.1:9"}}))
    assert stack_file.addresses(folder) == {}
    with holding(folder, SystemClock()):
        assert stack_file.addresses(folder) == {"broker": "127.0.0.1:9"}


def test_ports_of_a_running_stack_are_not_a_failure(tmp_path):
    check_writable(tmp_path / "data")
    with holding(tmp_path / "data" / "run", SystemClock()):
        code, checks, _ = examine(tmp_path)
    assert code == 0
    assert "ports" not in checks
    assert checks["stack"]["message"].startswith("a K2 runs")


def test_a_stamp_that_does_not_fit_is_named(tmp_path):
    check_writable(tmp_path / "data")
    stamp = {"source": "live", "venue": "live", "exchange": "BINANCE"}
    (tmp_path / "data" / "stamp.json").write_text(json.dumps(stamp))
    code, checks, _ = examine(tmp_path, "--ports", "free", "--venue", "synthetic")
    assert code == 1
    assert "holds live data" in checks["stamp"]["message"]
    assert examine(tmp_path, "--ports", "free")[0] == 0


def test_secrets_are_masked(tmp_path):
    _, _, shown = examine(tmp_path, "--ports", "free", ticket_key="hush" * 8)
    assert "hush" not in json.dumps(shown)
    assert shown["ticket_key"] == "********"


def test_a_proxy_that_is_not_spoken_is_named(tmp_path, monkeypatch):
    set_proxies(monkeypatch, "socks5h://127.0.0.1:9")
    venue = {"venue_url": "wss://venue.invalid:9443"}
    _, checks, _ = examine(tmp_path, "--ports", "free", feed=venue)
    assert "VENUE_UNAVAILABLE" in checks["venue"]["message"]
    assert "SOCKS" in checks["venue"]["message"]


def test_a_defect_of_one_check_does_not_end_the_others(tmp_path):
    code, checks, _ = examine(tmp_path, "--ports", "free", run_id="no number")
    assert (code, checks["venue"]["ok"]) == (1, True)
    assert checks["ports"]["message"].startswith("ValueError: ")


def test_a_tail_larger_than_the_memory_is_named(tmp_path):
    _, checks, _ = examine(tmp_path, "--ports", "free", query={"tail_bytes_max": 2**60})
    assert not checks["memory"]["ok"]
    assert (
        f"takes up to {(2**60 - limits.TAIL_BYTES_MAX + limits.STACK_RSS_MAX) // limits.MIB}"
        in (checks["memory"]["message"])
    )


def test_a_fetch_that_fails_is_named_and_the_rest_is_looked_at(tmp_path):
    (tmp_path / "file").write_text("")
    code, checks, _ = examine(tmp_path, "--fetch", cache_dir=tmp_path / "file")
    assert code == 1
    assert not checks["fetch"]["ok"]
    assert "artefacts cannot be kept" in checks["fetch"]["message"]
    assert "artefacts" in checks
