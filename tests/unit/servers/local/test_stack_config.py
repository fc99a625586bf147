"""What the processes of a stack are started with."""

import json
from dataclasses import replace

from k2 import settings
from k2.clock import ManualClock
from servers.local.artifacts import Artifacts
from servers.local.jupyter import Jupyter
from servers.local.observe.prometheus import Prometheus
from servers.local.stack_config import StackConfig
from servers.local.stack_file import RUN_ID
from servers.local.stack_ports import metrics_port

PORTS = {
    "control": 1,
    "flight": 2,
    "query": 3,
    "broker": 4,
    "broker_controller": 5,
    "registry": 6,
    "registry_management": 7,
    "venue": 8,
    "edge": 9,
}


def site(tmp_path, venue="synthetic", **feed):
    feed = {"symbols": ("A", "B")} | feed
    config = settings.load(data_dir=tmp_path, feed=feed, venue={"rate": 9})
    return StackConfig(
        settings=config,
        ports=PORTS,
        venue=venue,
        exchange="BINANCE_UM",
        run_id="5" * 32,
        artifacts=Artifacts(tmp_path, ManualClock(), []),
        environment={"PATH": "/bin", "K2_LAKE__COMMIT_INTERVAL_S": "2"},
    )


def test_the_practice_venue_is_part_of_a_stack_that_practises(tmp_path):
    names = [part.name for part in site(tmp_path).parts()]
    assert names == ["broker", "registry", "venue", "feed", "lake", "query", "control", "edge"]
    live = site(tmp_path, "live")
    assert "venue" not in [part.name for part in live.parts()]
    assert "venue" not in live.used_ports()
    assert live.child_environment()["K2_FEED__VENUE_URL"].startswith("wss://")
    assert live.child_environment()["K2_FEED__SOURCE"] == "live"


def test_where_networks_are_trusted_processes_listen_where_the_settings_say(tmp_path):
    closed = site(tmp_path)
    config = settings.load(
        data_dir=tmp_path,
        control={"listen": "0.0.0.0:50051"},
        query={"listen_flight": "10.0.0.5:8815"},
        access={"trusted_networks": ("10.0.0.0/8",)},
    )
    opened = replace(closed, settings=config)
    assert opened.child_environment()["K2_CONTROL__LISTEN"] == "0.0.0.0:1"
    assert opened.child_environment()["K2_QUERY__LISTEN_FLIGHT"] == "10.0.0.5:2"
    assert opened.child_environment()["K2_QUERY__LISTEN_GRPC"] == "127.0.0.1:3"
    addresses = {name: one for part in opened.parts() for name, one in part.addresses.items()}
    assert (addresses["control"], addresses["flight"]) == ("127.0.0.1:1", "10.0.0.5:2")


def test_prometheus_is_a_part_that_the_stack_can_do_without(tmp_path):
    config = replace(site(tmp_path), prometheus=Prometheus(tmp_path / "prometheus", 9090))
    part = config.parts()[-1]
    assert part.name == "prometheus"
    assert not part.essential
    assert not part.needs_tape
    assert part.addresses == {"prometheus": "http://127.0.0.1:9090"}
    assert part.prepare().env[RUN_ID] == "5" * 32
    edge = next(part for part in config.parts() if part.name == "edge").prepare()
    assert edge.env["K2_EDGE__PROMETHEUS_URL"] == "http://127.0.0.1:9090"


def test_jupyter_is_a_part_that_the_stack_can_do_without(tmp_path):
    config = replace(site(tmp_path), jupyter=Jupyter(8888, "t0ken", {"PATH": "/bin"}))
    part = config.parts()[-1]
    assert part.name == "jupyter"
    assert not part.essential
    assert not part.needs_tape
    assert part.addresses == {"jupyter": "http://127.0.0.1:8888/?token=t0ken"}
    assert part.prepare().env[RUN_ID] == "5" * 32


