import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from k2.errors import Invalid, NotFound, Reason
from k2.feed import recording
from k2.feed.recording import Frame, RecordingWriter, read_frames, symbols, traded_symbol

SHARED = Path(__file__).parents[4] / "shared" / "data"
TRADE = (
    '{"stream":"btcusdt@trade","data":{"e":"trade","E":1610064000278,"s":"BTCUSDT","t":1,'
    '"p":"39432.48000000","q":"0.00026300","T":1610064000278,"m":true,"M":true}}'
)
DEPTH = '{"stream":"ethusdt@depth","data":{"e":"depthUpdate","E":1610064000278}}'
SINGLE = '{"e":"trade","E":1,"s":"BNBUSDT","t":1,"T":1610064000278000}'


def written(path, *lines, newline=True):
    text = "\n".join(lines) + ("\n" if newline else "")
    data = text.encode()
    path.write_bytes(zstandard.compress(data) if path.suffix == ".zst" else data)
    return path


def session(t, ts, data=None):
    return json.dumps({"t": t, "conn": "c", "ts": ts} | ({} if data is None else {"data": data}))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_combined_frames_are_read_as_they_are_with_their_trade_time(tmp_path, name):
    path = written(tmp_path / name, TRADE, "", DEPTH, SINGLE)
    assert list(read_frames(path)) == [
        Frame(1_610_064_000_278_000, TRADE),
        Frame(None, DEPTH),
        Frame(1_610_064_000_278_000, SINGLE),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_a_session_gives_what_was_received_with_its_time(tmp_path, name):
    path = written(
        tmp_path / name,
        session("connect", 1.0),
        session("send", 1.1, "{}"),
        session("recv", 1633998512.0633569, TRADE),
        session("recv", 1633998513.5, "not json, but a venue said it"),
    )
    assert list(read_frames(path)) == [
        Frame(1_633_998_512_063_357, TRADE),
        Frame(1_633_998_513_500_000, "not json, but a venue said it"),
    ]


def test_several_compressed_frames_follow_each_other(tmp_path):
    path = tmp_path / "a.zst"
    one = zstandard.compress((TRADE + "\n").encode())
    path.write_bytes(one + one + one)
    assert [frame.text for frame in read_frames(path)] == [TRADE] * 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_half_a_last_line_is_left_out(tmp_path, name):
    path = written(tmp_path / name, TRADE, TRADE[:40], newline=False)
    assert [frame.text for frame in read_frames(path)] == [TRADE]


def test_a_last_line_without_its_newline_counts(tmp_path):
    path = written(tmp_path / "a.jsonl", TRADE, DEPTH, newline=False)
    assert [frame.text for frame in read_frames(path)] == [TRADE, DEPTH]


def test_an_unfinished_compressed_file_gives_what_it_holds(tmp_path):
    path = tmp_path / "a.zst"
    whole = zstandard.compress((TRADE + "\n").encode())
    path.write_bytes(whole + whole[:-6])
    assert [frame.text for frame in read_frames(path)][:1] == [TRADE]


@pytest.mark.parametrize(
    "line",
    ["no json", "[]", "7", "{}", '{"a":1}', '{"t":"recv","ts":1.0,"data":7}', '{"stream":3}'],
)
def test_a_line_of_something_else_is_refused_by_its_number(tmp_path, line):
    path = written(tmp_path / "a.jsonl", TRADE, line, TRADE)
    with pytest.raises(Invalid, match="line 2 of") as raised:
        list(read_frames(path))
    assert raised.value.reason is Reason.BAD_SETTING


def test_a_file_that_is_not_compressed_is_refused(tmp_path):
    path = tmp_path / "a.zst"
    path.write_text(TRADE)
    with pytest.raises(Invalid, match="damaged compression"):
        list(read_frames(path))


def test_a_line_without_an_end_is_refused_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(recording.limits, "RECORDING_LINE_BYTES_MAX", 100)
    path = written(tmp_path / "a.jsonl", "{" + " " * 200)
    with pytest.raises(Invalid, match="over 100 bytes"):
        list(read_frames(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"gone\.jsonl"):
        list(read_frames(tmp_path / "gone.jsonl"))


def test_symbols_are_those_with_trades_in_order_of_appearance(tmp_path):
    other = TRADE.replace("btcusdt", "adausdt")
    path = written(tmp_path / "a.jsonl", DEPTH, TRADE, other, TRADE, SINGLE)
    assert symbols(path) == ("BTCUSDT", "ADAUSDT", "BNBUSDT")


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        (TRADE, "BTCUSDT"),
        (SINGLE, "BNBUSDT"),
        (DEPTH, None),
        ("garbage", None),
        ('{"stream":"btcusdt@aggTrade","data":{}}', None),
        ('{"stream":"!miniTicker@arr","data":[]}', None),
        ('{"e":7}', None),
        ("[]", None),
    ],
)
def test_only_trade_streams_name_a_symbol(text, symbol):
    assert traded_symbol(text) == symbol


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_what_is_written_is_read_again(tmp_path, name):
    path = tmp_path / name
    with closing(RecordingWriter(path)) as writer:
        writer.write("connect", "c1", 1.0, None)
        writer.write("send", "c1", 1.1, '{"method":"SUBSCRIBE"}')
        writer.write("recv", "c1", 1633998512.063357, TRADE)
        writer.write("recv", "c1", 1633998512.1, 'a "quoted" ☃ line\n')
    writer.close()
    assert list(read_frames(path)) == [
        Frame(1_633_998_512_063_357, TRADE),
        Frame(1_633_998_512_100_000, 'a "quoted" ☃ line\n'),
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_what_was_flushed_is_readable_though_never_closed(tmp_path, name):
    path = tmp_path / name
    writer = RecordingWriter(path)
    for _ in range(1000):
        writer.write("recv", "c1", 1.5, TRADE)
    writer.flush()
    assert [frame.text for frame in read_frames(path)] == [TRADE] * 1000
    writer.close()


def test_a_fifo_is_written_into_and_stays_one(tmp_path):
    path = tmp_path / "frames.jsonl"
    os.mkfifo(path)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(path.read_bytes)
        with closing(RecordingWriter(path)) as writer:
            writer.write("recv", "a", 1.0, "{}")
        assert read.result(10) == b'{"t":"recv","conn":"a","ts":1.0,"data":"{}"}\n'
    assert path.is_fifo()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.zip"])
def test_a_compression_that_is_not_written_is_refused(tmp_path, name):
    with pytest.raises(Invalid, match=r"\.zst"):
        RecordingWriter(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_recording_is_never_overwritten(tmp_path):
    path = written(tmp_path / "a.jsonl", TRADE)
    with pytest.raises(Invalid, match="never overwritten"):
        RecordingWriter(path)
    with pytest.raises(Invalid, match="cannot be written"):
        RecordingWriter(tmp_path / "no" / "such" / "folder.jsonl")


@pytest.mark.parametrize(
    ("name", "frames", "traded"),
    [
        ("binance_trade_btcusdt_2021-01-08.jsonl", 2001, ("BTCUSDT",)),
        ("binance_trade_ethusdt_2023-02-02.jsonl", 1000, ("ETHUSDT",)),
        ("binance_ws_mixed_2021-10.jsonl.zst", None, ()),
        ("coinbase_ws_2026-08.jsonl.zst", None, ()),
        ("kraken_ws_v1_2021-04.jsonl.zst", None, ()),
    ],
)
def test_real_recordings_are_read(name, frames, traded):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    read = list(read_frames(path))
    assert len(read) == frames if frames else len(read) > 50
    times = [frame.time_us for frame in read]
    assert all(time is not None for time in times)
    assert symbols(path) == traded
