"""A schema registry over HTTP, in memory."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Registry(ThreadingHTTPServer):
    """Confluent's API as far as K2 uses it, with wrong answers on request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.schemas = {}  # id → text
        self.subjects = {}  # subject → ids of its versions
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
        if path.startswith("/subjects/"):
            return self._version(method, path.split("/")[2], body)
        if method == "GET":
            schema_id = int(path.rpartition("/")[2])
            if schema_id not in self.schemas:
                return 404, {"error_code": 40403, "message": "not found"}
            return 200, {"schema": self.schemas[schema_id]}
        return 200, {}

    def _version(self, method, subject, body):
        versions = self.subjects.setdefault(subject, [])
        if method == "GET":
            return (200, list(range(1, len(versions) + 1))) if versions else (404, {})
        schema_id = self._id(json.loads(body)["schema"])
        if schema_id not in versions:
            versions.append(schema_id)
        return 200, {"id": schema_id}

    def _id(self, text):
        for schema_id, known in self.schemas.items():
            if known == text:
                return schema_id
        schema_id = len(self.schemas) + 1
        self.schemas[schema_id] = text
        return schema_id


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
