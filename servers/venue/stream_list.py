"""The streams of a connection: read from its path, changed by its messages. Sans-IO.

Binance's rules: `/stream?streams=a/b` wraps each event with the name of its stream, `/ws/a/b` does
not; a name is lower case; a stream that does not exist is accepted and stays silent.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from k2 import limits
from k2.errors import Invalid, Reason
from servers.venue.frames import Form

_TRADES = "@trade"
_STREAM_BYTES_MAX = 64
_UNITS = {"MILLISECOND": False, "MICROSECOND": True}


class _Request(msgspec.Struct):
    method: str
    params: list[Any] = []
    id: int | str | None = None


_request = msgspec.json.Decoder(_Request)
_any = msgspec.json.Decoder()
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class StreamList:
    """The streams of one connection and the form of its frames.

    Args:
        streams: names, in the order they were asked for.
        form: of the frames.
    """

    def __init__(self, streams: list[str], form: Form) -> None:
        self.form = form
        self._streams = dict.fromkeys(streams)

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of all streams."""
        return tuple(self._streams)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols whose trades it listens to, upper case."""
        return frozenset(
            name.removesuffix(_TRADES).upper()
            for name in self._streams
            if name.endswith(_TRADES) and name == name.lower()
        )

    def answer(self, message: str | bytes) -> str:
        """Obey a message of the client; return the reply."""
        try:
            request = _request.decode(message)
        except _NOT_JSON as error:
            return _refusal(_id_of(message), *_fault_of(error))
        try:
            result = self._obey(request)
        except Invalid as error:
            return _refusal(request.id, 2, f"Invalid request: {error.message}")
        return msgspec.json.encode({"result": result, "id": request.id}).decode()

    def _obey(self, request: _Request) -> object:
        if request.method == "SUBSCRIBE":
            streams = dict.fromkeys((*self._streams, *_names(request.params)))
            _check_count(len(streams))
            self._streams = streams
        elif request.method == "UNSUBSCRIBE":
            for name in _names(request.params):
                self._streams.pop(name, None)
        elif request.method == "LIST_SUBSCRIPTIONS":
            return list(self._streams)
        elif request.method == "GET_PROPERTY" and request.params == ["combined"]:
            return self.form.combined
        elif request.method == "SET_PROPERTY" and request.params[:1] == ["combined"]:
            if len(request.params) != 2 or not isinstance(request.params[1], bool):
                raise Invalid(Reason.BAD_REQUEST, "expected Boolean")
            self.form = Form(request.params[1], self.form.microseconds)
        else:
            raise Invalid(Reason.BAD_REQUEST, f"unknown variant `{request.method}`")
        return None


def is_stream_path(path: str) -> bool:
    """Return whether a request's path is that of a WebSocket of market data."""
    where, _, _ = path.partition("?")
    return where in ("/stream", "/ws") or where.startswith("/ws/")


def parse_path(path: str) -> StreamList:
    """Read the streams that a path of `is_stream_path` asks for.

    Raises:
        Invalid: BAD_REQUEST for more streams than a connection may have, or an unknown unit.
    """
    where, _, asked = path.partition("?")
    query = parse_qs(asked)
    combined = where == "/stream"
    text = query.get("streams", [""])[0] if combined else unquote(where.removeprefix("/ws"))
    names = [name for name in text.split("/") if name]
    _check_count(len(names))
    unit = query.get("timeUnit", ["MILLISECOND"])[0].upper()
    if unit not in _UNITS:
        raise Invalid(Reason.BAD_REQUEST, "timeUnit is MILLISECOND or MICROSECOND")
    return StreamList(_names(names), Form(combined, _UNITS[unit]))


def _names(values: list[Any]) -> list[str]:
    for name in values:
        if not isinstance(name, str) or not name or len(name.encode()) > _STREAM_BYTES_MAX:
            raise Invalid(Reason.BAD_REQUEST, "invalid stream name")
    return values


def _check_count(streams: int) -> None:
    if streams > limits.STREAMS_PER_CONNECTION_MAX:
        raise Invalid(
            Reason.BAD_REQUEST,
            f"a connection has at most {limits.STREAMS_PER_CONNECTION_MAX} streams",
        )


def _fault_of(error: Exception) -> tuple[int, str]:
    if isinstance(error, msgspec.ValidationError):
        return 2, f"Invalid request: {error}"
    return 3, f"Invalid JSON: {error}"


def _id_of(message: str | bytes) -> object:
    """Read the id of a request that is wrong elsewhere, so that the reply names it."""
    try:
        fields = _any.decode(message)
    except _NOT_JSON:
        return None
    found = fields.get("id") if isinstance(fields, dict) else None
    return found if isinstance(found, int | str) else None


def _refusal(request_id: object, code: int, message: str) -> str:
    error = {"code": code, "msg": message}
    return msgspec.json.encode({"error": error, "id": request_id}).decode()
