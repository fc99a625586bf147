"""Answers from the newest snapshot of a real lake, without a tail."""

import tempfile
from pathlib import Path

import pyarrow as pa

from k2.clock import SystemClock
from k2.market.files import FileIndex
from k2.query.execute import Executor
from k2.query.plan import LakeFacts, plan_lake
from k2.query.request import TradesRequest
from k2.query.view import OpenQuery


def answer_of(world, **fields):
    """All rows of a request; `world` has a catalog, snapshots and settings."""
    head = world.snapshots.current()
    files = FileIndex(world.snapshots.files(head.snapshot_id))
    request = TradesRequest(**fields)
    plan = plan_lake(request, LakeFacts(head.positions, files), head.positions)
    with tempfile.TemporaryDirectory() as folder:
        executor = Executor(
            clock=SystemClock(), warehouse=world.settings.warehouse, temp_dir=Path(folder)
        )
        try:
            answer = executor.run(OpenQuery(request, plan, {}, None))
            return pa.Table.from_batches(list(answer), schema=answer.schema)
        finally:
            executor.close()
