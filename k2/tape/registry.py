"""Schema ids and what they mean, kept on disk: the registry is needed once for each id, then never.

A message says only the id of its schema. If a registry (restored from another backup, or another
one at the same address) gave an id another meaning, old and new messages would be read wrongly
without a sign of it. So what an id means is written down the first time, with a fingerprint, and a
registry that answers otherwise is refused.

The registry speaks Confluent's API; three requests are all K2 needs of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from k2 import limits
from k2.errors import Data, Invalid, Reason, Unavailable

Schema = dict[str, Any]

_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"


class SchemaStore:
    """The schemas of one registry, cached durably. Thread-safe; processes may share a cache.

    Args:
        url: base address of the registry's API.
        cache_dir: where what each id means is kept; made when missing.
    """

    def __init__(self, url: str, cache_dir: Path) -> None:
        self._url = url.rstrip("/")
        self._dir = cache_dir
        self._lock = threading.Lock()
        self._known: dict[int, Schema] = {}

    def register(self, subject: str, schema: Schema, compatibility: str = "FULL_TRANSITIVE") -> int:
        """Register a schema under a subject; repeatable.

        Fully compatible, in both directions and with every version before: a reader of today reads
        what was written years ago, and one that has been running for months reads what a newer
        writer sends. Compatible backward alone, a schema without the price is accepted.

        Returns:
            Its id, the same for the same schema.

        Raises:
            Data: SCHEMA_CONFLICT when the registry refuses it as incompatible, or answers with an
                id that means another schema here.
            Unavailable: REGISTRY_UNAVAILABLE.
        """
        quoted = urllib.parse.quote(subject, safe="")
        text = json.dumps(schema)
        try:
            self._ask("PUT", f"/config/{quoted}", {"compatibility": compatibility})
            answer = self._ask("POST", f"/subjects/{quoted}/versions", {"schema": text})
        except _Refused as error:
            raise Data(
                Reason.SCHEMA_CONFLICT,
                f"the registry refuses the schema of {subject}: {error}",
                metadata={"subject": subject},
            ) from error
        schema_id = _read_id(answer)
        self._remember(schema_id, schema)
        self._compare(schema_id, self._fetch(schema_id))
        return schema_id

    def schema(self, schema_id: int) -> Schema:
        """What an id means.

        Raises:
            KeyError: the registry does not know the id.
            Data: CHECKSUM_MISMATCH when the cached schema is not what was written.
            Unavailable: REGISTRY_UNAVAILABLE when it is not cached and cannot be asked.
        """
        known = self._known.get(schema_id) or self._read(schema_id)
        if known is None:
            known = self._remember(schema_id, self._fetch(schema_id))
        self._known[schema_id] = known
        return known

    def _fetch(self, schema_id: int) -> Schema:
        try:
            answer = self._ask("GET", f"/schemas/ids/{schema_id}", None)
        except _Refused as error:
            if error.status == 404:
                raise KeyError(schema_id) from error
            raise _unavailable(f"{self._url} answers {error}") from error
        try:
            schema = json.loads(answer["schema"])
        except (KeyError, TypeError, ValueError) as error:
            raise _unavailable(f"{self._url} answers what is not a schema") from error
        return schema if isinstance(schema, dict) else {"type": schema}

    def _ask(self, method: str, path: str, body: dict[str, str] | None) -> Any:  # noqa: ANN401 JSON
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": _CONTENT_TYPE, "Accept": _CONTENT_TYPE},
        )
        try:
            with urllib.request.urlopen(request, timeout=limits.REGISTRY_REQUEST_S) as response:
                return json.loads(response.read(limits.SCHEMA_BYTES_MAX))
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(limits.KIB).decode(errors="replace")
            if error.code >= 500 or error.code in (408, 429):
                raise _unavailable(f"{self._url} answers {error.code}") from error
            raise _Refused(error.code, said) from error
        except (OSError, ValueError) as error:
            raise _unavailable(f"{self._url} cannot be asked: {error}") from error

    # --- the cache ------------------------------------------------------------------------------

    def _path(self, schema_id: int) -> Path:
        return self._dir / f"{schema_id}.json"

    def _remember(self, schema_id: int, schema: Schema) -> Schema:
        """Write down what an id means, unless it is; it must then mean the same."""
        with self._lock:
            if self._read(schema_id) is not None:
                self._compare(schema_id, schema)
                return schema
            content = {"id": schema_id, "fingerprint": fingerprint(schema), "schema": schema}
            _write_durably(self._path(schema_id), json.dumps(content, indent=1).encode())
            return schema

    def _read(self, schema_id: int) -> Schema | None:
        try:
            content = json.loads(self._path(schema_id).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise self._corrupt(schema_id) from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if not isinstance(schema, dict) or (
            (content.get("id"), content.get("fingerprint")) != (schema_id, fingerprint(schema))
        ):
            raise self._corrupt(schema_id)
        return schema

    def _compare(self, schema_id: int, answered: Schema) -> None:
        known = self._read(schema_id)
        if known is None or fingerprint(known) != fingerprint(answered):
            raise Data(
                Reason.SCHEMA_CONFLICT,
                f"schema id {schema_id} means another schema to the registry at {self._url} than "
                f"to {self._path(schema_id)}: it is not the registry this data was written with; "
                "restore that one from a backup",
                metadata={"schema_id": str(schema_id)},
            )

    def _corrupt(self, schema_id: int) -> Data:
        return Data(
            Reason.CHECKSUM_MISMATCH,
            f"{self._path(schema_id)} is damaged; restore it, or remove it to ask the registry",
            metadata={"schema_id": str(schema_id)},
        )


def fingerprint(schema: object) -> str:
    """SHA-256 over what decides how a schema is read: everything but documentation."""
    text = json.dumps(_essence(schema), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _essence(schema: object) -> object:
    if isinstance(schema, dict):
        return {key: _essence(value) for key, value in schema.items() if key != "doc"}
    return [_essence(part) for part in schema] if isinstance(schema, list) else schema


class _Refused(Exception):
    """The registry understood the request and said no."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status} {said}")
        self.status = status


def _unavailable(message: str) -> Unavailable:
    return Unavailable(Reason.REGISTRY_UNAVAILABLE, message, retry_after_s=1.0)


def _read_id(answer: object) -> int:
    if isinstance(answer, dict) and isinstance(answer.get("id"), int):
        schema_id: int = answer["id"]
        return schema_id
    raise Invalid(Reason.BAD_SETTING, "what answers at the registry's address is not a registry")


def _write_durably(path: Path, content: bytes) -> None:
    """Whole or not at all, also after a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
