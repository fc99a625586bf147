"""A way over TCP to a server that a test can cut or freeze: what a network does to its users."""

import socket
import threading
from contextlib import suppress

_CHUNK = 1 << 16


class Gate:
    """Listens on loopback and carries bytes to and from a port; open at first.

    Args:
        target: the port that answers behind it; it may be changed, for connections to come.
        port: where it listens; 0 takes one that is free.
    """

    def __init__(self, target, port=0):
        self.target = target
        self.port = port
        self._flowing = threading.Event()
        self._lock = threading.Lock()
        self._sockets = set()
        self._listener = None
        self.open()

    def open(self):
        """Let everything through, also what was held back."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        self._flowing.set()

    def freeze(self):
        """Carry nothing more in either direction; nobody is told, as when packets are dropped."""
        self._flowing.clear()

    def refuse(self):
        """Cut every connection and refuse new ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            _end(listener)
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            _end(one)
        self._flowing.set()

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client):
        self._flowing.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self.target), 10)
        except OSError:
            _end(client)
            return
        server.settimeout(None)
        with self._lock:
            self._sockets |= {client, server}
        back = threading.Thread(target=self._carry, args=(server, client), daemon=True)
        back.start()
        self._carry(client, server)
        back.join()
        with self._lock:
            self._sockets -= {client, server}

    def _carry(self, source, sink):
        with suppress(OSError):
            while content := source.recv(_CHUNK):
                self._flowing.wait()
                sink.sendall(content)
        _end(source)
        _end(sink)


def _end(one):
    """Wake whoever waits for it, and close it."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
