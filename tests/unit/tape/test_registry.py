"""What a schema id means is written down once and defended."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from k2.errors import Data, Invalid, Reason, Unavailable
from k2.market import schema
from k2.tape.registry import SchemaStore, fingerprint

TRADE = schema.avro_schema(schema.TRADE)
OTHER = TRADE | {"name": "Other"}


class Registry(ThreadingHTTPServer):
    """Confluent's API as far as K2 uses it, with wrong answers on request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.schemas = {}
        self.asked = []
        self.status = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def stop(self):
        self.shutdown()
        self.server_close()

    def answer(self, method, path, body):
        if self.status is not None:
            return self.status, {"message": "refused"}
        if method == "POST":
            text = json.loads(body)["schema"]
            for schema_id, known in self.schemas.items():
                if known == text:
                    return 200, {"id": schema_id}
            schema_id = len(self.schemas) + 1
            self.schemas[schema_id] = text
            return 200, {"id": schema_id}
        if method == "GET":
            schema_id = int(path.rpartition("/")[2])
            if schema_id not in self.schemas:
                return 404, {"error_code": 40403, "message": "not found"}
            return 200, {"schema": self.schemas[schema_id]}
        return 200, {}


class _Handler(BaseHTTPRequestHandler):
    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {self.path}")
        status, content = self.server.answer(self.command, self.path, body)
        payload = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_PUT = do_POST = _answer

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    made = Registry()
    yield made
    made.stop()


@pytest.fixture
def store(server, tmp_path):
    return SchemaStore(server.url, tmp_path / "schemas")


def test_registering_sets_compatibility_and_is_repeatable(server, store):
    assert store.register("market.trades-value", TRADE) == 1
    assert store.register("market.trades-value", TRADE) == 1
    assert server.asked[:2] == [
        "PUT /config/market.trades-value",
        "POST /subjects/market.trades-value/versions",
    ]


def test_an_id_is_asked_for_once_and_for_all(server, store, tmp_path):
    server.schemas[7] = json.dumps(TRADE)
    assert store.schema(7) == TRADE
    assert store.schema(7) == TRADE
    assert server.asked == ["GET /schemas/ids/7"]
    server.stop()
    assert SchemaStore(server.url, tmp_path / "schemas").schema(7) == TRADE


def test_an_id_that_nobody_knows(store):
    with pytest.raises(KeyError):
        store.schema(99)


def test_a_registry_that_is_away(server, store):
    server.stop()
    with pytest.raises(Unavailable) as caught:
        store.schema(7)
    assert caught.value.reason == Reason.REGISTRY_UNAVAILABLE
    with pytest.raises(Unavailable):
        store.register("s", TRADE)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_registry_that_is_in_trouble(server, store, status):
    server.status = status
    with pytest.raises(Unavailable):
        store.schema(7)


def test_a_schema_that_is_not_compatible(server, store):
    server.status = 409
    with pytest.raises(Data) as caught:
        store.register("s", TRADE)
    assert caught.value.reason == Reason.SCHEMA_CONFLICT


def test_an_id_that_means_another_schema_is_refused(server, store, tmp_path):
    store.register("s", TRADE)
    server.schemas = {1: json.dumps(OTHER)}
    for asked in (store, SchemaStore(server.url, tmp_path / "schemas")):
        with pytest.raises(Data) as caught:
            asked.register("s", OTHER)
        assert caught.value.reason == Reason.SCHEMA_CONFLICT
        assert "restore that one from a backup" in caught.value.message
    assert store.schema(1) == TRADE


def test_a_rebuilt_registry_that_gives_ids_nobody_had_is_gone_on_with(server, store):
    store.register("s", TRADE)
    server.schemas = {1: json.dumps(TRADE | {"name": "Filler"}), 2: json.dumps(OTHER)}
    assert store.register("s", TRADE) == 3
    assert store.schema(3) == store.schema(1) == TRADE  # what was written before reads as it did


def test_an_answer_that_contradicts_itself_is_refused(server, store):
    server.schemas[1] = json.dumps(TRADE)
    assert store.register("s", TRADE) == 1
    server.schemas[1] = json.dumps(OTHER)
    server.schemas[2] = json.dumps(TRADE)
    assert store.register("s", TRADE) == 2
    with pytest.raises(Data):
        store.register("s", OTHER)


def test_a_damaged_cache_is_noticed(server, store, tmp_path):
    store.register("s", TRADE)
    file = tmp_path / "schemas" / "1.json"
    for content in (file.read_text().replace("BUY", "BYE"), "{", '{"id": 1}', "[]"):
        file.write_text(content)
        with pytest.raises(Data) as caught:
            SchemaStore(server.url, tmp_path / "schemas").schema(1)
        assert caught.value.reason == Reason.CHECKSUM_MISMATCH


def test_the_cache_holds_whole_files_only(store, tmp_path):
    store.register("s", TRADE)
    assert [path.name for path in (tmp_path / "schemas").iterdir()] == ["1.json"]


def test_documentation_does_not_change_what_a_schema_means():
    undocumented = {key: value for key, value in TRADE.items() if key != "doc"}
    assert fingerprint(undocumented) == fingerprint(TRADE)
    assert fingerprint(OTHER) != fingerprint(TRADE)


def test_something_else_at_the_address(server, store):
    server.answer = lambda *_: (200, {"hello": "world"})
    with pytest.raises(Invalid):
        store.register("s", TRADE)
    with pytest.raises(Unavailable):
        store.schema(5)


def test_a_primitive_schema_is_a_schema(server, store):
    server.schemas[3] = '"string"'
    assert store.schema(3) == {"type": "string"}
