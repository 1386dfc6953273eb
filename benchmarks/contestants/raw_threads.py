"""The other floor: blocking sockets, and a thread for each at the server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from contestants import side
from contestants.raw_bytes import HELLO, prepare, receive


def serve(plan: side.Plan, ready: Callable[[int], None]) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    ready(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=echo, args=(sock,), daemon=True).start()


def echo(sock: Any) -> None:
    prepare(sock)
    hello = bytearray(HELLO.size)
    if not receive(sock, memoryview(hello)):
        return
    size, answer_size = HELLO.unpack(hello)
    answer, view = bytes(answer_size), memoryview(bytearray(size))
    while receive(sock, view):
        sock.sendall(answer)


class Line:
    def __init__(self, plan: side.Plan) -> None:
        self.sock = socket.create_connection(("127.0.0.1", plan["port"]))
        prepare(self.sock)
        request, reply = plan["wire"]
        self.sock.sendall(HELLO.pack(request, reply))
        self.request, self.view = bytes(request), memoryview(bytearray(reply))

    def call(self, _value: Any) -> None:
        self.sock.sendall(self.request)
        receive(self.sock, self.view)

    def close(self) -> None:
        self.sock.close()


connect = Line
gather = side.in_threads


if __name__ == "__main__":
    side.main(__name__)
