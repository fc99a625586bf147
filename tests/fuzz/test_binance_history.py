"""Whatever a venue's REST answers, it is trades that were asked for, or no answer."""

import json

from hypothesis import given
from hypothesis import strategies as st

from k2.errors import NotFound, Unavailable
from k2.feed.venues.history import Reply
from tests.unit.feed.venues.test_binance_history import BTC, Venue

TEXT = st.text(max_size=12)
NUMBERS = st.integers() | st.floats() | st.booleans() | st.none()
JSON = st.recursive(
    NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 20) | JSON,
            "price": st.sampled_from(["1.5", "0", "1e9", "9" * 30, "0.00000001"]) | JSON,
            "qty": st.sampled_from(["1.5", "92000000000000.00000001"]) | JSON,
            "time": st.sampled_from([1_760_000_000_000, 1_759_999_999_999_999]) | JSON,
            "isBuyerMaker": st.booleans() | JSON,
        },
        optional={"isBestMatch": JSON, "new": JSON},
    ),
    max_size=12,
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "x-mbx-used-weight-1m"]), TEXT | st.just("30"), max_size=2
)
BODIES = st.binary(max_size=200) | (ROWS | JSON).map(lambda made: json.dumps(made).encode())


@given(
    st.sampled_from([200, 200, 200, 400, 418, 429, 500]),
    HEADERS,
    BODIES,
    st.integers(0, 20),
    st.integers(1, 12),
)
def test_an_answer_is_believed_or_refused(status, headers, body, from_id, count):
    venue = Venue(Reply(status, headers, body))
    try:
        answer, said = venue.history.trades(BTC, from_id, count), ""
    except (Unavailable, NotFound) as error:
        answer, said = None, error.message
    assert len(said) < 1000
    assert 0 <= venue.budget.wait_s(25, venue.clock.now_us()) <= 3 * 86_400
    if answer is None:
        return
    assert status == 200
    ids = [trade.trade_id for trade in answer.trades]
    assert ids == sorted(set(ids))
    assert all(from_id <= each < from_id + count for each in (*ids, *answer.malformed))
    assert all(type(trade.price) is int and trade.price > 0 for trade in answer.trades)
    assert not set(ids) & set(answer.malformed)
