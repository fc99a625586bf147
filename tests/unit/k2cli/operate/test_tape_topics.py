from itertools import islice

import k2client
from k2cli.operate.tape_topics import readings


def test_topics_for_programs_and_people(k2, asked):
    found = k2("tape", "topics", "--json").json["topics"]
    assert found == [
        {"topic": "trades", "partitions": 8, "messages": 1400, "rate": 250.0},
        {"topic": "gaps", "partitions": 1, "messages": 3, "rate": 0.0},
    ]
    header, _, trades, *_ = k2("tape", "topics").stdout.strip().splitlines()
    assert header.split() == ["topic", "partitions", "messages", "rate"]
    assert trades.split() == ["trades", "8", "2,400", "250"]


def test_each_reading_has_the_rate_since_the_one_before(asked):
    with k2client.connect(asked.address) as client:
        seen = list(islice(readings(client, 0.0), 3))
    assert [rows[0]["messages"] for rows in seen] == [1400, 1900, 2400]
    assert {rows[0]["rate"] for rows in seen} == {250.0}


def test_without_a_stack_it_says_so(k2):
    assert k2("tape", "topics").stderr.startswith("k2: STACK_NOT_RUNNING: ")
