import io
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2 import limits
from k2.errors import Data, Invalid, NotFound
from k2.feed.venues.binance_day_file import DayReader, named
from k2.feed.venues.source import Malformed
from k2.market.events import DAY_US, Trade

NOW_US = 1_760_000_000_000_000
DAY_2025 = 1_735_689_600_000_000  # 2025-01-01
DAY_2024 = DAY_2025 - DAY_US
HEADER = "id,price,qty,quote_qty,time,is_buyer_maker,is_best_match\n"


def row(trade_id, time, price="100.5", qty="0.00000001", maker="True"):
    return f"{trade_id},{price},{qty},1,{time},{maker},True\n"


@pytest.fixture
def write(tmp_path):
    """Make a file of a name; zipped when the name says so."""

    def made(name, text):
        path = tmp_path / name
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(path.with_suffix(".csv").name, text)
        else:
            path.write_text(text)
        return path

    return made


def read(path):
    with closing(DayReader(named(path), "BINANCE", NOW_US)) as reader:
        return list(reader.lines())


@pytest.mark.parametrize("header", ["", HEADER])
@pytest.mark.parametrize("suffix", ["zip", "csv"])
def test_both_units_with_and_without_a_header(write, header, suffix):
    old = write(f"BTCUSDT-trades-2024-12-31.{suffix}", header + row(7, DAY_2024 // 1000 + 1))
    new = write(f"BTCUSDT-trades-2025-01-01.{suffix}", header + row(8, DAY_2025 + 1))
    ((old_number, first),) = read(old)
    ((_, second),) = read(new)
    assert old_number == 1 + bool(header)
    assert (first.trade_id, first.event_time_us) == (7, DAY_2024 + 1000)
    assert (second.trade_id, second.event_time_us) == (8, DAY_2025 + 1)
    assert (first.price, first.quantity, first.side) == (10_050_000_000, 1, 1)
    assert first.label == ("BINANCE", "BTCUSDT", "BTC", "USDT", "crypto", "backfill")
    assert first.receive_time_us == NOW_US


@pytest.mark.parametrize("header", ["", "id,price,qty,quote_qty,time,is_buyer_maker\n"])
def test_a_file_of_futures_has_six_columns_and_milliseconds(write, header):
    rows = "".join(f"{at},94000.1,0.014,1316.0,{DAY_2025 // 1000 + at},false\n" for at in (1, 2))
    path = write("BTCUSDT_250328-trades-2025-01-01.zip", header + rows)
    with closing(DayReader(named(path), "BINANCE_UM", NOW_US)) as reader:
        trades = [line.trade for line in reader.lines()]
    assert [(one.trade_id, one.event_time_us) for one in trades] == [
        (1, DAY_2025 + 1000),
        (2, DAY_2025 + 2000),
    ]
    assert trades[0].label[:2] == ("BINANCE_UM", "BTCUSDT_250328")


@pytest.mark.parametrize("symbol", ["BTCUSDT_250328", "BTCUSD_PERP", "币安人生USDT", "A-B.C"])
def test_any_symbol_of_the_venue_is_one_in_a_name(symbol):
    assert named(Path(f"{symbol}-trades-2025-01-01.zip")).symbol == symbol


def test_the_name_says_what_it_is():
    file = named(Path("ETHBTC-trades-2024-12.zip"))
    assert (file.symbol, file.start_us, file.end_us) == (
        "ETHBTC", DAY_2025 - 31 * DAY_US, DAY_2025,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["BTCUSDT.zip", "btcusdt-trades-2024-12-31.zip", "BTCUSDT-trades-2024-12-32.zip",
     "BTCUSDT-trades-2024-13.csv", "BTCUSDT-aggTrades-2024-12-31.zip",
     "BTCUSDT-trades-2024-12-31.tar", "A&B-trades-2024-12-31.csv",
     "-trades-2024-12-31.csv", "BTCUSDT-trades-0000-01-01.zip"],
)  # fmt: skip
def test_any_other_name_is_refused(name):
    with pytest.raises(Invalid):
        named(Path(name))


@pytest.mark.parametrize(
    "text",
    [
        "garbage\n", "1,2,3\n", row("x", DAY_2025), row(1, "soon"), row(1, DAY_2025, maker="maybe"),
        row(1, DAY_2025, price="1e9"), row(1, DAY_2025, qty="-1"), row(1, DAY_2025, price="NaN"),
        row(2**63, DAY_2025), row(1, DAY_2025 - 1), row(1, DAY_2025 + DAY_US), row(1, DAY_2024),
        row(1, 9 * 10**18), row("9" * 5000, DAY_2025)[:3000] + "\n", HEADER,
    ],
)  # fmt: skip
def test_a_line_that_is_no_trade_is_refused_by_its_number(write, text):
    good = row(1, DAY_2025)
    lines = read(write("BTCUSDT-trades-2025-01-01.csv", good + text + good))
    assert [number for number, _ in lines] == [1, 2, 3]
    assert isinstance(lines[1].trade, Malformed)
    assert len(lines[1].trade.error) < 3500
    assert isinstance(lines[0].trade, Trade)
    assert isinstance(lines[2].trade, Trade)


def test_a_time_of_the_wrong_unit_is_of_another_day(write):
    path = write("BTCUSDT-trades-2025-01-01.csv", row(1, DAY_2025 * 1000))
    assert isinstance(read(path)[0].trade, Malformed)


def test_empty_lines_are_nothing(write):
    path = write("BTCUSDT-trades-2025-01-01.csv", "\n" + row(1, DAY_2025) + "\r\n")
    assert [number for number, _ in read(path)] == [2]


def test_a_damaged_zip_is_said_and_what_came_before_is_given(write):
    text = "".join(row(at, DAY_2025 + at, qty=f"0.{at:08d}") for at in range(1, 20_000))
    path = write("BTCUSDT-trades-2025-01-01.zip", text)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    found = []
    with closing(DayReader(named(path), "BINANCE", NOW_US)) as reader, pytest.raises(Data):
        found.extend(reader.lines())
    assert len(found) > 1000


@pytest.mark.parametrize(
    "names", [[], ["a.csv", "b/c.csv"], ["readme.txt"], ["a.csv/"], ["__MACOSX/._a.csv"]]
)
def test_a_zip_must_hold_one_csv(tmp_path, names):
    path = tmp_path / "BTCUSDT-trades-2025-01-01.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    with pytest.raises(Data) as caught:
        read(path)
    assert all(name in caught.value.message for name in names if name.endswith("c.csv"))


class Pipe(io.RawIOBase):
    """A sink that cannot seek: what is written there is a streamed zip, with data descriptors."""

    def __init__(self):
        self.content = b""

    def writable(self):
        return True

    def write(self, content):
        self.content += bytes(content)
        return len(content)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("large", [False, True])
def test_a_zip_of_another_tool_is_read(tmp_path, method, large):
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        archive.mkdir("data.csv")
        for name in ("__MACOSX/data.csv/._day.CSV", "data.csv/.hidden.csv", "data.csv/readme.txt"):
            archive.writestr(name, "not of the venue")
        with archive.open("data.csv/day.CSV", "w", force_zip64=large) as member:
            member.write((HEADER + row(1, DAY_2025)).encode())
    path = tmp_path / "BTCUSDT-trades-2025-01-01.zip"
    path.write_bytes(pipe.content)
    assert [line.trade.trade_id for line in read(path)] == [1]


def test_what_is_no_zip_or_not_there(tmp_path):
    path = tmp_path / "BTCUSDT-trades-2025-01-01.zip"
    with pytest.raises(NotFound):
        read(path)
    path.write_text("no zip")
    with pytest.raises(Data):
        read(path)


def test_a_line_without_end_is_not_read_into_memory(write):
    path = write("BTCUSDT-trades-2025-01-01.csv", "1" * (limits.DAY_FILE_LINE_BYTES_MAX + 1))
    with pytest.raises(Data):
        read(path)


def test_progress_is_in_bytes_of_the_csv(write):
    text = HEADER + row(1, DAY_2025)
    with closing(
        DayReader(named(write("BTCUSDT-trades-2025-01-01.zip", text)), "X", NOW_US)
    ) as reader:
        assert (reader.bytes_read, reader.bytes_total) == (0, len(text))
        list(reader.lines())
        assert reader.bytes_read == len(text)


@given(st.lists(st.binary(max_size=60) | st.text("0123456789,.TrueFals\n").map(str.encode)))
def test_whatever_a_file_holds_each_line_is_judged(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("day") / "BTCUSDT-trades-2025-01-01.csv"
    path.write_bytes(b"\n".join(lines))
    assert all(isinstance(line.trade, Trade | Malformed) for line in read(path))
