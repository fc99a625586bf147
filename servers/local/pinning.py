"""Writes `artifacts.lock`: the files of Kafka and the registry, each with its SHA-256.

Run by `scripts/lock_artifacts` when a version changes here; never by a running K2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from jgo.maven import MavenContext, PythonResolver

from servers.local.artifacts import Artifact, sha256_of

_KAFKA = "org.apache.kafka:kafka_2.13:4.4.0"
_LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"  # else the broker says nothing
_REGISTRY = "io.apicurio:apicurio-registry-app:3.3.3:all:tar.gz"

_HEADER = """\
# The files of the embedded stack: component, Maven coordinate, SHA-256, bytes.
# Written by scripts/lock_artifacts; a fetched file that differs is refused.
"""


def text_of(artifacts: list[Artifact]) -> str:
    """Build the content of `artifacts.lock`."""
    lines = sorted(f"{one.group} {one.coordinate} {one.sha256} {one.size}\n" for one in artifacts)
    return _HEADER + "".join(lines)


def resolve(context: MavenContext) -> list[Artifact]:
    """Everything the stack needs, downloaded into the context's cache and measured."""
    return [*_jars(context, _KAFKA), *_jars(context, _LOGGING, alone=True), _archive(context)]


def _jars(context: MavenContext, coordinate: str, *, alone: bool = False) -> Iterator[Artifact]:
    wanted = context.create_dependency(coordinate)
    needed = [wanted]
    if not alone:
        found, more = context.resolver.resolve([wanted])
        needed = [*found, *more]
    for each in needed:
        name = f"{each.groupId}:{each.artifactId}:{each.version}:jar"
        yield _measured("kafka", name, each.artifact.resolve())


def _archive(context: MavenContext) -> Artifact:
    group, artifact, version, classifier, packaging = _REGISTRY.split(":")
    component = context.project(group, artifact).at_version(version)
    return _measured("registry", _REGISTRY, component.artifact(classifier, packaging).resolve())


def _measured(group: str, coordinate: str, path: Path) -> Artifact:
    return Artifact(group, coordinate, sha256_of(path), path.stat().st_size)


if __name__ == "__main__":
    made = MavenContext(resolver=PythonResolver(), repo_cache=Path(sys.argv[1]) / "repository")
    sys.stdout.write(text_of(resolve(made)))
