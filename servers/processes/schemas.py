"""The schema cache of a process: one folder of the data directory, shared by all processes."""

from __future__ import annotations

from k2.settings import Settings
from k2.tape.schema_registry import SchemaStore
from servers.runtime import Runtime


def open_schemas(settings: Settings, runtime: Runtime) -> SchemaStore:
    """The schemas of the tape's registry; a wait for a new one ends when the process is to end."""
    return SchemaStore(
        settings.tape.registry_url,
        settings.data_dir / "schemas",
        runtime.clock,
        runtime.stopping.wait,
    )
