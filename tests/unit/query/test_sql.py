from dataclasses import replace

from k2.market.files import FileForm, FileIndex
from k2.market.offsets import TimeRange
from k2.query.plan import Plan
from k2.query.request import Order, TradesRequest
from k2.query.shapes.bars import Bars
from k2.query.shapes.shape import Statement
from k2.query.shapes.vwap import Vwap
from k2.query.sql import lake_rows, needed_columns, ordered_rows, shaped_rows


def plan_of(times=None, ends=None, **more):
    return Plan(times or TimeRange(), {}, FileIndex(()), ends or {}, (), False, (), **more)


def test_what_a_caller_names_is_a_parameter_and_never_text():
    evil = "X'; DROP TABLE trades; --"
    request = TradesRequest(symbols=(evil, "B"), exchanges=(evil,), columns=("price",))
    statement = lake_rows(request, plan_of(), {FileForm(): ["a.parquet"]}, None)
    assert evil not in statement.text
    assert statement.parameters == (["a.parquet"], evil, "B", evil)
    assert statement.text.count("?") == len(statement.parameters)


def test_times_and_ends_of_partitions_are_conditions():
    statement = lake_rows(
        TradesRequest(), plan_of(TimeRange(1, 2), {3: 40, 1: 7}), {FileForm(): ["a"]}, 5
    )
    assert "event_time >= make_timestamptz(?)" in statement.text
    assert "event_time < make_timestamptz(?)" in statement.text
    assert statement.parameters == (["a"], 1, 2, 0, 1, 7, 0, 3, 40)
    assert statement.text.endswith("LIMIT 5")
    assert "UNION" not in statement.text


def test_rows_of_newer_epochs_do_not_count_and_older_ones_are_not_cut():
    plan = plan_of(ends={3: 40}, epoch=2, newer_epochs=True)
    statement = lake_rows(TradesRequest(), plan, {FileForm(): ["a"]}, None)
    assert "tape_epoch <= ?" in statement.text
    assert statement.parameters == (["a"], 2, 2, 3, 40)


def test_the_tail_stands_beside_the_files():
    statement = ordered_rows(TradesRequest(), plan_of(), {FileForm(): ["a"]})
    assert "UNION ALL" in statement.text
    assert " WHERE " not in statement.text


def test_the_order_leaves_out_what_is_the_same_in_all_rows():
    whole = ordered_rows(TradesRequest(order=Order.DESC), plan_of(), {FileForm(): ["a"]}).text
    assert whole.endswith("ORDER BY event_time DESC, exchange DESC, symbol DESC, trade_id DESC")
    one = TradesRequest(symbols=("A",), exchanges=("B",))
    assert lake_rows(one, plan_of(), {FileForm(): ["a"]}, 3).text.endswith(
        "ORDER BY event_time ASC, trade_id ASC LIMIT 3"
    )
    assert "ORDER" not in lake_rows(one, plan_of(), {FileForm(): ["a"]}, None).text


def test_what_orders_is_read_also_where_it_is_not_returned():
    request = TradesRequest(columns=("price",))
    assert needed_columns(request) == ("exchange", "symbol", "trade_id", "event_time", "price")


def test_files_that_lack_a_column_are_read_beside_the_others():
    request = TradesRequest(columns=("price", "trade_id"), symbols=("A",))
    files = {FileForm(("price",)): ["old"], FileForm(): ["new", "newer"]}
    for statement in (
        lake_rows(request, plan_of(), files, 7),
        ordered_rows(request, plan_of(), files),
    ):
        assert statement.text.count("NULL AS price") == 1
        assert statement.parameters == (["old"], ["new", "newer"], "A")
        assert statement.text.count("?") == 3
    assert "NULL" not in lake_rows(request, plan_of(), {FileForm(): ["a"]}, 7).text


def test_a_column_that_no_file_has_is_null():
    request = TradesRequest(columns=("price",))
    statement = lake_rows(request, plan_of(), {FileForm(("price",)): ["old"]}, None)
    assert "NULL AS price" in statement.text
    assert statement.parameters == (["old"],)


def test_narrow_and_wide_files_are_read_apart():
    files = {FileForm(narrow=True): ["new"], FileForm(): ["old"]}
    statement = lake_rows(TradesRequest(columns=("quantity",)), plan_of(), files, None)
    assert statement.text.count("UNION ALL") == 1
    assert statement.parameters == (["new"], ["old"])
    ends = lake_rows(TradesRequest(columns=("quantity",)), plan_of(ends={3: 40}), files, None)
    assert ends.text.count("tape_offset") == 3, "each part has the columns of the conditions"
    alone = lake_rows(TradesRequest(), plan_of(), {FileForm(narrow=True): ["new"]}, None)
    assert "UNION" not in alone.text


def test_a_shape_is_ordered_by_what_varies():
    made = Statement("SELECT 1")
    several = TradesRequest(symbols=("A", "B"), shape=Bars(), order=Order.DESC, limit=3)
    text = shaped_rows(several, plan_of(), {}, made).text
    assert text.endswith(" ORDER BY bar_start DESC, exchange DESC, symbol DESC LIMIT 3")
    one = TradesRequest(symbols=("A",), exchanges=("E",), shape=Bars())
    assert shaped_rows(one, plan_of(), {}, made).text.endswith(" ORDER BY bar_start ASC")
    assert "ORDER BY" not in shaped_rows(replace(one, shape=Vwap()), plan_of(), {}, made).text
