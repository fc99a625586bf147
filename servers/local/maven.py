"""Fetches one artefact by its Maven coordinate, without Java and Maven.

The library behind it is slow to import; `artifacts.py` loads this module when something is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jgo.maven import MavenContext, PythonResolver

from k2 import limits

Report = Callable[[int], None]


def fetch(coordinate: str, folder: Path, report: Report, remote: str = "") -> Path:
    """Download one file under `folder`.

    Args:
        coordinate: group:artifact:version:packaging, with a classifier before the packaging if any.
        folder: a scratch folder of the caller's own.
        report: called with the number of bytes that arrived since its last call.
        remote: base of a repository to ask; empty for the public one.

    Raises:
        OSError: the network or the disk failed.
        RuntimeError: the repository has no such file.
    """

    @contextmanager
    def progress(_name: str, _size: int) -> Iterator[Report]:
        yield report

    group, artifact, version, *rest = coordinate.split(":")
    classifier, packaging = (rest[0], rest[1]) if len(rest) == 2 else ("", rest[0])
    context = MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=folder,
        local_repos=[],
        remote_repos={"mirror": remote} if remote else None,
        timeout=limits.FETCH_TIMEOUT_S,
    )
    wanted = context.project(group, artifact).at_version(version).artifact(classifier, packaging)
    if wanted.cached_path:
        wanted.cached_path.unlink(missing_ok=True)
    return Path(wanted.resolve())
