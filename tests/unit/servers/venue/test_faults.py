import pytest

from k2.errors import Invalid
from servers.venue.faults import KINDS, FaultLine, Faults, parse_faults

FRAMES = [str(number).encode() for number in range(1000)]


def passed(line, frames=FRAMES, now_us=0):
    sent, cut = line.passed(frames, now_us)
    assert not cut
    return sent


def test_without_faults_all_goes_through():
    line = FaultLine(Faults(), 1)
    assert not line.busy
    assert passed(line) == FRAMES
    assert set(line.counts.values()) == {0}


def test_a_count_falls_on_the_next_frames():
    assert passed(FaultLine(Faults(drop=3), 1)) == FRAMES[3:]
    assert passed(FaultLine(Faults(duplicate=1), 1)) == [b"0", *FRAMES]
    assert passed(FaultLine(Faults(reorder=1), 1)) == [b"1", b"0", *FRAMES[2:]]
    assert passed(FaultLine(Faults(reorder=2), 1)) == [b"2", b"0", b"1", *FRAMES[3:]]


def test_a_chance_falls_on_about_that_share():
    for kind in ("drop", "duplicate", "reorder", "garbage"):
        line = FaultLine(Faults(**{kind: 0.1}), 1)
        sent = passed(line)
        assert 60 < line.counts[kind] < 150
        if kind == "drop":
            assert len(sent) == 1000 - line.counts[kind]
            assert sent == sorted(sent, key=int)
        if kind == "duplicate":
            assert len(sent) == 1000 + line.counts[kind]
            assert sorted(set(sent), key=int) == FRAMES
        if kind == "reorder":
            assert sent != FRAMES
            assert sorted(sent, key=int) == FRAMES
        if kind == "garbage":
            assert [frame for frame in sent if frame in FRAMES] == FRAMES


def test_the_same_seed_and_connection_suffer_the_same():
    faults = Faults(drop=0.1, duplicate=0.1, reorder=0.1, garbage=0.1, seed=5)
    assert passed(FaultLine(faults, 1)) == passed(FaultLine(faults, 1))
    assert passed(FaultLine(faults, 1)) != passed(FaultLine(faults, 2))


def test_a_frame_out_of_order_crosses_the_edge_of_a_batch():
    line = FaultLine(Faults(reorder=1), 1)
    assert passed(line, [b"0"]) == []
    assert line.busy
    assert passed(line, [b"1"]) == [b"1", b"0"]


def test_a_delay_holds_it_and_all_behind_it_in_order():
    line = FaultLine(Faults(delay=1, delay_ms=100), 1)
    assert passed(line, [b"0", b"1"], now_us=0) == []
    assert passed(line, [b"2"], now_us=99_000) == []
    assert passed(line, [b"3"], now_us=100_000) == [b"0", b"1", b"2", b"3"]


def test_what_is_held_goes_out_after_the_faults_are_taken_back():
    line = FaultLine(Faults(delay=1, reorder=1, delay_ms=100), 1)
    assert passed(line, [b"0", b"1"], now_us=0) == []
    line.change(Faults())
    assert line.busy
    assert passed(line, [], now_us=100_000) == [b"1", b"0"]
    assert not line.busy


def test_a_disconnect_comes_before_its_frame():
    line = FaultLine(Faults(disconnect=1), 1)
    assert line.passed(FRAMES, 0) == ([], True)
    assert line.counts["disconnect"] == 1
    assert line.passed(FRAMES, 0) == (FRAMES, False)


def test_faults_are_asked_for_by_name():
    faults = parse_faults(Faults(), {"drop": "0.25", "disconnect": "2", "delay_ms": "50"})
    assert faults == Faults(drop=0.25, disconnect=2, delay_ms=50)
    assert faults.any
    assert parse_faults(faults, {"drop": "0"}) == Faults(disconnect=2, delay_ms=50)
    assert not parse_faults(faults, {"clear": ""}).any


@pytest.mark.parametrize(
    "query",
    [
        {"drip": "1"}, {"drop": "-1"}, {"drop": "1.5"}, {"drop": "x"}, {"drop": "nan"},
        {"drop": "inf"}, {"seed": "1.5"}, {"delay_ms": "-2"}, {"any": "1"},
    ],
)  # fmt: skip
def test_what_is_no_fault_is_refused(query):
    with pytest.raises(Invalid):
        parse_faults(Faults(), query)


def test_every_kind_is_a_setting():
    assert all(hasattr(Faults(), kind) for kind in KINDS)
