"""Answers questions for rows: a page that is made whole, or a stream.

Everything that K2 is asked for one answer happens in one thread: plan, compare with the tag that
the caller has, read. A page is made whole, so that a failure has its status, and its headers name
the page after it; JSON comes in pages only, other forms up to the same number of rows. Of a stream,
which has more, the first rows are read before its status is sent, and a later failure breaks the
connection.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

import k2client
from k2 import limits
from k2.clock import Clock
from k2client import arrow_text, records
from k2client.errors import Invalid, K2Error
from k2client.json_form import json_value
from k2client.times import from_us, to_us
from servers.edge.calls import CallThreads
from servers.edge.negotiation import AnswerForm
from servers.edge.parts import EdgeParts
from servers.edge.row_cursor import Cursor

TIME: Final = "event_time"
NEXT_CURSOR: Final = "k2-next-cursor"
_RESTARTS: Final = 3  # of an answer that changed while it was read
_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')

Answer = k2client.Trades
Ask = Callable[[k2client.Client, Mapping[str, Any]], Answer]


@dataclass(frozen=True)
class RowQuestion:
    """A request for rows.

    Attributes:
        path: of the request, without what varies in it.
        asked: its parameters by the client's names, those of a page aside.
        ask: asks K2 for rows, by the client's parameters.
        limit: rows at most.
        form: of the answer.
        cursor: where the page begins; None: at the start.
        by_time: whether rows are in the order of their event times, so that a page begins at one.
        plan_only: whether only the plan is asked for.
        request_class: how urgent it is.
    """

    path: str
    asked: Mapping[str, Any]
    ask: Ask
    limit: int
    form: AnswerForm
    cursor: Cursor | None = None
    by_time: bool = False
    plan_only: bool = False
    request_class: str | None = None

    @property
    def pages(self) -> bool:
        """Whether the answer is made whole."""
        return self.limit <= limits.EDGE_ROWS_MAX

    @property
    def skip(self) -> int:
        """Rows at the begin that were sent before."""
        return self.cursor.skip if self.cursor else 0

    @property
    def newest_first(self) -> bool:
        """The order."""
        return bool(self.asked.get("order", "asc") == "desc")

    def parameters(self, rows: int) -> dict[str, Any]:
        """Return what K2 is asked for, with so many rows at most."""
        given = dict(self.asked) | {"limit": self.skip + rows}
        if self.cursor is not None:
            for name in ("last", "consistency", "start", "end"):
                given.pop(name, None)
            start, end = self.cursor.start_us, self.cursor.end_us
            given |= {"as_of": self.cursor.token}
            given |= {} if start is None else {"start": _moment(start)}
            given |= {} if end is None else {"end": _moment(end)}
        columns = given.get("columns")
        if columns is not None and self.pages and self.by_time and TIME not in columns:
            given["columns"] = [*columns, TIME]
        return given


@dataclass(frozen=True)
class _Made:
    """An answer that was made in a thread: what is sent.

    Attributes:
        provenance: of the answer.
        tag: its ETag; empty where the same request may have other rows.
        body: of a page; None where the caller has it already.
        following: the cursor of the next page; None where there is none, and of a stream.
        chunks: of a stream, the first of them read.
    """

    provenance: records.Provenance
    tag: str
    body: bytes | None = None
    following: str | None = None
    chunks: _Chunks | None = None


async def answered(parts: EdgeParts, request: Request, question: RowQuestion) -> Response:
    """Answer a question in its form."""
    tags = _TAG.findall(request.headers.get("If-None-Match", ""))
    client = parts.connections.client(question.request_class)
    if question.pages:
        made = await parts.rows.run(lambda: _make(client, parts.clock, question, tags))
        return _response(made, question)
    leave = parts.streams.enter()
    try:
        made = await parts.rows.run(lambda: _make(client, parts.clock, question, tags))
    except BaseException:
        leave()
        raise
    if made.chunks is None:
        leave()
        return _response(made, question)
    sent = _sent(parts.rows, made.chunks, leave)
    return StreamingResponse(sent, 200, _headers(made, question), question.form.media_type)


def _response(made: _Made, question: RowQuestion) -> Response:
    headers = _headers(made, question)
    if made.body is None:
        return Response(status_code=304, headers=headers)
    return Response(made.body, 200, headers, question.form.media_type)


def _make(client: k2client.Client, clock: Clock, question: RowQuestion, tags: list[str]) -> _Made:
    """Plan, and read what is to be sent."""
    timing = _Timing(clock)
    answer = question.ask(client, question.parameters(question.limit + question.pages))
    timing.planned()
    provenance = answer.provenance
    tag = _tag_of(question, provenance)
    if tag and tag in tags:
        return _Made(provenance, tag)
    if question.pages:
        body, following = _page(question, answer, timing)
        return _Made(provenance, tag, body, following)
    assert question.form.write is not None, "JSON comes in pages"
    batches = _left_out(answer.batches(), question.skip)
    return _Made(provenance, tag, chunks=_Chunks(question.form.write(answer.schema, batches)))


class _Timing:
    """Measures an answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._plan_ms = 0.0
        self._first_ms: float | None = None

    def planned(self) -> None:
        """Note that the plan is made."""
        self._plan_ms = self._now_ms()

    def read(self) -> None:
        """Note that rows are here."""
        self._first_ms = self._first_ms or self._now_ms()

    def document(self) -> dict[str, float | None]:
        """Return the times, the last of them until now."""
        return {"plan": self._plan_ms, "first_batch": self._first_ms, "total": self._now_ms()}

    def _now_ms(self) -> float:
        return round((self._clock.monotonic_s() - self._began_s) * 1e3, 3)


