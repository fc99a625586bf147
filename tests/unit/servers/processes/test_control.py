"""The control process's own small parts; the whole is in tests/integration/servers."""

from contextlib import closing

import grpc
import pytest

from k2 import limits
from k2.clock import SystemClock
from k2.lake.iceberg.catalog import open_catalog
from k2.settings import Settings, TapeSettings
from k2.tape.tape_clients import TapeClients
from k2.v1 import dead_letter_service_pb2 as pb
from k2.v1 import dead_letter_service_pb2_grpc as rpc
from servers.processes.control import dead_letter_service
from servers.services import dead_letter_service as dead_letter
from tests.fakes.wire import reason_of, served


def test_a_tape_that_is_away_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "TAPE_REQUEST_S", 1.0)
    settings = Settings(data_dir=tmp_path, tape=TapeSettings(bootstrap="127.0.0.1:1"))
    with (
        closing(open_catalog(settings, SystemClock())) as catalog,
        TapeClients.open(settings, SystemClock()) as clients,
    ):
        service = dead_letter_service(settings, SystemClock(), catalog, clients)
        with served((dead_letter.NAME, service.register)) as (_, channel):
            stub = rpc.DeadLetterServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ListDeadLetters(pb.ListDeadLettersRequest())
            assert reason_of(caught.value) == ("UNAVAILABLE", "TAPE_UNAVAILABLE")
