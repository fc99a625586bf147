"""DuckDB over files and arrays of the tail give one answer: the accepted rows below E."""

import tempfile
from dataclasses import replace
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from k2.clock import SystemClock
from k2.market import schema
from k2.market.files import FileIndex
from k2.query import admission, execute
from k2.query.plan import plan_union
from k2.query.view import OpenQuery
from tests.property.test_union import (
    OF_ETH,
    STRADDLING,
    aimed,
    aims,
    asked_by,
    happen,
    requests,
    steps,
)
from tests.support.lake_files import write_rows
from tests.support.tape_world import World

COLUMNS = ("event_time", "exchange", "symbol", "trade_id", "tape_partition", "tape_offset")

_NUMBERS = count()


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def executor(folder):
    made = execute.Executor(
        clock=SystemClock(), warehouse=f"file://{folder}", temp_dir=folder / "t"
    )
    yield made
    made.close()


def on_disk(plan, files, folder):
    """The plan with the files it reads written out."""
    stats = []
    for stat in plan.files.stats:
        path = folder / f"{next(_NUMBERS)}-{stat.path}.parquet"  # a path never has other content
        narrow = len(files[stat.path]) % 2 == 1  # the others as an earlier K2 wrote them
        write_rows(path, files[stat.path], narrow=narrow)
        stats.append(replace(stat, path=f"file://{path}", narrow=narrow))
    return replace(plan, files=FileIndex(stats))


def answer(executor, opened):
    given = executor.run(opened)
    table = pa.Table.from_batches(list(given), schema=given.schema)
    assert table.num_rows == given.rows_lake + given.rows_tail
    return table, given


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    happened=st.tuples(steps, steps),
    asked=st.tuples(requests, aims),
    held=st.sampled_from([0, 10**9]),
)
@example(happened=(STRADDLING, []), asked=(OF_ETH, None), held=0)
@example(happened=(STRADDLING, []), asked=(OF_ETH, 0), held=0)
def test_the_answer_is_the_accepted_rows_below_the_end(
    executor, folder, monkeypatch, happened, asked, held
):
    (before, meanwhile), (request_, aim) = happened, asked
    monkeypatch.setattr(admission, "PART_BYTES_MAX", held)  # sorted by DuckDB, or here
    monkeypatch.setattr(execute, "_ROWS_FIRST", 20)  # so that there are several parts
    monkeypatch.setattr(execute, "_ROWS_MAX", 40)
    world = World()
    happen(world, before)
    end, snapshot = world.end, world.snapshots[-1]
    happen(world, meanwhile)
    instruments, partitions = asked_by(request_)
    facts, view = world.tail(instruments, end)
    request_ = aimed(request_, facts, aim)
    plan = plan_union(request_, partitions, snapshot.facts(), facts, end)
    if plan.missing:
        snapshot = world.snapshots[-1]
        plan = plan_union(request_, partitions, snapshot.facts(), facts, end)
    opened = OpenQuery(request_, on_disk(plan, snapshot.files, folder), view.held, None)

    table, given_ = answer(executor, opened)
    assert table.schema == schema.arrow_schema(schema.TRADE)
    times = table.column("event_time").cast("int64")
    rows = list(
        zip(
            times.to_pylist(),
            *(table.column(name).to_pylist() for name in COLUMNS[1:]),
            strict=True,
        )
    )
    assert rows == [tuple(row) for row in world.expected(request_, end)]
    assert not (plan.skips_lake and given_.rows_lake)

    few = replace(opened, request=replace(request_, columns=("price", "symbol")))
    narrow, _ = answer(executor, few)
    assert narrow.schema.names == ["price", "symbol"]
    assert narrow.column("symbol").to_pylist() == [row[2] for row in rows]
