"""What the two floors have in common: messages of a size that both ends know."""

from __future__ import annotations

import socket
import struct
from typing import Any

HELLO = struct.Struct("!II")  # how large the client's messages are, and the answers


def receive(sock: Any, view: memoryview) -> int:
    """Fill `view`; 0 at the end of the stream."""
    got: int = sock.recv_into(view)
    while 0 < got < len(view):
        more = sock.recv_into(view[got:])
        if not more:
            return 0
        got += more
    return got


def prepare(sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
