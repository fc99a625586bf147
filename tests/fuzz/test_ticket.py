"""Whatever bytes a ticket is, it is refused by name or it is one that was signed."""

from hypothesis import example, given
from hypothesis import strategies as st

from k2.errors import Invalid, Reason
from k2.v1 import query_service_pb2
from servers.services.ticket import Signer
from servers.services.wire_values import time_to

SIGNER = Signer(b"k" * 32)
TICKET = query_service_pb2.QueryTicket(snapshot_id=5, expire_time=time_to(10**15))
SIGNED = SIGNER.sign(TICKET)


@given(st.binary(max_size=300))
@example(b"")
def test_bytes_of_any_kind(signed):
    check(signed)


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 255), st.integers(0, len(SIGNED)))
def test_a_signed_ticket_changed_or_cut(position, byte, end):
    changed = bytearray(SIGNED)
    changed[position] = byte
    check(bytes(changed))
    check(SIGNED[:end])


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_an_envelope_of_anything(payload, signature):
    check(query_service_pb2.SignedTicket(payload=payload, signature=signature).SerializeToString())


def check(signed):
    reason = None
    try:
        opened = SIGNER.open(signed, 0)
    except Invalid as error:
        reason = error.reason
    assert reason is Reason.BAD_TICKET or opened == TICKET
