import datetime as dt

from k2client.json_form import json_value
from k2client.records import Gap, OffsetVector


def test_ids_are_text_and_times_iso():
    assert json_value(Gap("BINANCE", "BTCUSDT", 2**60, 3)) == {
        "exchange": "BINANCE",
        "symbol": "BTCUSDT",
        "first_trade_id": "1152921504606846976",
        "last_trade_id": "3",
    }
    noon = dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert json_value({"at": noon}) == {"at": "2026-01-31T10:00:00.000000Z"}
    assert json_value((OffsetVector(0, (1, 2)), None)) == [
        {"epoch": 0, "offsets": [1, 2]},
        None,
    ]
