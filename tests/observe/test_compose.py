"""The containers beside a `k2 up`: pinned, bounded, on loopback, on the files that K2 uses."""

import re
from pathlib import Path

import pytest
import yaml

from scripts import boards
from servers.local.observe import prometheus
from tests.observe import promql

ROOT = Path(__file__).parents[2]
OBSERVE = ROOT / "compose/observe"
SERVICES = yaml.safe_load((OBSERVE / "host.yaml").read_text())["services"]
DATA_SOURCES = yaml.safe_load(
    (OBSERVE / "grafana/provisioning/datasources/k2.yaml").read_text()
)["datasources"]  # fmt: skip

each_service = pytest.mark.parametrize("service", list(SERVICES.values()), ids=list(SERVICES))


@each_service
def test_a_service_is_pinned_bounded_and_not_root(service):
    _, tag = service["image"].split(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert int(service["user"].split(":")[0]) > 0
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["cap_drop"] == ["ALL"]


@each_service
def test_a_service_listens_on_loopback_only(service):
    """All share the network of the host, so each is given its addresses."""
    assert service["network_mode"] == "host"
    assert "ports" not in service
    texts = [str(service.get("command")), str(service.get("environment"))]
    texts += [path.read_text() for path in sources(service) if path.is_file()]
    assert "127.0.0.1" in "".join(texts)
    assert not re.search(r"0\.0\.0\.0|\[::\]|(?<=[\"' ]):\d{4}", "".join(texts))


@each_service
def test_a_service_is_given_files_that_exist(service):
    for path in sources(service):
        assert path.exists(), path


def sources(service):
    """The files of the repository that a service mounts."""
    for volume in service["volumes"]:
        source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
        if source.startswith("."):
            yield (OBSERVE / source).resolve()


def test_grafana_is_of_the_line_whose_models_the_boards_use():
    pinned = re.search(
        r"grafana-foundation-sdk==\d+!(\d+\.\d+)", (ROOT / "pyproject.toml").read_text()
    )
    assert SERVICES["grafana"]["image"].startswith(f"grafana/grafana:{pinned[1]}.")


def test_prometheus_does_what_the_embedded_one_does():
    written = yaml.safe_load((OBSERVE / "prometheus/prometheus.yaml").read_text())
    rules = Path("/etc/prometheus/rules") / prometheus.RULES.name
    assert written == prometheus.configuration(Path("/k2/run/targets.json"), rules)
    mounts = [str(volume) for volume in SERVICES["prometheus"]["volumes"]]
    assert "../../servers/local/observe/rules:/etc/prometheus/rules:ro" in mounts
    assert "exemplar-storage" in str(SERVICES["prometheus"]["command"])


def test_data_sources_link_to_each_other_and_to_metrics_that_are_declared():
    by_uid = {source["uid"]: source for source in DATA_SOURCES}
    assert boards.PROMETHEUS.uid in by_uid
    linked = re.findall(r"'datasourceUid': '([^']+)'", str(DATA_SOURCES))
    assert set(linked) == set(by_uid)
    traces = by_uid["k2-tempo"]["jsonData"]
    assert traces["tracesToLogsV2"]["datasourceUid"] == "k2-loki"
    for query in traces["tracesToMetrics"]["queries"]:
        assert promql.faults(query["query"]) == []


def test_traces_go_from_alloy_to_tempo():
    tempo = yaml.safe_load((OBSERVE / "tempo/tempo.yaml").read_text())
    assert not {"ingester", "compactor"} & set(tempo), "Tempo 3 refuses what it no longer has"
    endpoint = tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    alloy = (OBSERVE / "alloy/config.alloy").read_text()
    assert f'endpoint = "{endpoint}"' in alloy
    assert 'endpoint = "127.0.0.1:4317"' in alloy
    assert alloy.count("{") == alloy.count("}")
