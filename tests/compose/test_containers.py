"""The containers of the whole platform: pinned, bounded, closed, and set up as `k2 up` does it."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from k2 import settings
from k2.settings import Settings
from k2cli.demo.stage import fresh_start
from servers.commands.join import venue_settings
from servers.local import broker, pinning, registry, stack_ports
from servers.local.observe import prometheus
from servers.local.stamp import Stamp
from servers.process_table import MODULES, PROCESSES
from tests.compose import containers
from tests.compose.containers import ROOT, k2_settings, processes, services
from tests.support import tools

SERVICES = services()
ONCE = {"deploy", "prepare"}  # they end
WRITES_ITS_ROOT = {"kafka", "jupyter"}  # configuration; notebooks that are saved
HOST = {  # ports of the host
    "control": [50051],
    "edge": [8000],
    "grafana": [3000],
    "jupyter": [8888],
    "kafka-ui": [8080],
    "prometheus": [9090],
    "query": [8815],
}
OUR_IMAGES = ("k2:", "k2-notebook:")
HOSTS_OF_REGISTRY = {  # where it listens and stores; the rest is as embedded
    *("QUARKUS_HTTP_HOST", "QUARKUS_HTTP_PORT", "QUARKUS_MANAGEMENT_HOST"),
    *("QUARKUS_MANAGEMENT_PORT", "APICURIO_DATASOURCE_URL"),
    *("APICURIO_DATASOURCE_USERNAME", "APICURIO_DATASOURCE_PASSWORD"),  # Apicurio's defaults
}

each_service = pytest.mark.parametrize("name", SERVICES)
each_process = pytest.mark.parametrize("name", [name for name in processes() if name != "prepare"])


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """An environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in settings.environment():
        if name.startswith("K2_"):
            monkeypatch.delenv(name)
    return monkeypatch


