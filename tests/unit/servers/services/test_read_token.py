"""A token's text says exactly what it is, or is refused."""

import pytest

from k2 import limits
from k2.errors import Invalid, Reason
from k2.market.offsets import OffsetVector, ReadToken
from servers.services.read_token import PREFIX, from_text, to_text

KAFKA_TOPIC_ID = "vK3nP0bHQ3CyZyT1gTnO2w"
TOKEN = ReadToken(KAFKA_TOPIC_ID, OffsetVector(0, (120_345, 0, 7, 2**40)), 2**63 - 1)


def refused(text):
    with pytest.raises(Invalid) as caught:
        from_text(text)
    assert caught.value.metadata == {"field": "as_of_token"}
    return caught.value.reason


@pytest.mark.parametrize(
    "token",
    [TOKEN, ReadToken("1", OffsetVector(3, (0,))), ReadToken("", OffsetVector(0, ()))],
)
def test_a_token_survives_being_text(token):
    assert from_text(to_text(token)) == token
    assert from_text(f" {to_text(token)}\n") == token


def test_the_text_is_one_word_that_needs_no_quoting():
    text = to_text(TOKEN)
    assert text.startswith(PREFIX)
    assert set(text.removeprefix(PREFIX)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    )


@pytest.mark.parametrize(("partitions", "chars"), [(8, 110), (500, 2900)])
def test_the_text_stays_short(partitions, chars):
    end = OffsetVector(0, (2_000_000,) * partitions)
    assert len(to_text(ReadToken(KAFKA_TOPIC_ID, end, 2**62))) < chars


def test_the_longest_that_a_request_takes_can_be_written_and_read():
    end = OffsetVector(0, (2**63 - 1,) * limits.PARTITIONS_MAX)
    token = ReadToken("x" * limits.LABEL_BYTES_MAX, end, 2**63 - 1)
    assert from_text(to_text(token)) == token


def test_every_wrong_character_is_noticed():
    text = to_text(TOKEN)
    for at in range(len(text)):
        other = "A" if text[at] != "A" else "B"
        changed = text[:at] + other + text[at + 1 :]
        try:
            found = from_text(changed)
        except Invalid:
            found = None
        # The very last character has bits that carry nothing.
        assert found is None or (found == TOKEN and at == len(text) - 1)


def test_a_part_of_a_token_is_none():
    text = to_text(TOKEN)
    assert all(refused(text[:end]) is Reason.BAD_TOKEN for end in range(len(text)))


@pytest.mark.parametrize(
    "text", ["", "k2t1.", "k2t2.AAAA", "2026-01-31", "k2t1.ä", "k2t1.A", "k2t1." + "A" * 20_000]
)
def test_anything_else_is_refused(text):
    assert refused(text) is Reason.BAD_TOKEN
