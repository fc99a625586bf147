import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from k2.v1 import query_service_pb2
from k2client.errors import Invalid, NotFound
from k2client.trades_request import TradesQuestion, is_token, name_of, snapshot_id_of


def trades(**asked):
    return TradesQuestion(**{"symbols": "BTCUSDT"} | asked).request().trades


def test_the_shortest_question_sets_nothing_else():
    assert trades() == query_service_pb2.TradesRequest(
        symbols=["BTCUSDT"], order=query_service_pb2.ORDER_ASC
    )


def test_names_are_one_or_several():
    assert list(trades(symbols=("A", "B")).symbols) == ["A", "B"]
    assert list(trades(exchanges="BINANCE").exchanges) == ["BINANCE"]
    assert list(trades(columns=iter(["price"])).columns) == ["price"]
    assert not trades(symbols=None, exchanges=None, columns=None).symbols


@pytest.mark.parametrize(
    "names",
    [
        ["B", "A"],
        ("B", "A", "B"),
        dict.fromkeys(["B", "A"]),
        {"B": 1, "A": 2}.keys(),
        (name for name in ("B", "A")),
        np.array(["B", "A"]),
        np.array(["B", "A"], object),
        np.array([["B", "A"]])[0],
        pd.Index(["B", "A"]),
        pd.Series(["B", "A", "B"], index=[7, 8, 9]),
        pd.Series(["B", "A"], dtype="string"),
        pd.Categorical(["B", "A"]),
        pl.Series(["B", "A"]),
        pl.Series(["B", "A"], dtype=pl.Categorical),
        pa.array(["B", "A"]),
        pa.chunked_array([["B"], ["A"]]),
    ],
)
def test_names_come_in_any_iterable_each_once_in_order(names):
    question = TradesQuestion(symbols=names)
    for _ in range(2):  # an iterator, too, is asked twice
        assert list(question.request().trades.symbols) == ["B", "A"]


def test_a_set_has_no_order():
    assert sorted(trades(symbols={"A", "B"}).symbols) == ["A", "B"]
    assert list(trades(symbols=np.str_("A")).symbols) == ["A"]


@pytest.mark.parametrize("field", ["symbols", "exchanges", "columns"])
@pytest.mark.parametrize(
    "names",
    [
        [], (), {}, iter(()), np.array([]), pd.Index([]), pd.Series([], dtype=str), pl.Series([]),
        "", [""], [None], ["A", 7], 7, 1.5, b"A", [b"A"], np.array("A"), np.array([["A"], ["B"]]),
        pd.Series(["A", None]), pl.Series(["A", None]), pa.array(["A", None]), [["A"]], "A\n",
        ["\ud800"], pl.lit("A"), object(), pd.NA, pl.DataFrame({"s": ["A"]}),
        pa.table({"s": ["A"]}),
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused_and_nothing_is_not_all(field, names):
    with pytest.raises(Invalid) as caught:
        trades(**{field: names})
    assert caught.value.reason == "BAD_REQUEST"
    assert field in caught.value.message


def test_one_name_is_one():
    assert (name_of("symbol", None), name_of("symbol", ""), name_of("symbol", "A")) == ("", "", "A")
    for several in (["A"], b"A", 7, np.array(["A"]), "A\n"):
        with pytest.raises(Invalid, match="symbol"):
            name_of("symbol", several)


def test_numbers_of_numpy_are_numbers():
    assert trades(limit=np.int64(5)).limit == 5
    assert trades(limit=pa.scalar(5)).limit == 5
    assert trades(as_of=np.int64(2**62)).as_of_snapshot_id == 2**62


def test_half_a_range_leaves_the_other_half_unset():
    asked = trades(start=1_610_064_000_000_007)
    assert asked.range.start_time.nanos == 7000
    assert not asked.range.HasField("end_time")
    assert trades(end="2021-01-08").range.end_time.seconds == 1_610_064_000
    assert not trades().HasField("range")


def test_last_is_exact():
    asked = trades(last="1.000001s")
    assert (asked.last.seconds, asked.last.nanos) == (1, 1000)


@pytest.mark.parametrize(("as_of", "snapshot_id"), [(7, 7), ("7", 7), (2**63 - 1, 2**63 - 1)])
def test_digits_are_a_snapshots_id(as_of, snapshot_id):
    assert trades(as_of=as_of).as_of_snapshot_id == snapshot_id


def test_other_texts_are_times():
    assert trades(as_of="2021-01-08T00:00:00Z").as_of_time.seconds == 1_610_064_000
    assert snapshot_id_of("2021-01-08") is None
    assert trades(as_of="20210108").as_of_time.seconds == 1_610_064_000
    assert trades(as_of=20_210_108).as_of_snapshot_id == 20_210_108


@pytest.mark.parametrize("text", ["k2t1.AAAA", " k2t1.AAAA\n", "k2t22.", "k2t1.not one"])
def test_what_looks_like_a_token_travels_as_one(text):
    assert trades(as_of=text).as_of_token == text.strip()
    assert trades(as_of=text).WhichOneof("as_of") == "as_of_token"


def test_times_and_ids_are_no_tokens():
    assert not any(map(is_token, (7, "7", "2021-01-08", "k2t1", "k2t.", "")))


def test_what_the_server_judges_is_left_to_it():
    asked = trades(symbols=["no such"], limit=-5, start="2021-01-01", end="2020-01-01", last="1s")
    assert (list(asked.symbols), asked.limit) == (["no such"], -5)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"order": "sideways"}, "BAD_REQUEST"),
        ({"order": None}, "BAD_REQUEST"),
        ({"consistency": "eventual"}, "BAD_REQUEST"),
        ({"limit": 2**63}, "LIMIT_OUT_OF_BOUNDS"),
        ({"limit": 1.5}, "LIMIT_OUT_OF_BOUNDS"),
        ({"limit": True}, "LIMIT_OUT_OF_BOUNDS"),
        ({"limit": np.float64(5)}, "LIMIT_OUT_OF_BOUNDS"),
        ({"start": 2**62}, "BAD_REQUEST"),
        ({"end": 1_610_064_000_278}, "BAD_REQUEST"),
        ({"as_of": 1.5}, "BAD_REQUEST"),
        ({"as_of": pd.NaT}, "BAD_REQUEST"),
        ({"last": "soon"}, "BAD_REQUEST"),
    ],
)
def test_what_has_no_form_on_the_wire_is_refused_here(asked, reason):
    with pytest.raises(Invalid) as caught:
        trades(**asked)
    assert caught.value.reason == reason


@pytest.mark.parametrize("as_of", [2**63, -1, "9" * 30])
def test_an_impossible_snapshot_is_not_found_as_the_server_says_it(as_of):
    with pytest.raises(NotFound) as caught:
        trades(as_of=as_of)
    assert caught.value.reason == "UNKNOWN_SNAPSHOT"


def test_the_client_imports_none_of_the_libraries_whose_forms_it_takes():
    script = "import sys, k2client; print(*{'pandas', 'polars', 'duckdb'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert found.stdout.strip() == b""
