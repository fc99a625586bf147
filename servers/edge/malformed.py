"""Answers what is no request of HTTP, or one too large to read, as a problem too.

No application sees such a request: the server refuses it while it reads the line and the headers.
"""

from __future__ import annotations

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from k2 import limits
from servers.edge.problems import HttpProblem

_TOO_LARGE = HttpProblem(
    431,
    "REQUEST_TOO_LARGE",
    f"the line and the headers of a request have at most {limits.EDGE_REQUEST_BYTES_MAX} bytes:"
    " name fewer symbols or columns",
)
_MALFORMED = HttpProblem(400, "BAD_REQUEST", "this is no request of HTTP/1.1")


class ProblemProtocol(H11Protocol):
    """Reads requests as uvicorn does, and refuses them as K2 does."""

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be read, and close the connection."""
        unread = len(self.conn.trailing_data[0])
        refused = _TOO_LARGE if unread > limits.EDGE_REQUEST_BYTES_MAX else _MALFORMED
        answer = refused.response()
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=answer.status_code, headers=headers),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
