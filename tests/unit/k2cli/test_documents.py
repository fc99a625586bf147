import datetime as dt
import json

from k2cli import documents
from k2client.records import Gap, OffsetVector


def test_ids_are_text_and_times_iso():
    assert documents.document(Gap("BINANCE", "BTCUSDT", 2**60, 3)) == {
        "exchange": "BINANCE",
        "symbol": "BTCUSDT",
        "first_trade_id": "1152921504606846976",
        "last_trade_id": "3",
    }
    at = dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert documents.document({"at": at}) == {"at": "2026-01-31T10:00:00.000000Z"}
    assert documents.document((OffsetVector(0, (1, 2)), None)) == [
        {"epoch": 0, "offsets": [1, 2]},
        None,
    ]


def test_a_line_is_one_line():
    assert "\n" not in documents.line({"a": [1, 2], "b": "x\ny"})
    assert json.loads(documents.text({"a": "é"})) == {"a": "é"}
