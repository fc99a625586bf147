"""A connection of the practice venue without a socket: what is written is kept, as text again."""

from websockets.protocol import State


class FakeTransport:
    def __init__(self):
        self.data = b""
        self.taken = None  # bytes that the other side took; None takes all
        self.aborted = False

    def write(self, data):
        assert not self.aborted
        self.data += bytes(data)

    def get_write_buffer_size(self):
        return 0 if self.taken is None else len(self.data) - self.taken

    def get_extra_info(self, name):
        assert name == "socket"
        return self

    def fileno(self):
        raise ValueError("no socket")

    def abort(self):
        self.aborted = True


class FakeConnection:
    def __init__(self):
        self.transport = FakeTransport()
        self.state = State.OPEN

    @property
    def texts(self):
        return unframed(self.transport.data)


def unframed(data):
    """The messages of a run of unmasked text frames."""
    texts = []
    while data:
        assert data[0] == 0x81
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        assert len(data) >= at + size
        texts.append(data[at : at + size].decode())
        data = data[at + size :]
    return texts
