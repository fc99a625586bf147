"""Read tokens and optional columns under K2's own compaction, expiry and sweep.

Tape and clock are in memory; fold, commit, Iceberg, files, tail, plan and engine are the real ones.
"""

import pytest

from k2.lake.iceberg.tables import ensure_tables
from k2.query.request import Consistency
from tests.integration.query.test_evolution import SCHEMAS, send_newer
from tests.integration.query.test_read_tokens import answers, data_files, go_on, under
from tests.support.lake_world import LakeWorld
from tests.support.query_stack import LakeStack
from tests.support.tomorrow import comes

pytestmark = pytest.mark.integration

DAY_S = 86_400


@pytest.fixture
def lake(tmp_path):
    world = LakeWorld(tmp_path)
    yield world
    world.close()


def committed(stack):
    return stack.ask(consistency=Consistency.COMMITTED)[0]


def test_a_token_has_the_same_rows_after_compaction_expiry_and_sweep(lake):
    with LakeStack(lake, recent_s=0.0) as stack:
        stack.send("BTCUSDT", range(40))
        stack.commit()
        stack.view.maintain()
        stack.send("BTCUSDT", [*range(45, 70), 3, 44])
        before, provenance = answers(stack)
        token, hint = provenance.token, provenance.snapshot_id
        for number in range(1, 12):
            go_on(stack, 100 * number)
        maintainer, files = lake.maintainer(), len(data_files(lake))
        assert maintainer.compact()
        assert len(data_files(lake)) < files
        assert under(stack, token) == before
        lake.clock.advance(3600)
        assert maintainer.expire(lake.clock.now_us())
        assert hint not in [one.snapshot_id for one in lake.snapshots.list()]
        stack.view.maintain()
        assert under(stack, token) == before
        removed = 0
        for _ in range(4):
            lake.clock.advance(DAY_S)
            removed += maintainer.sweep().removed
        assert removed
        assert under(stack, token) == before
        with stack.restarted(recent_s=0.0) as other:
            go_on(other, 5000)
            assert under(other, token) == before


def test_a_merge_of_files_with_and_without_an_optional_column(lake, monkeypatch):
    with LakeStack(lake, schemas=SCHEMAS) as today:
        for first in range(0, 60, 10):
            today.send("BTCUSDT", range(first, first + 10, 2))
            today.commit()
        comes(monkeypatch)
        ensure_tables(lake.catalog)
        with today.restarted(schemas=SCHEMAS) as stack:
            for first in range(1, 61, 10):
                send_newer(stack, range(first, first + 10, 2))
                stack.commit()
            whole = committed(stack)
            assert lake.maintainer().compact()
            assert committed(stack).equals(whole)
            assert 0 < whole.column("note").null_count < len(whole)


def test_a_k2_that_does_not_know_a_column_keeps_it_in_a_merge(lake, monkeypatch):
    with LakeStack(lake, schemas=SCHEMAS) as today:
        with monkeypatch.context() as patch:
            comes(patch)
            ensure_tables(lake.catalog)
            with today.restarted(schemas=SCHEMAS) as stack:
                stack.send("BTCUSDT", [0])
                for first in range(1, 101, 10):
                    send_newer(stack, range(first, first + 10, 2))
                    stack.commit()
                whole = committed(stack)
        assert lake.maintainer().compact()
        comes(monkeypatch)
        with today.restarted(schemas=SCHEMAS) as stack:
            assert committed(stack).equals(whole)
