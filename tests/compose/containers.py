"""Reads the files of `compose.yaml` as Docker Compose does, as far as tests need it."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
MAIN = ROOT / "compose.yaml"
FILES = [ROOT / name for name in yaml.safe_load(MAIN.read_text())["include"]]
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def substituted(value, variables):
    """A value with `${NAME:-default}` replaced, as by an environment of these variables."""
    if isinstance(value, dict):
        return {name: substituted(inner, variables) for name, inner in value.items()}
    if isinstance(value, list):
        return [substituted(inner, variables) for inner in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda one: variables.get(one[1]) or one[2] or "", value)
    return value


def model(path, **variables):
    """A file with its variables replaced."""
    return substituted(yaml.safe_load(path.read_text()), variables)


def services(**variables):
    """The services of all files, by name."""
    found = {}
    for path in FILES:
        for name, service in model(path, **variables)["services"].items():
            assert name not in found, name
            found[name] = service | {"folder": path.parent}
    return found


def processes(**variables):
    """The services that run K2's own image, by name."""
    return {
        name: service
        for name, service in services(**variables).items()
        if service["image"].startswith("k2:")
    }


def k2_settings(service):
    """The settings that a service gives K2, as variables."""
    environment = service.get("environment", {})
    return {name: str(value) for name, value in environment.items() if name.startswith("K2_")}