@each_service
def test_a_service_is_pinned_bounded_and_not_root(name):
    service = SERVICES[name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert int(service["user"].split(":")[0]) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only", False) is (name not in WRITES_ITS_ROOT)
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert ("healthcheck" in service) is (name not in ONCE)


@each_service
def test_a_service_is_reached_from_this_machine_only(name):
    service = SERVICES[name]
    assert service["networks"] == ["k2"]
    published = [port.rsplit(":", 2) for port in service.get("ports", ())]
    assert [(host, int(outside)) for host, outside, _ in published] == [
        ("127.0.0.1", port) for port in HOST.get(name, ())
    ]


@each_service
def test_no_secret_is_in_a_file(name):
    for variable, value in SERVICES[name].get("environment", {}).items():
        secret = re.search(r"PASSWORD|SECRET|TOKEN|_KEY$", variable)
        assert not secret or value == "", variable


@each_service
def test_a_service_is_given_files_that_exist(name):
    service = SERVICES[name]
    mounted = [volume.split(":")[0] for volume in service.get("volumes", ())]
    for source in mounted:
        assert not source.startswith(".") or (service["folder"] / source).exists(), source
    if build := service.get("build"):
        assert (service["folder"] / build["context"]).resolve() == ROOT
        stages = re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
        assert build["target"] in stages


DOCKERFILE = ROOT / "compose/core/Dockerfile"


def test_what_the_image_copies_is_there_and_not_ignored():
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE.read_text(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == one or source.startswith(f"{one}/") for one in kept), source


def test_the_notebooks_image_is_that_of_the_processes_with_more():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    ours = {one["image"] for one in SERVICES.values() if one["image"].startswith(OUR_IMAGES)}
    assert ours == {f"k2:{version[1]}", f"k2-notebook:{version[1]}"}


@each_process
def test_every_variable_of_k2_is_a_setting(name):
    for variable in k2_settings(processes()[name]):
        known: type[BaseModel] = Settings
        parts = variable.removeprefix("K2_").lower().split("__")
        for part in parts[:-1]:
            known = known.model_fields[part].annotation
        assert parts[-1] in known.model_fields, variable


@each_process
@pytest.mark.parametrize("venue", ["auto", "live", "synthetic"])
def test_the_settings_load_and_the_command_is_one_of_k2(name, venue, bare):
    service = processes(K2_VENUE=venue)[name]
    for variable, value in k2_settings(service).items():
        bare.setenv(variable, value)
    loaded = settings.load()
    assert [str(network) for network in loaded.access.trusted_networks] == [subnet()]
    python, module_flag, module, command, *arguments = service["command"]
    assert (python, module_flag, module) == ("python", "-m", "servers")
    assert command in MODULES
    if command == "join":
        process, flag, url = arguments
        assert (process, flag) == (name, "--practice-url")
        stamped = Stamp("simulated", "synthetic", "BINANCE")
        assert venue_settings(loaded, stamped, url)["K2_FEED__VENUE_URL"] == "ws://venue:8090"
    else:
        assert arguments == []
        assert command == name


def subnet():
    (network,) = {
        containers.model(path)["networks"]["k2"]["ipam"]["config"][0]["subnet"]
        for path in containers.FILES
    }
    return network


def test_a_demonstration_recovers_as_soon_as_on_the_stack_that_it_starts(bare):
    wanted = {
        fresh_start.variable_of(name): fresh_start.text_of(value)
        for name, value in fresh_start.DEMO_SETTINGS.items()
    }
    for name in PROCESSES:
        assert k2_settings(processes()[name]).items() >= wanted.items()
    chosen = processes(K2_DEGRADE__DWELL_S="15")["control"]
    assert k2_settings(chosen)["K2_DEGRADE__DWELL_S"] == "15"


def test_every_process_of_a_stack_is_a_service():
    running = {name for name in processes() if name not in ONCE}
    assert running == set(PROCESSES)
    assert SERVICES["feed"]["container_name"] == "k2-binance-stream"
    assert all(SERVICES[name]["hostname"] == name for name in running)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_listens_on_the_network_at_the_ports_of_k2_up(name, bare):
    """What others reach it by is its service's name and that port."""
    usual = stack_ports.fixed(settings.load())
    given = k2_settings(processes()[name])
    listens = {port.variable: f"0.0.0.0:{usual[port.name]}" for port in PROCESSES[name].ports}
    listens["K2_TELEMETRY__LISTEN"] = "0.0.0.0:9101"
    assert {variable: given[variable] for variable in given if "LISTEN" in variable} == listens


def test_processes_call_each_other_where_they_listen(bare):
    usual = stack_ports.fixed(settings.load())
    control = f"control:{usual['control']}"
    assert k2_settings(SERVICES["edge"])["K2_EDGE__CONTROL_ADDRESS"] == control
    asked = k2_settings(SERVICES["control"])["K2_CONTROL__QUERY_ADDRESS"]
    assert asked == f"query:{usual['query']}"
    assert SERVICES["feed"]["command"][-1] == f"ws://venue:{usual['venue']}"
    assert SERVICES["jupyter"]["environment"]["K2_ADDRESS"] == control


def test_kafka_is_the_one_of_k2_up():
    version = pinning._KAFKA.rsplit(":", 1)[1]
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version}"
    given = SERVICES["kafka"]["environment"]
    for name, value in broker._FIXED.items():
        assert given["KAFKA_" + name.upper().replace(".", "_")] == str(value), name
    assert given["KAFKA_LOG_DIRS"] in SERVICES["kafka"]["volumes"][0]


def test_the_registry_is_the_one_of_k2_up():
    version = pinning._REGISTRY.split(":")[2]
    assert SERVICES["registry"]["image"] == f"apicurio/apicurio-registry:{version}"
    given = SERVICES["registry"]["environment"]
    embedded = registry._environment(registry.RegistryPorts(1, 2))
    for name, value in embedded.items():
        assert name in HOSTS_OF_REGISTRY or given[name] == value, name
    file = re.fullmatch(r"jdbc:h2:file:(/registry)/database(;.*)", given["APICURIO_DATASOURCE_URL"])
    assert file, "on its volume"
    assert embedded["APICURIO_DATASOURCE_URL"].endswith(file[2])


def test_prometheus_reads_every_process():
    targets = json.loads((ROOT / "compose/core/targets.json").read_text())
    assert targets == [
        {"targets": [f"{name}:9101"], "labels": {"process": name}} for name in PROCESSES
    ]
    mounts = SERVICES["prometheus"]["volumes"]
    assert "../core/targets.json:/k2/run/targets.json:ro" in mounts
    written = yaml.safe_load((ROOT / "compose/observe/prometheus/prometheus.yaml").read_text())
    rules = Path("/etc/prometheus/rules") / prometheus.RULES.name
    assert written == prometheus.configuration(Path("/k2/run/targets.json"), rules)


OBSERVE = ROOT / "compose/observe"


