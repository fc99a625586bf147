"""Whatever text a read token is, it is refused by name or it is one that was made."""

import base64
import binascii

from hypothesis import example, given
from hypothesis import strategies as st

from k2.errors import Invalid, Reason
from k2.market.offsets import OffsetVector, ReadToken
from k2.query.request import Consistency, TradesRequest, validated
from servers.services.read_token import PREFIX, from_text, to_text


def read(text):
    reason = None
    try:
        token = from_text(text)
        assert from_text(to_text(token)) == token
        validated(TradesRequest(consistency=Consistency.AS_OF, as_of_token=token))
    except Invalid as error:
        reason = error.reason
    assert reason in (None, Reason.BAD_TOKEN)


@given(st.text(max_size=200))
@example(PREFIX)
def test_text_of_any_kind(text):
    read(text)
    read(PREFIX + text)


@given(st.binary(max_size=200))
def test_a_rightly_sealed_token_of_anything(content):
    sealed = content + binascii.crc32(content).to_bytes(4, "big")
    read(PREFIX + base64.urlsafe_b64encode(sealed).decode().rstrip("="))


@given(
    st.builds(
        ReadToken,
        st.text(max_size=300),
        st.builds(
            OffsetVector,
            st.integers(-(2**31), 2**31 - 1),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20).map(tuple),
        ),
        st.integers(-(2**63), 2**63 - 1),
    )
)
def test_a_token_of_any_values(token):
    assert from_text(to_text(token)) == token
    read(to_text(token))
