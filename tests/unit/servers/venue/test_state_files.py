import json

import pytest

from k2.errors import Data, Invalid, Reason, Unavailable
from servers.venue.market.synthetic_market import Segment, opened
from servers.venue.state_files import read_document, read_segments, write_document, write_segments


@pytest.mark.parametrize("durable", [True, False])
def test_a_document_is_read_as_it_was_written(tmp_path, durable):
    path = tmp_path / "venue" / "position.json"
    assert read_document(path) is None
    write_document(path, {"position": 1}, durable=durable)
    write_document(path, {"position": 2}, durable=durable)
    assert read_document(path) == {"position": 2}
    assert [entry.name for entry in path.parent.iterdir()] == ["position.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"seed":1}', "\x00"])
def test_a_damaged_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "segments.json"
    path.write_text(text)
    with pytest.raises(Data, match=r"segments\.json is damaged") as raised:
        read_segments(path, 7)
    assert raised.value.reason is Reason.STAMP_MISMATCH


def test_segments_come_back(tmp_path):
    path = tmp_path / "segments.json"
    segments = (*opened(("BTCUSDT",), 10.0), Segment(9, {"BTCUSDT": 4}, {"BTCUSDT": 5}))
    assert read_segments(path, 7) == ()
    write_segments(path, 7, segments)
    assert read_segments(path, 7) == segments


def test_the_segments_of_another_seed_are_refused(tmp_path):
    path = tmp_path / "segments.json"
    write_segments(path, 7, opened(("BTCUSDT",), 10.0))
    with pytest.raises(Data, match="seed 7, not 8"):
        read_segments(path, 8)


def test_segments_without_ids_are_refused(tmp_path):
    path = tmp_path / "segments.json"
    for segments in ([], [{"from_time_us": 1, "from_id": {}, "quota": {"A": 1}}]):
        path.write_text(json.dumps({"seed": 7, "segments": segments}))
        with pytest.raises(Data, match="damaged"):
            read_segments(path, 7)


def test_what_cannot_be_written_or_read_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid) as raised:
        write_document(tmp_path / "file" / "a.json", {}, durable=True)
    assert raised.value.reason is Reason.NOT_WRITABLE
    with pytest.raises(Unavailable):
        read_document(tmp_path)
