"""Tickets open only with the key that signed them, and only for a while; keys stay private."""

import stat
import threading

import pytest

from k2 import limits
from k2.errors import Invalid, Reason
from k2.query.request import Principal
from k2.settings import load
from k2.v1 import market_pb2, query_service_pb2
from servers.services.ticket import Signer, signing_key
from servers.services.wire_values import time_to

NOW_US = 1_700_000_000_000_000
SIGNER = Signer(b"k" * 32)


def ticket(symbols=("BTCUSDT",)):
    trades = query_service_pb2.TradesRequest(symbols=symbols)
    return query_service_pb2.QueryTicket(
        request=query_service_pb2.PlanQueryRequest(trades=trades),
        snapshot_id=2**62 + 1,
        end_positions=market_pb2.OffsetVector(epoch=0, offsets=[1, 2]),
        expire_time=time_to(NOW_US + 1),
    )


def reason(call, *args):
    with pytest.raises(Invalid) as caught:
        call(*args)
    return caught.value.reason


def test_what_was_signed_opens():
    assert SIGNER.open(SIGNER.sign(ticket()), NOW_US) == ticket()


@pytest.mark.parametrize(
    ("planned_by", "presented_by"), [("alice", "bob"), ("alice", ""), ("", "alice")]
)
def test_the_ticket_of_another_principal_is_a_bad_ticket(planned_by, presented_by):
    mine = ticket()
    mine.principal_id = planned_by
    signed = SIGNER.sign(mine)
    assert SIGNER.open(signed, NOW_US, Principal(planned_by)) == mine
    assert reason(SIGNER.open, signed, NOW_US, Principal(presented_by)) is Reason.BAD_TICKET


def test_a_ticket_without_a_principal_is_an_anonymous_callers():
    signed = bytes.fromhex(
        "0a280a0b0a090a0742544355534454108180808080808080401a04120201022a090880e2cfaa0610e8071220"
        "0fabcf14f7cd2796aa97a4131db15632cb3226498d06d33123ba055bbdc5628c"
    )
    assert SIGNER.sign(ticket()) == signed, "its bytes are those of a ticket without the field"
    assert SIGNER.open(signed, NOW_US) == ticket()
    assert reason(SIGNER.open, signed, NOW_US, Principal("alice")) is Reason.BAD_TICKET


def test_an_expired_ticket_says_so():
    assert reason(SIGNER.open, SIGNER.sign(ticket()), NOW_US + 1) is Reason.TICKET_EXPIRED


@pytest.mark.parametrize(
    "signed", [b"", b"garbage", b"\xff" * 40, b"x" * (limits.TICKET_BYTES_MAX + 1)]
)
def test_garbage_is_a_bad_ticket(signed):
    assert reason(SIGNER.open, signed, NOW_US) is Reason.BAD_TICKET


def test_any_changed_byte_is_a_bad_ticket():
    signed = SIGNER.sign(ticket())
    for position in range(len(signed)):
        tampered = bytearray(signed)
        tampered[position] ^= 1
        assert reason(SIGNER.open, bytes(tampered), NOW_US) is Reason.BAD_TICKET


def test_another_key_opens_nothing():
    assert reason(Signer(b"o" * 32).open, SIGNER.sign(ticket()), NOW_US) is Reason.BAD_TICKET


def test_a_query_too_long_for_a_ticket_is_refused():
    assert reason(SIGNER.sign, ticket(["A" * 900] * 100)) is Reason.BAD_REQUEST


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    settings = load(data_dir=tmp_path / "new")
    assert signing_key(settings, b"a" * 32) == b"a" * 32
    assert signing_key(settings, b"b" * 32) == b"a" * 32
    path = tmp_path / "new" / "ticket.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    signing_key(settings, b"b" * 32)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["ticket.key"]


def test_of_two_who_make_it_at_once_one_wins(tmp_path):
    settings, keys = load(data_dir=tmp_path), []
    threads = [
        threading.Thread(target=lambda b=b: keys.append(signing_key(settings, bytes([b]) * 32)))
        for b in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1


def test_the_settings_may_give_the_key(tmp_path):
    settings = load(data_dir=tmp_path, ticket_key="s" * 20)
    assert signing_key(settings, b"a" * 32) == b"s" * 20
    assert not (tmp_path / "ticket.key").exists()
    short = load(data_dir=tmp_path, ticket_key="short")
    assert reason(signing_key, short, b"a" * 32) is Reason.BAD_SETTING


def test_a_key_file_that_is_too_short_is_refused(tmp_path):
    (tmp_path / "ticket.key").write_bytes(b"x")
    assert reason(signing_key, load(data_dir=tmp_path), b"a" * 32) is Reason.BAD_SETTING


def test_a_directory_that_takes_no_key(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Invalid) as caught:
        signing_key(load(data_dir=tmp_path / "file"), b"a" * 32)
    assert caught.value.reason is Reason.NOT_WRITABLE
