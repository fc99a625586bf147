"""What the query process counts beside its heartbeat."""

from types import SimpleNamespace

from k2.market.ledger import GapState
from servers.processes.query_measures import measures_of
from tests.support.query_stack import QueryStack
from tests.support.scraped import scraped


def test_tail_answers_and_ledger_are_measured(tmp_path):
    rows = SimpleNamespace(running=3, waiting=1)
    with QueryStack(tmp_path) as stack:
        measure = measures_of(stack.tail, stack.view, stack.coverage, stack.executor, rows)
        found = scraped(measure())
        assert found["k2_tail_partitions_released",] == 0
        assert found["k2_tail_restarts_total",] == 0
        assert found["k2_query_memory_bytes",] == 0
        assert (found["k2_flight_streams_running",], found["k2_flight_streams_waiting",]) == (3, 1)
        assert {name[1] for name in found if name[0] == "k2_gaps"} == set(map(str, GapState))
        stack.view._must_restart = True
        stack.view.maintain()
        assert scraped(measure())["k2_tail_restarts_total",] == 1
