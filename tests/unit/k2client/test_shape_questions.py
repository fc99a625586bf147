from dataclasses import replace

import pytest

from k2.v1 import query_service_pb2 as pb
from k2client import ShapeQuestion, shape_questions
from k2client.errors import Invalid
from k2client.trades_request import TradesQuestion

OF = TradesQuestion("BTCUSDT", last="1h", limit=5)


def test_a_shape_is_of_the_trades_that_a_question_names():
    asked = ShapeQuestion("vwap", OF).request()
    assert asked == pb.PlanQueryRequest(vwap=pb.VwapRequest(of=OF.request().trades))


def test_bars_have_a_length_a_filling_and_a_zone():
    bars = shape_questions.bars(OF).request().bars
    assert (bars.every, bars.fill, bars.time_zone) == ("1m", pb.FILL_NONE, "UTC")
    assert bars.of == OF.request().trades
    bars = shape_questions.bars(OF, "1mo", "PREV", "Asia/Tokyo").request().bars
    assert (bars.every, bars.fill, bars.time_zone) == ("1mo", pb.FILL_PREV, "Asia/Tokyo")


@pytest.mark.parametrize(
    "wrong", [("",), (60,), (None,), ("1m", "last"), ("1m", "none", ""), ("1m", "none", None)]
)
def test_what_has_no_form_is_refused(wrong):
    with pytest.raises(Invalid) as caught:
        shape_questions.bars(OF, *wrong)
    assert caught.value.reason == "BAD_REQUEST"
    with pytest.raises(Invalid):
        ShapeQuestion("latest", replace(OF, order="up")).request()
