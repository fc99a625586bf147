"""Each reason has one kind, one status on the wire and one exit code; every raise keeps to it."""

import ast

import pytest
from google.rpc import code_pb2

from k2 import errors
from k2.errors import KIND_OF, Reason, error_of
from servers.__main__ import exit_code
from servers.services.rpc_status import code_of
from tests.arch.test_tidy import name_of, sources

KINDS = {"Invalid", "NotFound", "Unavailable", "Overloaded", "Data", "Internal"}
# Kind: the code on the wire, the exit code, and the reasons of that kind.
TABLE = {
    ("Invalid", code_pb2.INVALID_ARGUMENT, 2): (
        "BAD_REQUEST RANGE_REVERSED LIMIT_OUT_OF_BOUNDS UNKNOWN_COLUMN BAD_PAGE_TOKEN BAD_TICKET"
        " TICKET_EXPIRED BAD_SETTING BAD_TOKEN OTHER_PROCESS NOT_EMPTY"
    ),
    ("Invalid", code_pb2.PERMISSION_DENIED, 2): "NOT_LOCAL",
    ("Invalid", code_pb2.INVALID_ARGUMENT, 5): "NOT_WRITABLE",
    ("Invalid", code_pb2.INVALID_ARGUMENT, 7): "ALREADY_RUNNING",
    ("NotFound", code_pb2.NOT_FOUND, 1): (
        "UNKNOWN_SYMBOL UNKNOWN_SNAPSHOT STACK_NOT_RUNNING UNKNOWN_TOKEN OUT_OF_RANGE"
        " UNKNOWN_DEAD_LETTER UNKNOWN_TOPIC FILE_NOT_FOUND"
    ),
    ("Unavailable", code_pb2.UNAVAILABLE, 1): (
        "STARTING DRAINING TAPE_UNAVAILABLE TAIL_BEHIND LAKE_UNAVAILABLE REGISTRY_UNAVAILABLE"
        " VENUE_UNAVAILABLE PEER_UNAVAILABLE ANSWER_CHANGED PARTITION_STOPPED DEFERRED"
    ),
    ("Unavailable", code_pb2.UNAVAILABLE, 3): "PORT_IN_USE",
    ("Unavailable", code_pb2.UNAVAILABLE, 8): "PROCESS_DIED",
    ("Overloaded", code_pb2.RESOURCE_EXHAUSTED, 1): (
        "TOO_MANY_QUERIES TOO_MANY_CALLS TAIL_FULL QUEUE_FULL STREAM_IDLE SHED CANCELLED"
    ),
    ("Overloaded", code_pb2.DEADLINE_EXCEEDED, 1): "DEADLINE_EXCEEDED",
    ("Overloaded", code_pb2.RESOURCE_EXHAUSTED, 4): "DISK_FULL",
    ("Data", code_pb2.DATA_LOSS, 6): (
        "STAMP_MISMATCH TOPIC_RECREATED CLUSTER_CHANGED PARTITIONS_CHANGED TAPE_TRUNCATED"
        " RETENTION_OVERTOOK SCHEMA_CONFLICT CHECKSUM_MISMATCH WRITER_FENCED LAKE_CORRUPT"
        " BACKUP_INVALID RESTORE_UNFINISHED DATA_DIR_NEWER EPOCH_ENDED RULES_CHANGED"
        " VALUE_TOO_LARGE"
    ),
    ("Internal", code_pb2.INTERNAL, 1): "INTERNAL",
}
ROWS = [(reason, *row) for row, reasons in TABLE.items() for reason in reasons.split()]


@pytest.mark.parametrize(("reason", "kind", "code", "exit_with"), ROWS)
def test_a_reason_has_one_kind_status_and_exit_code(reason, kind, code, exit_with):
    error = error_of(Reason(reason), "m", metadata={"a": "b"}, retry_after_s=2.0)
    assert type(error) is getattr(errors, kind)
    assert (code_of(error), exit_code(error)) == (code, exit_with)
    assert (error.message, error.metadata, error.retry_after_s) == ("m", {"a": "b"}, 2.0)


def test_the_table_names_each_reason_once():
    assert sorted(reason for reason, *_ in ROWS) == sorted(Reason)
    assert set(KIND_OF) == set(Reason)


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_an_error_is_raised_as_the_kind_of_its_reason(path):
    for kind, reason in raised_in(path.read_text()):
        assert KIND_OF[Reason(reason)] is getattr(errors, kind), f"{kind}(Reason.{reason})"


def test_an_error_of_another_kind_would_be_found():
    assert raised_in('raise errors.Data(Reason.DISK_FULL, "m")') == [("Data", "DISK_FULL")]


def raised_in(text):
    """Each `Kind(Reason.NAME, ...)` of a source, whatever it is for."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and node.args]
    return [
        (kind, reason)
        for call in calls
        if (kind := ast.unparse(call.func).split(".")[-1]) in KINDS
        and (argument := ast.unparse(call.args[0])).startswith("Reason.")
        and (reason := argument.split(".")[1]) in Reason.__members__
    ]
