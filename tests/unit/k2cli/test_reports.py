from tests.fakes.k2_server import SNAPSHOT_IDS


def test_snapshots_for_programs_and_people(k2, asked):
    found = k2("snapshots", "--json").json["snapshots"]
    assert [each["snapshot_id"] for each in found] == [str(each) for each in SNAPSHOT_IDS]
    assert found[0]["commit_time"] == "2021-01-08T00:00:05.000000Z"
    assert found[0]["positions"] == {"epoch": 0, "offsets": [0, 6]}
    assert found[1]["parent_id"] is None
    people = k2("snapshots", "--limit", 1)
    assert str(SNAPSHOT_IDS[0]) in people.stdout
    assert "2021-01-08 00:00:05.000Z" in people.stdout


def test_one_snapshot(k2, asked):
    assert k2("snapshots", "12", "--json").json["snapshots"][0]["snapshot_id"] == "12"
    missing = k2("snapshots", "13")
    assert (missing.code, missing.stderr) == (1, "k2: UNKNOWN_SNAPSHOT: no snapshot 13\n")


def test_feeds_for_programs_and_people(k2, asked):
    feed = k2("feeds", "--json").json["feeds"][0]
    assert feed["connected"] is True
    assert feed["symbols"][0]["acknowledged_trade_id"] == str(2**60)
    assert feed["symbols"][1]["acknowledged_trade_id"] is None
    people = k2("feeds").stdout
    assert "connected to ws://127.0.0.1:1; 10 trades acknowledged" in people
    assert str(2**60) in people


def test_without_a_stack_the_reason_is_said(k2, tmp_path):
    done = k2("feeds", "--data-dir", tmp_path)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("k2: STACK_NOT_RUNNING: ")
