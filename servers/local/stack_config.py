"""Configures the processes of an embedded stack: commands, environments and addresses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import Path

from k2.settings import Settings
from servers.local import broker, registry, stack_ports
from servers.local.artifacts import Artifacts
from servers.local.broker import BrokerPorts
from servers.local.child_process import ChildCommand
from servers.local.jupyter import Jupyter
from servers.local.observe.prometheus import Prometheus
from servers.local.registry import RegistryPorts
from servers.local.stack_file import RUN_ID
from servers.local.stamp import LIVE, source_of
from servers.process_table import PROCESSES, Lifecycle, Port, names_of

FOUNDATION = ("broker", "registry")
_PRACTICE_PORTS = {port.name for spec in PROCESSES.values() if spec.practice for port in spec.ports}
_LOOPBACK = "127.0.0.1"
_EVERYWHERE = ("0.0.0.0", "[::]")
_ARENAS = "2"  # of glibc's allocator: each holds on to freed memory


@dataclass(frozen=True)
class StackPart(Lifecycle):
    """One process.

    Attributes:
        name: in `k2 status`, and of its log.
        prepare: makes what to start; called once, off the main thread.
        addresses: where it listens, by what the stack calls the address.
        answers: asks whether it serves; None when it says so itself on stdout.
    """

    name: str
    prepare: Callable[[], ChildCommand]
    addresses: Mapping[str, str]
    answers: Callable[[], bool] | None = None


@dataclass(frozen=True)
class StackConfig:
    """The configuration that all parts of one stack share.

    Attributes:
        settings: with an absolute data directory.
        ports: of this stack, by name.
        venue: live, synthetic or recording:PATH.
        exchange: whose id space the trades are in.
        run_id: of this stack.
        artifacts: Kafka and the registry.
        environment: of the supervisor, which the parts inherit.
        prometheus: that reads the metrics of this stack; None without one.
        jupyter: that serves the notebooks; None without one.
    """

    settings: Settings
    ports: Mapping[str, int]
    venue: str
    exchange: str
    run_id: str
    artifacts: Artifacts
    environment: Mapping[str, str] = field(repr=False)
    prometheus: Prometheus | None = None
    jupyter: Jupyter | None = None

    @property
    def data_dir(self) -> Path:
        """The data directory of the stack."""
        return self.settings.data_dir

    @property
    def bootstrap(self) -> str:
        """The broker's address."""
        return broker.bootstrap(self._broker_ports)

    @property
    def registry_url(self) -> str:
        """The registry's address."""
        return registry.url(self._registry_ports)

    @property
    def practises(self) -> bool:
        """Whether the practice venue is part of the stack."""
        return self.venue != LIVE

    @property
    def _broker_ports(self) -> BrokerPorts:
        return BrokerPorts(self.ports["broker"], self.ports["broker_controller"])

    @property
    def _registry_ports(self) -> RegistryPorts:
        return RegistryPorts(self.ports["registry"], self.ports["registry_management"])

    def used_ports(self) -> dict[str, int]:
        """Select the ports that this stack listens on, by name."""
        unused = () if self.practises else _PRACTICE_PORTS
        return {name: port for name, port in self.ports.items() if name not in unused}

    def parts(self) -> list[StackPart]:
        """List all parts, those that others need first."""
        return [
            self._broker(),
            self._registry(),
            *(self._process(process, name) for process, name in self.processes()),
            *([self._prometheus(self.prometheus)] if self.prometheus else ()),
            *([self._jupyter(self.jupyter)] if self.jupyter else ()),
        ]

    def processes(self) -> list[tuple[str, str]]:
        """List the processes that show metrics, and the name of each copy, in start order."""
        return [
            (process, name)
            for process, spec in PROCESSES.items()
            if self.practises or not spec.practice
            for name in names_of(process, self.settings)
        ]

    def _process(self, process: str, name: str) -> StackPart:
        spec = PROCESSES[process]
        named = {f"K2_{process.upper()}__NAME": name} if spec.copies else {}
        named["K2_TELEMETRY__LOG_FILES"] = "false"  # the supervisor writes them
        listens = stack_ports.metrics_port(name)
        if listens in self.ports:
            host = self._host("telemetry.listen")
            named["K2_TELEMETRY__LISTEN"] = f"{host}:{self.ports[listens]}"
        return StackPart(
            name,
            self._python(process, named),
            {port.name: self._reached(port) for port in spec.ports},
            **{trait.name: getattr(spec, trait.name) for trait in fields(Lifecycle)},
        )

    def _broker(self) -> StackPart:
        ports = self._broker_ports

        def prepare() -> ChildCommand:
            jars = self.artifacts.jars("kafka")
            folder = self.data_dir / "kafka"
            return self._marked(broker.prepare(folder, ports, jars, self.run_id))

        return StackPart(
            "broker",
            prepare,
            {"broker": self.bootstrap},
            lambda: broker.answers(ports),
            needs_tape=False,
            drain=3,
        )

    def _registry(self) -> StackPart:
        ports = self._registry_ports

        def prepare() -> ChildCommand:
            application = self.artifacts.unpacked("registry")
            folder = self.data_dir / "registry"
            return self._marked(registry.prepare(folder, ports, application))

        return StackPart(
            "registry",
            prepare,
            {"registry": self.registry_url},
            lambda: registry.answers(ports),
            needs_tape=False,
            drain=2,
        )

    def _prometheus(self, prometheus: Prometheus) -> StackPart:
        return StackPart(
            "prometheus",
            lambda: self._marked(prometheus.prepare(self.data_dir)),
            {"prometheus": prometheus.url},
            prometheus.answers,
            needs_tape=False,
            essential=False,
        )

    def _jupyter(self, jupyter: Jupyter) -> StackPart:
        return StackPart(
            "jupyter",
            lambda: self._marked(jupyter.prepare(self.data_dir)),
            {"jupyter": jupyter.url},
            jupyter.answers,
            needs_tape=False,
            essential=False,
        )

    def _python(self, process: str, named: Mapping[str, str]) -> Callable[[], ChildCommand]:
        argv = (sys.executable, "-P", "-m", "servers", process)
        return lambda: self._marked(
            ChildCommand(argv, {**self.environment, **self.child_environment(), **named})
        )

    def _marked(self, command: ChildCommand) -> ChildCommand:
        """With the mark by which a later stack knows a process that this one left behind."""
        return ChildCommand(
            command.argv,
            {"MALLOC_ARENA_MAX": _ARENAS, **command.env, RUN_ID: self.run_id},
            command.cwd,
        )

    def child_environment(self) -> dict[str, str]:
        """Build the settings of every Python part, as environment variables."""
        settings = self.settings
        ports = {port.name: port for spec in PROCESSES.values() for port in spec.ports}
        practice = f"ws://{self._reached(ports['venue'])}"
        listens = {
            port.variable: f"{self._host(port.setting)}:{self.ports[name]}"
            for name, port in ports.items()
        }
        return {
            "K2_DATA_DIR": str(self.data_dir),
            "K2_CACHE_DIR": str(settings.cache_dir),
            "K2_TAPE__BOOTSTRAP": self.bootstrap,
            "K2_TAPE__REGISTRY_URL": self.registry_url,
            "K2_FEED__VENUE": self.venue,
            "K2_FEED__VENUE_URL": practice if self.practises else settings.feed.venue_url,
            "K2_FEED__SOURCE": source_of(self.venue),
            "K2_FEED__SYMBOLS": json.dumps(settings.feed.symbols),
            "K2_FEED__EXCHANGE": self.exchange,
            "K2_FEED__COPIES": str(settings.feed.copies),
            "K2_VENUE__RATE": str(settings.venue.rate),
            "K2_VENUE__SPEED": str(settings.venue.speed),
            "K2_CONTROL__QUERY_ADDRESS": self._reached(ports["query"]),
            "K2_EDGE__CONTROL_ADDRESS": self._reached(ports["control"]),
            **({"K2_EDGE__PROMETHEUS_URL": self.prometheus.url} if self.prometheus else {}),
            **listens,
        }

    def _host(self, setting: str) -> str:
        """Return where a process listens: on loopback, unless networks are trusted."""
        if not self.settings.access.trusted_networks:
            return _LOOPBACK
        return str(attrgetter(setting)(self.settings)).rpartition(":")[0]

    def _reached(self, port: Port) -> str:
        """Return where the parts of this stack reach a listener."""
        host = self._host(port.setting)
        return f"{_LOOPBACK if host in _EVERYWHERE else host}:{self.ports[port.name]}"
