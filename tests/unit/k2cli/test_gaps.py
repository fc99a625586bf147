def test_gaps_for_programs_and_people(k2, asked):
    found = k2("gaps", "--json").json["gaps"]
    assert [each["first_trade_id"] for each in found] == [str(2**60 + 10), str(2**60 + 20)]
    assert found[0]["detect_time"] == "2021-01-08T00:00:05.000000Z"
    assert found[0]["fill_time"] is None
    people = k2("gaps", "BTCUSDT", "--state", "unfillable").stdout
    assert f"{2**60 + 14}" in people
    assert "never printed" in people


def test_a_state_that_is_none_is_refused(k2, asked):
    done = k2("gaps", "--state", "lost")
    assert done.code == 2
    assert done.stderr.startswith("k2: BAD_REQUEST: ")
