"""Both ends of a line in one process: streams, and a peer that speaks as the test tells it, down to the byte."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import gevent
from faces import PATIENCE, Wire
from gevent.monkey import get_original

from erps_gevent.client_connection import ClientConnection
from erps_gevent.errors import Disconnected
from erps_gevent.server_connection import ServerConnection
from erps_gevent.transport.address import Peer, parse_address
from erps_gevent.transport.sockets import listen, plain
from erps_gevent.transport.tcp import SEAL_SIZE, Stream
from erps_gevent.wire.packet import Stamp, Type
from erps_gevent.wire.session import ClientSession, ServerSession

STAMP = Stamp((1, 0, 0), "lab")
MEBIBYTE = 1024 * 1024
block = get_original("time", "sleep")  # stops the whole hub, as a handler that computes does


def soon() -> float:
    return monotonic() + PATIENCE


def turn(count: int = 1) -> None:
    """Let the loop go round."""
    for _ in range(count):
        gevent.sleep(0)


@contextmanager
def in_time(seconds: float = PATIENCE) -> Iterator[None]:
    with gevent.Timeout(seconds, AssertionError("it hangs")):
        yield


class Watched(Stream):
    """A stream that notes what is sealed and what is offered to the kernel."""

    __slots__ = ("seals", "sends")
    in_clear = False

    def __init__(self, sock: Any, peer: Peer) -> None:
        super().__init__(sock, peer)
        self.seals: list[int] = []
        self.sends: list[bytes] = []

    def seal(self, data: Any) -> Any:
        self.seals.append(len(data))
        return super().seal(data)

    def send(self, data: Any) -> int:
        taken = super().send(data)
        self.sends.append(bytes(data[:taken]))
        return taken


def pair() -> tuple[Watched, Stream]:
    """Two joined streams, in clear."""
    near, far = socket.socketpair()
    return Watched(plain(near), Peer("near")), Stream(plain(far), Peer("far"))


def dialled(wire: Wire) -> tuple[Stream, Stream]:
    """(client's, server's) streams of a real connection over `wire`."""
    listener = listen(("127.0.0.1", 0))
    try:
        accepting = gevent.spawn(lambda: wire.server.accept(*listener.accept(), PATIENCE))
        near = wire.client.connect(parse_address(listener.getsockname()), PATIENCE)
        return near, accepting.get(timeout=PATIENCE)
    finally:
        listener.close()


def put(stream: Stream, data: bytes) -> None:
    """Send all of `data`; parks."""
    for start in range(0, len(data), SEAL_SIZE):
        rest = memoryview(stream.seal(data[start : start + SEAL_SIZE]))
        while rest:
            taken = stream.send(rest)
            if not taken:
                assert stream.wait_writable(PATIENCE), "the other end does not read"
            rest = rest[taken:]


def got(stream: Stream, size: int | None = None) -> bytes:
    """`size` bytes, or all until the end; parks."""
    parts = bytearray()
    while size is None or len(parts) < size:
        chunk = stream.receive()
        if chunk is None:
            assert stream.wait_readable(PATIENCE), f"nothing came after {len(parts)} bytes"
        elif not chunk:
            break
        else:
            parts += chunk
    return bytes(parts)


class Scripted:
    """The other end: a stream and a session, and nothing that happens by itself."""

    def __init__(self, stream: Stream, session: Any) -> None:
        self.stream = stream
        self.session = session
        self.unread: list[Any] = []

    def say(self, *frames: Any) -> None:
        """Send the frames in one piece."""
        put(self.stream, b"".join(map(bytes, frames)))

    def hear(self, type_: Type) -> Any:
        """The next packet, which has to be of this type; parks."""
        while not self.unread:
            assert self.read(), f"the line ended before a {type_.name} came"
        packet = self.unread.pop(0)
        assert packet.type is type_, packet
        return packet

    def read(self) -> bool:
        chunk = self.stream.receive()
        if chunk is None:
            assert self.stream.wait_readable(PATIENCE), "nothing came"
            return True
        self.unread += self.session.receive(chunk)
        assert self.session.error is None, self.session.error
        return bool(chunk)

    def hears_nothing(self) -> bool:
        """True if nothing is there to be read."""
        turn(2)
        chunk = self.stream.receive()
        if chunk:
            self.unread += self.session.receive(chunk)
        return not self.unread

    def hears_the_end(self) -> bool:
        while self.read():
            assert not self.unread, self.unread
        return True


def server_end(
    max_pending: int = 1000, send_timeout: float = PATIENCE, streams: Any = None, **options: Any
) -> tuple[ServerConnection, Scripted]:
    """A ServerConnection before its hello, and its scripted client."""
    near, far = streams or pair()
    connection = ServerConnection(near, ServerSession(STAMP, **options), send_timeout, max_pending)
    return connection, Scripted(far, ClientSession(STAMP))


def welcomed(*args: Any, **kwargs: Any) -> tuple[ServerConnection, Scripted]:
    """The same after hello and welcome."""
    connection, client = server_end(*args, **kwargs)
    client.say(client.session.hello())
    connection.await_hello(soon())
    connection.welcome(None)
    client.hear(Type.WELCOME)
    return connection, client


class Heard:
    """What a ClientConnection told its owner."""

    def __init__(self) -> None:
        self.pushes: list[Any] = []
        self.goaways: list[Any] = []


def client_end(
    max_pending: int = 1000, send_timeout: float = PATIENCE, streams: Any = None
) -> tuple[ClientConnection, Scripted, Heard]:
    """A ClientConnection before its hello, and its scripted server."""
    near, far = streams or pair()
    heard = Heard()
    session = ClientSession(STAMP)
    connection = ClientConnection(near, session, send_timeout, max_pending, heard.pushes.append, heard.goaways.append)
    return connection, Scripted(far, ServerSession(STAMP)), heard


def greeted(
    max_pending: int = 1000, server_pending: int = 1000, **kwargs: Any
) -> tuple[ClientConnection, Scripted, Heard]:
    """The same after hello and welcome; nobody reads yet."""
    connection, server, heard = client_end(max_pending, **kwargs)
    greeting = gevent.spawn(connection.greet, soon())
    server.hear(Type.HELLO)
    server.say(server.session.welcome(None, server_pending))
    greeting.get(timeout=PATIENCE)
    return connection, server, heard


def reading(connection: ClientConnection) -> gevent.Greenlet[..., Any]:
    """Start the reader as the healer does; its value is the cause."""

    def read() -> Exception:
        try:
            return connection.serve()
        finally:
            connection.finish()

    greenlet = gevent.spawn(read)
    turn()
    return greenlet


class Line:
    """A client's end that is being read, its scripted server, and callers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.connection, self.server, self.heard = greeted(*args, **kwargs)
        self.reader = reading(self.connection)

    def asks(self, request: Any = "go", timeout: float | None = None) -> gevent.Greenlet[..., Any]:
        """A greenlet that calls."""
        caller = gevent.spawn(self.connection.call, request, timeout, timeout)
        turn(2)
        return caller

    def close(self) -> None:
        self.connection.leave_now(Disconnected("the test is over"))
        self.server.stream.close()
        self.reader.join(timeout=PATIENCE)
        assert self.reader.dead
