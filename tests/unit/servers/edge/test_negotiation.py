import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2client.errors import Invalid
from servers.edge import negotiation
from servers.edge.negotiation import ARROW, CSV, FORMS, NDJSON, PARQUET, chosen
from tests.fakes.k2_server import trade_rows

TABLE = trade_rows(10)
BATCHES = TABLE.to_batches(max_chunksize=4)


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "json"),
        ("text/*", "csv"),
        ("text/csv;q=0.4, application/vnd.apache.parquet; q=0.5", "parquet"),
        ("application/jsonl", "ndjson"),
        ("application/x-parquet", "parquet"),
        ("application/parquet", "parquet"),
        ("application/*;q=0.1, application/vnd.apache.arrow.stream", "arrow"),
        ("application/json;q=0, */*", "ndjson"),
        ("application/json;q=odd, text/csv", "csv"),
    ],
)
def test_the_form_is_the_one_that_accept_prefers(accept, name):
    assert chosen(accept).name == name


def test_a_named_form_counts_alone():
    assert chosen("text/csv", "parquet") is PARQUET


def test_what_accepts_no_form_is_refused():
    with pytest.raises(Invalid) as refused:
        chosen("image/png, text/csv;q=0")
    assert refused.value.reason == "NOT_ACCEPTABLE"


def written(form, table=TABLE, batches=BATCHES):
    return b"".join(form.write(table.schema, batches))


def test_binary_forms_read_back_as_they_were():
    assert pa.ipc.open_stream(written(ARROW)).read_all().equals(TABLE)
    assert pq.read_table(io.BytesIO(written(PARQUET))).equals(TABLE)


def test_text_forms_have_exact_values():
    rows = list(csv.DictReader(io.StringIO(written(CSV).decode())))
    lines = [json.loads(line) for line in written(NDJSON).splitlines()]
    assert len(rows) == len(lines) == TABLE.num_rows
    for row, line in zip(rows, lines, strict=True):
        for name in ("trade_id", "price", "quantity", "event_time"):
            assert row[name] == line[name]
    assert lines[0]["quantity"] == "0.00000001"


@pytest.mark.parametrize("form", FORMS[1:], ids=lambda form: form.name)
def test_the_first_chunk_comes_with_the_first_batch(form):
    taken = []

    def batches():
        for batch in BATCHES:
            taken.append(batch)
            yield batch

    chunks = form.write(TABLE.schema, batches())
    assert next(chunks)
    assert len(taken) == 1
    chunks.close()


@pytest.mark.parametrize("form", FORMS[1:], ids=lambda form: form.name)
def test_no_rows_are_an_answer_too(form):
    content = written(form, batches=[])
    if form is CSV:
        assert content.decode() == ",".join(TABLE.schema.names) + "\n"
    if form is ARROW:
        assert pa.ipc.open_stream(content).read_all().num_rows == 0
    if form is PARQUET:
        assert pq.read_table(io.BytesIO(content)).num_rows == 0


def test_each_form_has_a_name_of_its_own():
    assert len({form.name for form in FORMS}) == len({form.media_type for form in FORMS}) == 5
    assert negotiation.JSON.write is None
