from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from k2client.caller_name import caller_name, calling_for


def test_a_name_holds_in_its_block_and_where_its_context_goes():
    assert caller_name() == ""
    with calling_for("a"), ThreadPoolExecutor(1) as pool:
        with calling_for(""):
            assert caller_name() == ""
        assert pool.submit(copy_context().run, caller_name).result() == "a"
        assert pool.submit(caller_name).result() == ""
    assert caller_name() == ""
