import base64
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2client.errors import Invalid
from servers.edge.row_cursor import PREFIX, Cursor

FIRST = Cursor("/v1/trades", {"order": "desc"}, "k2t1.x", None, None, 0)


def packed(content):
    return PREFIX + base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def test_it_reads_back():
    cursor = Cursor("/v1/trades", {"symbols": ["币USDT"], "order": "asc"}, "k2t1.x", -5, 2**60, 7)
    assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        PREFIX,
        PREFIX + "!",
        PREFIX + "e30",
        packed([]),
        packed({"path": 1}),
        packed(vars(FIRST) | {"skip": True}),
        packed(vars(FIRST) | {"skip": -1}),
        packed(vars(FIRST) | {"start_us": "now"}),
        packed(vars(FIRST) | {"more": 1}),
        PREFIX + "W" * 40_000,
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(Invalid) as refused:
        Cursor.decode(text)
    assert refused.value.reason == "BAD_PAGE_TOKEN"


@given(st.text(max_size=40))
def test_foreign_text_never_crashes(text):
    for given_text in (text, PREFIX + text):
        with pytest.raises(Invalid):
            Cursor.decode(given_text)


def read(times, cursor, newest_first):
    """The rows that a question with this cursor has: (time, number) in order."""
    rows = sorted(((at, n) for n, at in enumerate(times)), reverse=newest_first)
    low = -(10**9) if cursor.start_us is None else cursor.start_us
    high = 10**9 if cursor.end_us is None else cursor.end_us
    return [row for row in rows if low <= row[0] < high][cursor.skip :]


@given(
    times=st.lists(st.integers(0, 6), max_size=30),
    limit=st.integers(1, 7),
    newest_first=st.booleans(),
)
def test_pages_are_the_whole_answer_in_order(times, limit, newest_first):
    cursor, pages = FIRST, []
    while True:
        rows = read(times, cursor, newest_first)
        pages += rows[:limit]
        if len(rows) <= limit:
            break
        sent = pa.array([at for at, _ in rows[:limit]], pa.int64())
        cursor = cursor.after(sent, limit, newest_first=newest_first)
    assert pages == read(times, FIRST, newest_first)


def test_rows_without_times_are_counted():
    assert FIRST.after(None, 5, newest_first=False).after(None, 5, newest_first=False).skip == 10
