"""Somebody between a client and a daemon, who sees every packet of a signed line and passes on what a test tells it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
from gevent import socket as green
from gevent.event import Event

from erps_gevent.wire.packet import HEADER_SIZE, Type

CLIENT, SERVER = "client", "server"

# meddle(from whom, the number of the packet, the packet) -> what to pass on.
Meddle = Callable[[str, int, bytes], bytes]


class Line:
    """One connection that is passed on. `sent[who]` is the packets that this end has sent, as they came."""

    def __init__(self, near: Any, far: Any, meddle: Meddle) -> None:
        self.sockets = {CLIENT: near, SERVER: far}
        self.sent: dict[str, list[bytes]] = {CLIENT: [], SERVER: []}
        self.meddle = meddle
        self.grown = Event()
        self.pumps = [gevent.spawn(self.pump, CLIENT, SERVER), gevent.spawn(self.pump, SERVER, CLIENT)]

    def pump(self, who: str, to: str) -> None:
        held = b""
        with suppress(OSError):
            while chunk := self.sockets[who].recv(65536):
                held += chunk
                while len(held) >= HEADER_SIZE and len(held) >= (
                    size := HEADER_SIZE + int.from_bytes(held[4:8], "big")
                ):
                    packet, held = held[:size], held[size:]
                    self.sent[who].append(packet)
                    self.grown.set()
                    self.say(to, self.meddle(who, len(self.sent[who]) - 1, packet))
            self.sockets[to].shutdown(green.SHUT_WR)

    def say(self, to: str, data: bytes) -> None:
        """Have `to` receive this."""
        if data:
            self.sockets[to].sendall(data)

    def cut(self) -> None:
        for sock in self.sockets.values():
            with suppress(OSError):
                sock.shutdown(green.SHUT_RDWR)

    def types(self, who: str) -> list[Type]:
        return [Type(packet[8] & 0x7F) for packet in self.sent[who]]


class Meddler:
    """Listens at `address` and dials `target` for whoever comes."""

    def __init__(self, target: Any, meddle: Meddle = lambda who, number, packet: packet) -> None:
        self.target = target
        self.meddle = meddle
        self.lines: list[Line] = []
        self.listener = green.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.address = self.listener.getsockname()
        self.greenlet = gevent.spawn(self.accept)

    def accept(self) -> None:
        while True:
            near, _ = self.listener.accept()
            try:
                far = green.create_connection(self.target)
            except BaseException:
                near.close()
                raise
            self.lines.append(Line(near, far, self.meddle))

    def close(self) -> None:
        self.greenlet.kill()
        self.listener.close()
        for line in self.lines:
            gevent.killall(line.pumps)
            for sock in line.sockets.values():
                sock.close()