def _page(question: RowQuestion, answer: Answer, timing: _Timing) -> tuple[bytes, str | None]:
    """Read the rows of a page and one more, which says whether there is another page.

    Returns:
        The page in its form, and the cursor of the next one; None where there is none.
    """
    read = [] if question.plan_only else _gathered(answer, timing)
    rows = pa.Table.from_batches(read, answer.schema).slice(question.skip)
    page = rows.slice(0, question.limit)
    provenance = answer.provenance
    following = None
    if rows.num_rows > question.limit and provenance.token and not provenance.missing:
        following = _following(question, provenance, page)
    columns = question.asked.get("columns")
    shown = page.select(columns) if columns is not None else page
    if question.form.write is not None:
        return b"".join(question.form.write(shown.schema, shown.to_batches())), following
    lines = [line for batch in shown.to_batches() for line in arrow_text.json_rows(batch)]
    rest = {
        "next_cursor": following,
        "provenance": json_value(provenance),
        "estimate": json_value(answer.estimate),
        "timing_ms": timing.document(),
    }
    return f'{{"data": [{", ".join(lines)}], {json.dumps(rest)[1:]}'.encode(), following


def _gathered(answer: Answer, timing: _Timing) -> list[pa.RecordBatch]:
    """Read all rows; from the start again where the answer changed meanwhile."""
    for restarts in range(_RESTARTS + 1):
        read = []
        try:
            for batch in answer.batches():
                timing.read()
                read.append(batch)
        except K2Error as error:
            if error.reason != "ANSWER_CHANGED" or restarts == _RESTARTS:
                raise
        else:
            break
    return read


def _following(question: RowQuestion, provenance: records.Provenance, page: pa.Table) -> str:
    """Return the cursor of the page after a page."""
    assert provenance.token is not None, "what is not pinned has no next page"
    within = provenance.range
    here = question.cursor or Cursor(
        question.path,
        question.asked,
        provenance.token,
        start_us=None if within.start_time is None else to_us(within.start_time),
        end_us=None if within.end_time is None else to_us(within.end_time),
        skip=0,
    )
    times = pc.cast(page.column(TIME), pa.int64()) if question.by_time else None
    return here.after(times, page.num_rows, newest_first=question.newest_first).encode()


def _left_out(batches: Iterator[pa.RecordBatch], skip: int) -> Iterator[pa.RecordBatch]:
    """Leave out the first rows."""
    for batch in batches:
        left = batch.slice(skip)
        skip -= min(skip, batch.num_rows)
        if left.num_rows or not skip:
            yield left


class _Chunks:
    """The chunks of a stream, made in threads, one at a time; the first is made at once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._making = threading.Lock()
        self._first = next(chunks, None)

    def take(self) -> bytes | None:
        """Make the next one; None at the end."""
        with self._making:
            first, self._first = self._first, None
            return next(self._chunks, None) if first is None else first

    def close(self) -> None:
        """Give the rows up."""
        with self._making:
            self._chunks.close()  # type: ignore[attr-defined]  # a generator


async def _sent(
    threads: CallThreads, chunks: _Chunks, leave: Callable[[], None]
) -> AsyncIterator[bytes]:
    """Send the chunks; a reader that goes away ends the reading."""
    try:
        while (chunk := await threads.go_on(chunks.take)) is not None:
            if chunk:
                yield chunk
    finally:
        leave()
        threads.submit(chunks.close)


def _tag_of(question: RowQuestion, provenance: records.Provenance) -> str:
    """Return what is the same for the same rows in the same form: by request, S and E."""
    if provenance.missing:
        return ""
    within, skip = provenance.range, question.skip
    parts = [
        *(question.path, question.asked, question.limit, skip, question.form.name),
        *(question.plan_only, within.start_time, within.end_time),
        *(provenance.snapshot_id, provenance.end_positions.epoch, provenance.end_positions.offsets),
        *(provenance.completeness, provenance.gaps_total),
    ]
    text = json.dumps(json_value(parts), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _headers(made: _Made, question: RowQuestion) -> dict[str, str]:
    """Return the headers of an answer: provenance, tag, and how it may be kept."""
    origin = made.provenance
    found = {
        "k2-source": origin.source,
        "k2-completeness": origin.completeness,
        "k2-level": origin.level,
        "k2-snapshot-id": origin.snapshot_id,
        "k2-planned-time": json_value(origin.planned_time),
        "k2-gaps-total": origin.gaps_total,
        "k2-missing": ", ".join(f"{part.part} {part.reason}" for part in origin.missing) or None,
        "k2-token": origin.token,
        NEXT_CURSOR: made.following if question.form.write is not None else None,
        "Cache-Control": "private, no-cache",
        "Vary": "Accept",
        "ETag": f'W/"{made.tag}"' if made.tag else None,
    }
    if question.form.write is not None:
        name = f"k2-{question.path.strip('/').split('/')[1]}.{question.form.suffix}"
        found["Content-Disposition"] = f'inline; filename="{name}"'
    return {name: str(value) for name, value in found.items() if value is not None}


def _moment(micros: int) -> str:
    """Write a time as the client reads it at any year."""
    try:
        return str(json_value(from_us(micros)))
    except OverflowError:
        raise Invalid("BAD_PAGE_TOKEN", "cursor: its time is out of bounds") from None