def test_children_get_everything_by_settings(tmp_path, monkeypatch):
    part = next(part for part in site(tmp_path).parts() if part.name == "feed")
    command = part.prepare()
    assert command.argv[-3:] == ("-m", "servers", "feed")
    assert command.env[RUN_ID] == "5" * 32
    assert command.env["PATH"] == "/bin"
    for name, value in command.env.items():
        monkeypatch.setenv(name, value)
    loaded = settings.load()
    assert loaded.data_dir == tmp_path
    assert loaded.tape.bootstrap == "127.0.0.1:4"
    assert loaded.tape.registry_url == "http://127.0.0.1:6/apis/ccompat/v7"
    assert loaded.feed.symbols == ("A", "B")
    assert loaded.feed.exchange == "BINANCE_UM"
    assert loaded.feed.source == "simulated"
    assert loaded.feed.venue_url == "ws://127.0.0.1:8"
    assert loaded.venue.rate == 9
    assert loaded.venue.listen == "127.0.0.1:8"
    assert loaded.lake.commit_interval_s == 2
    assert loaded.control.listen == "127.0.0.1:1"
    assert loaded.query.listen_flight == "127.0.0.1:2"
    assert loaded.edge.listen == "127.0.0.1:9"
    assert loaded.edge.control_address == "127.0.0.1:1"
    assert loaded.query.listen_grpc == loaded.control.query_address == "127.0.0.1:3"


def test_several_feeds_listen_to_the_same_under_names_of_their_own(tmp_path, monkeypatch):
    several = site(tmp_path, copies=2)
    feeds = [part for part in several.parts() if part.name.startswith("feed")]
    assert [part.name for part in feeds] == ["feed", "feed-2"]
    assert [part.prepare().env["K2_FEED__NAME"] for part in feeds] == ["feed", "feed-2"]
    assert {part.prepare().argv[-1] for part in feeds} == {"feed"}
    for name, value in several.child_environment().items():
        monkeypatch.setenv(name, value)
    assert settings.load().feed.names == ("feed", "feed-2")


def test_a_recording_is_played_by_the_venue(tmp_path):
    environment = site(tmp_path, "recording:/a/b.jsonl").child_environment()
    assert environment["K2_FEED__VENUE"] == "recording:/a/b.jsonl"
    assert environment["K2_FEED__SOURCE"] == "recorded"
    assert json.loads(environment["K2_FEED__SYMBOLS"]) == ["A", "B"]


def test_the_feed_is_stopped_first_and_the_broker_last(tmp_path):
    order = {part.name: part.drain for part in site(tmp_path).parts()}
    assert order["feed"] == min(order.values())
    assert [name for name, drain in order.items() if drain == max(order.values())] == ["broker"]
    assert order["feed"] < order["lake"] < order["registry"] < order["broker"]


def test_the_stack_goes_on_without_its_edge(tmp_path):
    edge = next(part for part in site(tmp_path).parts() if part.name == "edge")
    assert not edge.essential
    assert edge.drain == 0


def test_only_what_keeps_the_tape_starts_without_it(tmp_path):
    free = {part.name for part in site(tmp_path).parts() if not part.needs_tape}
    assert free == {"broker", "registry", "venue"}


def test_each_process_serves_metrics_on_a_port_of_its_own(tmp_path):
    plain = site(tmp_path, copies=2)
    ports = {metrics_port(name): 100 + place for place, (_, name) in enumerate(plain.processes())}
    measured = replace(plain, ports=PORTS | ports)
    found = {part.name: part.prepare().env for part in measured.parts()[2:]}
    assert {name: env["K2_TELEMETRY__LISTEN"] for name, env in found.items()} == {
        "venue": "127.0.0.1:100",
        "feed": "127.0.0.1:101",
        "feed-2": "127.0.0.1:102",
        "lake": "127.0.0.1:103",
        "query": "127.0.0.1:104",
        "control": "127.0.0.1:105",
        "edge": "127.0.0.1:106",
    }
