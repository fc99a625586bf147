import base64
import json

from k2cli.dlq import hexdump

NAMES = [f"trades/0/3/{each}" for each in range(3)]
VALUE = b"\x00\xffBTCUSDT and more"


def test_letters_for_programs_and_people(k2, asked):
    found = k2("dlq", "list", "--json").json["letters"]
    assert [each["name"] for each in found] == NAMES
    assert found[0]["schema_id"] == "7"
    assert found[1]["schema_id"] is None
    assert found[0]["judged_time"] == "2021-01-08T00:00:05.000000Z"
    people = k2("dlq", "list", "--limit", 2).stdout
    assert NAMES[1] in people
    assert NAMES[2] not in people
    assert "ends inside a field" in people


def test_a_list_can_be_narrowed(k2, asked):
    k2(
        "dlq",
        "list",
        "--fault",
        "truncated",
        "--origin",
        "trades",
        "--from",
        "2021-01-08T00:00:00Z",
    )
    request = asked.requests[-1]
    assert (request.fault, request.origin) == ("TRUNCATED", "trades")
    assert request.range.start_time.seconds == 1_610_064_000
    assert not request.range.HasField("end_time")


def test_a_letter_for_programs(k2, asked):
    found = k2("dlq", "show", NAMES[0], "--json").json
    assert base64.b64decode(found["value"]) == VALUE
    assert found["letter"]["name"] == NAMES[0]
    assert found["trade"]["trade_id"] == str(2**60)
    assert k2("dlq", "show", NAMES[1], "--json").json["trade"] is None


def test_a_letter_for_people(k2, asked, tmp_path):
    people = k2("dlq", "show", NAMES[0], "--out", tmp_path / "bytes")
    assert "00 ff 42 54 43" in people.stdout
    assert "letter_offset    10\n" in people.stdout
    assert "..BTCUSDT and mo" in people.stdout
    assert "good: it can be replayed" in people.stdout
    assert '"price": "1.5"' in people.stdout
    assert (tmp_path / "bytes").read_bytes() == VALUE
    (tmp_path / "link").symlink_to("bytes")
    (tmp_path / "bytes").write_bytes(b"")
    k2("dlq", "show", NAMES[0], "--out", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "bytes").read_bytes() == VALUE
    assert "TRUNCATED" in k2("dlq", "show", NAMES[1]).stdout


def test_a_replay_says_what_became_of_each(k2, asked):
    done = k2("dlq", "replay", NAMES[0], "--json")
    assert done.code == 0
    (outcome,) = done.json["outcomes"]
    assert (outcome["state"], outcome["partition"], outcome["offset"]) == ("SENT", 3, 2**40)
    some = k2("dlq", "replay", *NAMES)
    assert some.code == 1
    assert "it ends inside a field" in some.stdout


def test_a_repair_comes_from_a_file(k2, asked, tmp_path):
    value, trade = tmp_path / "value", tmp_path / "trade.json"
    value.write_bytes(b"\x00\x01")
    trade.write_text(json.dumps({"symbol": "BTCUSDT", "trade_id": "5", "price": "1.5",
                                 "event_time": "2021-01-08T00:00:00.000001Z"}))  # fmt: skip
    assert k2("dlq", "replay", NAMES[0], "--value-file", value, "--again").code == 0
    assert (asked.requests[-1].value, asked.requests[-1].again) == (b"\x00\x01", True)
    assert k2("dlq", "replay", NAMES[0], "--trade-file", trade).code == 0
    sent = asked.requests[-1].trade
    assert (sent.trade_id, sent.event_time.nanos) == (5, 1000)


def test_a_repair_that_is_none_is_refused(k2, asked, tmp_path):
    bad = tmp_path / "bad.json"
    for text in ("{", "[]", '{"no_such": 1}'):
        bad.write_text(text)
        done = k2("dlq", "replay", NAMES[0], "--trade-file", bad)
        assert (done.code, done.stderr.startswith("k2: BAD_REQUEST: ")) == (2, True)
    both = k2("dlq", "replay", NAMES[0], "--trade-file", bad, "--value-file", bad)
    assert both.code == 2
    assert "ReplayDeadLetters" not in asked.calls


def test_a_hexdump_shows_every_byte():
    lines = list(hexdump(bytes(range(0x40, 0x52))))
    assert lines[0] == ("000000  40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO")
    assert lines[1].startswith("000010  50 51 ")
    assert lines[1].endswith("  PQ")
