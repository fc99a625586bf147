"""Runs Prometheus beside a stack, on its targets and the alert rules of K2.

Prometheus is a program of the system, which K2 does without: where it is missing, the stack runs as
before. It reads the targets from `run/targets.json`, so that a process that listens elsewhere after
a restart is found again. Labels that a process sets itself are kept (`honor_labels`): control
exports the state of all processes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from servers.local.child_process import ChildCommand
from servers.probes import answers_ok

PORT: Final = 9090
RULES: Final = Path(__file__).with_name("rules") / "k2.yaml"
HOW_TO_GET: Final = "prometheus is not installed: apt-get install prometheus (k2 up --observe)"

_SCRAPE_INTERVAL: Final = "5s"
_TARGETS_INTERVAL: Final = "5s"  # Prometheus sees a change of the file by itself where it can
_KEPT_TIME: Final = "7d"
_KEPT_BYTES: Final = "512MB"
_VERSION_S: Final = 10.0


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus to run.

    Attributes:
        program: where it is installed.
        port: on loopback, where it is to listen.
    """

    program: Path
    port: int

    @property
    def address(self) -> str:
        """Where it listens, `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its page."""
        return f"http://{self.address}"

    def prepare(self, data_dir: Path) -> ChildCommand:
        """Write its configuration to `prometheus/` of a data directory; what to start."""
        folder = data_dir / "prometheus"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "prometheus.yml"  # JSON is YAML
        config.write_text(json.dumps(configuration(data_dir / "run" / "targets.json"), indent=1))
        return ChildCommand(
            (
                str(self.program),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--storage.tsdb.retention.time={_KEPT_TIME}",
                f"--storage.tsdb.retention.size={_KEPT_BYTES}",
                f"--web.listen-address={self.address}",
                "--enable-feature=exemplar-storage",
                "--log.format=json",
            ),
            cwd=folder,
        )

    def answers(self) -> bool:
        """Whether it has loaded its configuration and serves queries."""
        return answers_ok(self.port, "/-/ready")


def find_program(path: str | None) -> Path | None:
    """Find Prometheus; None where it is not installed.

    Args:
        path: the variable PATH.
    """
    found = shutil.which("prometheus", path=path)
    return Path(found) if found else None


def version(program: Path) -> str:
    """Ask a Prometheus for its version; empty when it does not say."""
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            (str(program), "--version"),
            capture_output=True,
            text=True,
            timeout=_VERSION_S,
            check=False,
        )
        words = (said.stdout or said.stderr).split()
        return words[2] if words[:2] == ["prometheus,", "version"] else ""
    return ""


def configuration(targets: Path, rules: Path = RULES) -> Mapping[str, Any]:
    """Make the configuration of a Prometheus of one stack.

    Args:
        targets: the file in which the stack says where its processes serve metrics.
        rules: the alert rules.
    """
    return {
        "global": {
            "scrape_interval": _SCRAPE_INTERVAL,
            "scrape_timeout": "4s",
            "evaluation_interval": _SCRAPE_INTERVAL,
        },
        "rule_files": [str(rules)],
        "scrape_configs": [
            {
                "job_name": "k2",
                "honor_labels": True,
                "file_sd_configs": [
                    {"files": [str(targets)], "refresh_interval": _TARGETS_INTERVAL}
                ],
            }
        ],
    }