def test_grafana_links_what_it_links_beside_k2_up_under_other_names():
    here = yaml.safe_load((OBSERVE / "containers/datasources.yaml").read_text())["datasources"]
    beside = yaml.safe_load((OBSERVE / "grafana/provisioning/datasources/k2.yaml").read_text())
    for one, other in zip(here, beside["datasources"], strict=True):
        host = one["url"].split("/")[2].split(":")[0]
        assert one == other | {"url": other["url"].replace("127.0.0.1", host)}
        assert host in SERVICES


def test_tempo_and_loki_are_those_beside_k2_up_under_other_names():
    assert below_title("containers/tempo.yaml") == (
        below_title("tempo/tempo.yaml")
        .replace("http_listen_address: 127.0.0.1", "http_listen_address: 0.0.0.0")
        .replace("127.0.0.1:4319", "0.0.0.0:4317")
        .replace("http://127.0.0.1:9090", "http://prometheus:9090")
    )
    assert below_title("containers/loki.yaml") == below_title("loki/loki.yaml").replace(
        "http_listen_address: 127.0.0.1", "http_listen_address: 0.0.0.0"
    )
    assert k2_settings(SERVICES["lake"])["K2_TELEMETRY__OTLP_ENDPOINT"] == "tempo:4317"


def below_title(path):
    """A file without its first line."""
    return (OBSERVE / path).read_text().split("\n", 1)[1]


def test_alloy_takes_the_logs_that_processes_write_to_their_volume():
    beside, here = (
        text[text.index("local.file_match") :]
        for text in map(below_title, ("alloy/config.alloy", "containers/logs.alloy"))
    )
    assert here == beside.replace("http://127.0.0.1:3100", "http://loki:3100")
    assert '"/k2/logs/*.log"' in here
    assert "k2:/k2:ro,nocopy" in SERVICES["alloy"]["volumes"]
    for name in PROCESSES:
        given = k2_settings(SERVICES[name])
        assert (given["K2_DATA_DIR"], given["K2_TELEMETRY__LOG_FILES"]) == ("/k2", "true")


@pytest.mark.tools
def test_the_files_are_linted_and_fit_the_schema_of_compose():
    tools.run("dclint", "--recursive", "--max-warnings", 0, ".", cwd=ROOT)


@pytest.mark.tools
def test_the_linter_finds_what_the_schema_forbids(tmp_path):
    text = (ROOT / "compose/observe/host.yaml").read_text()
    (tmp_path / "compose.yaml").write_text(text.replace("healthcheck:", "healthchecks:", 1))
    with pytest.raises(AssertionError, match="invalid-schema"):
        tools.run("dclint", tmp_path)


@pytest.mark.tools
def test_the_dockerfile_is_linted():
    tools.run("hadolint", DOCKERFILE)


@pytest.mark.tools
@pytest.mark.parametrize("file", ["compose.yaml", "compose/core/compose.yaml"])
def test_docker_compose_accepts_the_files(tmp_path, file):
    model = accepted(tmp_path, file)
    wanted = SERVICES if file == "compose.yaml" else containers.model(ROOT / file)["services"]
    assert set(model["services"]) == set(wanted)
    (network,) = model["networks"].values()
    assert network["ipam"]["config"] == [{"subnet": subnet()}]
    for name, service in model["services"].items():
        hosts = {port["host_ip"] for port in service.get("ports", ())}
        assert hosts <= {"127.0.0.1"}, name


@pytest.mark.tools
def test_docker_compose_accepts_what_runs_beside_k2_up(tmp_path):
    model = accepted(tmp_path, "compose/observe/host.yaml", K2_DATA_DIR=str(tmp_path))
    assert f"{tmp_path}/run" in str(model["services"]["prometheus"]["volumes"])


def accepted(tmp_path, file, **variables):
    """The model that Docker Compose makes of a file."""
    said = subprocess.run(
        [*docker_compose(), "-f", file, "config"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)} | variables,
        check=False,
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    return yaml.safe_load(said.stdout)


def docker_compose():
    """The client of Docker Compose: a plugin of docker, or a program of its own."""
    docker = tools.find("docker")
    if docker:
        asked = subprocess.run([docker, "compose", "version"], check=False, capture_output=True)
        if asked.returncode == 0:
            return [docker, "compose"]
    alone = tools.find("docker-compose")
    return [alone] if alone else tools.missing("docker compose")
