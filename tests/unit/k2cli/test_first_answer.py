from k2cli.first_answer import first_answer


def test_the_newest_trades_with_their_provenance(server):
    found = first_answer(server.address, "BTCUSDT", lambda: False)
    document = found.document()
    assert [row["trade_id"] for row in document["rows"]] == ["10", "9", "8"]
    assert document["rows"][0]["price"] == "39441.28000000"
    assert document["provenance"]["snapshot_id"] == "9007199254740993"
    assert found.text().splitlines()[0].startswith("event_time")


def test_a_symbol_without_a_trade_yet_is_asked_again(server):
    server.fail_calls = [server.gone()]
    assert first_answer(server.address, "BTCUSDT", lambda: False).symbol == "BTCUSDT"
    assert len(server.calls) == 2


def test_nobody_waits_for_an_answer_after_an_interrupt(server):
    assert first_answer(server.address, "NOSUCH", lambda: bool(server.calls)) is None
    assert len(server.calls) == 1
