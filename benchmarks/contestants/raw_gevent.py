"""The floor: a gevent StreamServer and a socket, and as many bytes as our packets have; nothing else.

What a protocol has to do (frames, values, deadlines) is not here: nobody on gevent can be faster one call at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent import socket, ssl
from gevent.event import Event
from gevent.server import StreamServer

from contestants import side
from contestants.raw_bytes import HELLO, prepare, receive

VERSIONS = {"gevent": gevent.__version__}


def serve(plan: side.Plan, ready: Callable[[int], None]) -> None:
    listeners: set[Any] = set()

    def echo(sock: Any, _address: Any) -> None:
        prepare(sock)
        if plan["load"] == "connects":
            sock.sendall(b"!")
        hello = bytearray(HELLO.size)
        if not receive(sock, memoryview(hello)):
            return
        size, answer_size = HELLO.unpack(hello)
        answer, view = bytes(answer_size), memoryview(bytearray(size))
        listeners.add(sock)
        try:
            while receive(sock, view):
                for each in listeners if plan["load"] == "pushes" else (sock,):
                    each.sendall(answer)
        finally:
            listeners.discard(sock)

    wrapping = {"ssl_context": context(plan, "server")} if plan.get("tls") else {}
    server = StreamServer(("127.0.0.1", 0), echo, backlog=1024, **wrapping)
    server.start()
    ready(server.server_port)
    server.serve_forever()


def context(plan: side.Plan, end: str) -> Any:
    # gevent's own class: the standard library's default context makes sockets that block the whole hub.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if end == "server" else ssl.PROTOCOL_TLS_CLIENT)
    files = plan["tls"]
    made.load_verify_locations(files["ca"])
    made.load_cert_chain(files[f"{end}_cert"], files[f"{end}_key"])
    made.verify_mode = ssl.CERT_REQUIRED
    return made


class Line:
    def __init__(self, plan: side.Plan, tls: Any = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", plan["port"]))
        prepare(self.sock)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        if plan["load"] == "connects":
            assert self.sock.recv(1) == b"!"
        request, reply = plan["wire"]
        self.sock.sendall(HELLO.pack(request, reply))
        self.request, self.view = bytes(request), memoryview(bytearray(reply))

    def call(self, _value: Any) -> None:
        self.sock.sendall(self.request)
        if not receive(self.sock, self.view):
            raise ConnectionError("the server is gone")

    def close(self) -> None:
        self.sock.close()


_contexts: list[Any] = []


def connect(plan: side.Plan) -> Line:
    if not plan.get("tls"):
        return Line(plan)
    if not _contexts:
        _contexts.append(context(plan, "client"))
    return Line(plan, _contexts[0])


def gather(functions: list[Callable[[], None]]) -> None:
    gevent.joinall([gevent.spawn(function) for function in functions], raise_error=True)


class Audience:
    """Lines that all hear what one of them asks the server to say."""

    def __init__(self, opened: list[Line]) -> None:
        self.lines, self.missing, self.complete = opened, 0, Event()
        self.readers = [gevent.spawn(self._read, line) for line in opened]

    def _read(self, line: Line) -> None:
        while receive(line.sock, line.view):
            self.missing -= 1
            if not self.missing:
                self.complete.set()

    def hear(self, times: int) -> None:
        for _ in range(times):
            self.missing = len(self.lines)
            self.complete.clear()
            self.lines[0].sock.sendall(self.lines[0].request)
            self.complete.wait()


@contextmanager
def audience(plan: side.Plan) -> Iterator[Audience]:
    opened = [connect(plan) for _ in range(plan["connections"])]
    gevent.sleep(0.1)  # the server has read every hello
    heard = Audience(opened)
    try:
        yield heard
    finally:
        gevent.killall(heard.readers)
        for line in opened:
            line.close()


if __name__ == "__main__":
    side.main(__name__)
