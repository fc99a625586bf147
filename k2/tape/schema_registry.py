"""Schema ids and what they mean, kept on disk: the registry is needed once for each id, then never.

A message says only the id of its schema. If a registry (restored from another backup, or another
one at the same address) gave an id another meaning, old and new messages would be read wrongly
without a sign of it. So what an id means is written down the first time, with a fingerprint, and a
registry that answers otherwise is refused.

An id that the registry does not know is remembered, too, for `limits.SCHEMA_MISS_S`: garbage names
ids without end. Registering a new version waits that long before anything is written with it, so
that no process still remembers its id as unknown. A registry that could not be asked is left alone
for a while, so that what needs no registry goes on meanwhile.

The registry speaks Confluent's API; four requests are all K2 needs of it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k2 import limits
from k2.clock import Clock
from k2.errors import Data, Invalid, Reason, Unavailable

Schema = dict[str, Any]

_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_ID_MAX = 2**31 - 1  # of Confluent's wire format
_log = logging.getLogger(__name__)

_AWAY_FACTOR = 5  # a registry that took a time to fail is left alone so many times as long
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy


class SchemaStore:
    """The schemas of one registry, cached durably. Thread-safe; processes may share a cache.

    Args:
        url: base address of the registry's API.
        cache_dir: where what each id means is kept; made when missing.
        clock: says how long a miss is remembered.
        pause: waits so many seconds, or shorter when the process is to end; by default the clock's
            `sleep`.
    """

    def __init__(
        self,
        url: str,
        cache_dir: Path,
        clock: Clock,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._dir = cache_dir
        self._clock = clock
        self._pause = pause or clock.sleep
        self._lock = threading.Lock()
        self._known: dict[int, Schema] = {}
        self._misses: dict[int, float] = {}  # until when each is remembered, oldest first
        self._away_until_s = -1.0
        self._versions: dict[str, object] = {}  # of subjects, before registering began

    def register(self, subject: str, schema: Schema, compatibility: str = "FULL_TRANSITIVE") -> int:
        """Register a schema under a subject; repeatable.

        Fully compatible, in both directions and with every version before: a reader of today reads
        what was written years ago, and one that has been running for months reads what a newer
        writer sends. Compatible backward alone, a schema without the price is accepted.

        A new version of a subject that had one before is there for `limits.SCHEMA_MISS_S` when this
        returns; a subject without versions has no reader yet.

        Returns:
            Its id, the same for the same schema.

        Raises:
            Data: SCHEMA_CONFLICT when the registry refuses it as incompatible, or answers with an
                id that means another schema here.
            Unavailable: REGISTRY_UNAVAILABLE.
        """
        quoted = urllib.parse.quote(subject, safe="")
        versions = f"/subjects/{quoted}/versions"
        try:
            # After a try whose answer was lost, the version is there already and still new.
            before = self._versions.setdefault(subject, self._list(versions))
            self._ask("PUT", f"/config/{quoted}", {"compatibility": compatibility})
            answer = self._ask("POST", versions, {"schema": json.dumps(schema)})
            is_new = bool(before) and self._list(versions) != before
        except _Refused as error:
            raise Data(
                Reason.SCHEMA_CONFLICT,
                f"the registry refuses the schema of {subject}: {error}",
                metadata={"subject": subject},
            ) from error
        schema_id = _read_id(answer)
        if is_new:
            _log.info("schema id %d of %s is new: waiting until all ask for it", schema_id, subject)
            self._pause(limits.SCHEMA_MISS_S)
        self._remember(schema_id, schema)
        self._compare(schema_id, self._fetch(schema_id))
        self._versions.pop(subject, None)
        return schema_id

    def remembers(self, schema_id: int) -> bool:
        """Return whether `schema` answers for an id without asking the registry."""
        return (
            schema_id in self._known or self._is_missed(schema_id) or self._path(schema_id).exists()
        )

    def schema(self, schema_id: int) -> Schema:
        """Return the schema of an id.

        Raises:
            KeyError: the registry does not know the id, or what it means is no Avro schema within
                K2's bounds.
            Data: CHECKSUM_MISMATCH when the cached schema is not what was written.
            Unavailable: REGISTRY_UNAVAILABLE when it is not cached and cannot be asked.
        """
        known = self._known.get(schema_id) or self._read(schema_id)
        if known is None:
            if self._is_missed(schema_id):
                raise KeyError(schema_id)
            known = self._remember(schema_id, self._look_up(schema_id))
        if len(self._known) >= limits.SCHEMAS_KNOWN_MAX:
            self._known = {}
        self._known[schema_id] = known
        return known

    def _is_missed(self, schema_id: int) -> bool:
        until_s = self._misses.get(schema_id, -1.0)
        return schema_id > _ID_MAX or self._clock.monotonic_s() < until_s

    def _look_up(self, schema_id: int) -> Schema:
        """Ask for an id; a miss, and that the registry is away, is remembered."""
        began_s = self._clock.monotonic_s()
        if began_s < self._away_until_s:
            raise _unavailable(f"{self._url} could not be asked a moment ago")
        try:
            return self._fetch(schema_id)
        except KeyError:
            with self._lock:
                self._misses.pop(schema_id, None)
                self._misses[schema_id] = began_s + limits.SCHEMA_MISS_S
                if len(self._misses) > limits.SCHEMA_MISSES_MAX:
                    del self._misses[next(iter(self._misses))]
            raise
        except Unavailable:
            now_s = self._clock.monotonic_s()
            alone_s = max(limits.REGISTRY_AWAY_S, _AWAY_FACTOR * (now_s - began_s))
            self._away_until_s = now_s + alone_s
            raise

    def _fetch(self, schema_id: int) -> Schema:
        try:
            answer = self._ask("GET", f"/schemas/ids/{schema_id}", None, limits.SCHEMA_LOOKUP_S)
        except _Refused as error:
            if error.status == 404:
                raise KeyError(schema_id) from error
            raise _unavailable(f"{self._url} answers {error}") from error
        except _TooLarge as error:
            raise KeyError(schema_id) from error
        text = answer.get("schema") if isinstance(answer, dict) else None
        if not isinstance(text, str):
            raise _unavailable(f"{self._url} answers what is not a schema")
        try:
            schema = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise KeyError(schema_id) from error  # of another kind than Avro
        if _is_deep(schema):
            raise KeyError(schema_id)
        return schema if isinstance(schema, dict) else {"type": schema}

    def _list(self, versions: str) -> object:
        """List the versions of a subject; None when it has none."""
        try:
            return self._ask("GET", versions, None)
        except _Refused as error:
            if error.status == 404:
                return None
            raise

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, str] | None,
        timeout_s: float = limits.REGISTRY_REQUEST_S,
    ) -> Any:  # noqa: ANN401 JSON
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": _CONTENT_TYPE, "Accept": _CONTENT_TYPE},
        )
        try:
            with _DIRECT.open(request, timeout=timeout_s) as response:
                content = response.read(limits.SCHEMA_BYTES_MAX + 1)
                if len(content) > limits.SCHEMA_BYTES_MAX:
                    raise _TooLarge(path)
                return json.loads(content)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(limits.KIB).decode(errors="replace")
            if error.code >= 500 or error.code in (408, 429):
                raise _unavailable(f"{self._url} answers {error.code}") from error
            raise _Refused(error.code, said) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
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


def _is_deep(schema: object) -> bool:
    """Return whether JSON is nested more deeply than K2 reads."""
    level = [schema]
    for _ in range(limits.SCHEMA_JSON_DEPTH_MAX):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return bool(level)


class _TooLarge(Exception):
    """The registry answers more than K2 reads."""


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
