import pytest

from k2.errors import Invalid, Reason
from k2.feed.gaps.backfill_request import FillRequest, checked, read_request
from k2.market.instrument import Instrument

ASKED = FillRequest(Instrument("BINANCE", "BTCUSDT"), 5, 9, 1_600_000_000_000_000)


def test_a_request_survives_as_a_document():
    assert read_request(ASKED.document()) == ASKED
    assert ASKED.key == "BINANCE:BTCUSDT/5-9"
    assert ASKED.ids == 5


@pytest.mark.parametrize(
    "change",
    [
        {"symbol": ""},
        {"exchange": 3},
        {"first_id": "5"},
        {"last_id": True},
        {"requested_us": 5},
        {"x": 1},
    ],
)
def test_what_is_no_request_is_refused(change):
    document = ASKED.document() | change
    if "x" in change:
        assert read_request(document) == ASKED, "a later version may say more"
    else:
        with pytest.raises(Invalid):
            read_request(document)


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        (9, 5, Reason.RANGE_REVERSED),
        (-1, 5, Reason.RANGE_REVERSED),
        (0, 2**63, Reason.RANGE_REVERSED),
        (1, 10_000_001, Reason.LIMIT_OUT_OF_BOUNDS),
    ],
)
def test_a_range_must_be_one_and_bounded(first, last, reason):
    with pytest.raises(Invalid) as caught:
        checked(ASKED._replace(first_id=first, last_id=last))
    assert caught.value.reason is reason
