"""`Stream`, one connected line without blocking; `Tcp()`; and what every transport offers."""

from __future__ import annotations

import socket
from typing import Any

from erps_gevent.errors import ConfigError, Disconnected
from erps_gevent.transport.address import Address, Peer
from erps_gevent.transport.held import abandon
from erps_gevent.transport.reasons import lost
from erps_gevent.transport.sockets import (
    DEAD_AFTER,
    Deadline,
    PlainSocket,
    SocketFile,
    dial,
    listen,
    other_end,
    plain,
    tune,
    wait,
)

READ_SIZE = 64 * 1024  # bytes asked for at a time. With more, malloc tidies up after each read, and 100 lines lose 15 %
SEAL_SIZE = 68 * 1024  # bytes sealed at a time: OpenSSL keeps room for the most that it ever held (16 MiB for 16 MiB)

REMEDY = "pass transport=Tls(ca=..., cert=..., key=...), or transport=Tcp() if nobody else can reach the network"


class Stream:
    """One connected line. Nothing here parks but `wait_readable` and `wait_writable`.

    The first `receive()` comes before the first wait: with TLS, the handshake may already have read what follows it.

    peer:    who is at the other end.
    drained: after a `receive()`: the kernel had no more, or a room was filled; what comes next is to wait. After False,
             receive again.
    """

    __slots__ = ("_sock", "drained", "peer")
    in_clear = True  # what goes on the wire is what was given

    def __init__(self, sock: PlainSocket, peer: Peer) -> None:
        self._sock = sock
        self.peer = peer
        self.drained = False

    def fileno(self) -> int:
        """The descriptor, or -1 once closed."""
        return self._sock.fileno()

    def receive(self, room: memoryview | None = None) -> bytes | memoryview | None:
        """What has arrived: some bytes; None if nothing is there now; b"" if the other end has finished.

        room:   where they may be put: then what is returned may be the start of it.
        raises: Disconnected(sent=True)  the line is lost. What had arrived before was given out first.
        """
        try:
            if room is not None:
                # If there is more, the next look at the socket is soon enough: often this was all, to the last byte.
                self.drained = True
                return room[: self._sock.recv_into(room)]
            chunk = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            self.drained = True
            return None
        except OSError as exc:
            raise lost(exc, "reading") from exc
        self.drained = len(chunk) < READ_SIZE
        return chunk

    def seal(self, data: bytes | memoryview) -> bytes | memoryview:
        """What has to go on the wire for `data`. All of it must be sent, and in the order of sealing.

        data:   of any size; pieces of at most SEAL_SIZE need one copy less.
        raises: Disconnected(sent=True)  the line is lost.
        """
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Hand sealed bytes to the kernel: how many it took, 0 if it has no room.

        raises: Disconnected(sent=True)  the line is lost for writing. `receive()` may still have what the other end
                                         said before; read that before you name the cause.
        """
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise lost(exc, "writing") from exc

    def farewell(self) -> bytes:
        """The sealed bytes that end the line politely; seal nothing after them."""
        return b""

    def shutdown_write(self) -> None:
        """Tell the other end that no more comes; what it says can still be read."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            # It is gone already, which the next receive() reports.
            return

    def close(self) -> None:
        """Close the descriptor; a second time does nothing."""
        self._sock.close()

    def abandon(self) -> None:
        """Close this process's copy of the descriptor and nothing else: for a forked child, whose parent lives on."""
        abandon(self._sock)

    def wait_readable(self, timeout: float | None) -> bool:
        """Park until there is something to receive; False if `timeout` seconds passed first."""
        return wait(self._sock, False, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        """Park until the kernel has room; False if `timeout` seconds passed first."""
        return wait(self._sock, True, timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.peer} fd={self.fileno()}>"


class Transport:
    """How two ends reach each other. Both ends need the same one.

    secure: whether it is TLS, and so goes with erps:// or with erps+tcp://; None goes with both.
    """

    secure: bool | None = False

    def check_target(self, address: Address) -> None:
        """See that a client can connect to `address` with this. raises: ConfigError"""

    def check_listener(self, listener: object = None) -> None:
        """See that a server can accept with this, from `listener` as the user gave it. raises: ConfigError"""

    def listen(self, address: object, backlog: int, reuse_port: bool) -> tuple[Any, SocketFile | None]:
        """A socket that listens at `address`, and the file to remove when it is closed, if it has one.

        address, backlog, reuse_port, raises: as for sockets.listen().
        """
        listener = listen(address, backlog, reuse_port)
        return listener, SocketFile.of(listener)

    def connect(self, address: Address, timeout: float | None, *, dead_after: float | None = DEAD_AFTER) -> Stream:
        """A line to `address`, ready for use.

        timeout:    seconds for everything: the name, the connection, the handshake; None waits for ever.
        dead_after: seconds that sent data may stay unread before the line is dead; None leaves it to the kernel.
        raises:     Disconnected(sent=False)  its message and `reason` say what failed (see reasons.py); cause chained.
                    ConfigError               this transport cannot be used so.
        switch:     parks.
        """
        raise NotImplementedError

    def accept(
        self, sock: Any, address: Any, timeout: float | None, *, dead_after: float | None = DEAD_AFTER
    ) -> Stream:
        """A line on a socket that was just accepted, which is taken over; it is closed if this raises.

        sock:    a gevent or a plain socket.
        address: what accept() said with it.
        timeout, dead_after, raises, switch: as for connect().
        """
        raise NotImplementedError


class Tcp(Transport):
    """Bytes in clear, unauthenticated; also over unix sockets. It must be asked for by name."""

    def connect(self, address: Address, timeout: float | None, *, dead_after: float | None = DEAD_AFTER) -> Stream:
        sock = dial(address, Deadline(timeout))
        return Stream(sock, Peer(named(sock, dead_after, address)))

    def accept(
        self, sock: Any, address: Any, timeout: float | None, *, dead_after: float | None = DEAD_AFTER
    ) -> Stream:
        sock = plain(sock)
        return Stream(sock, Peer(named(sock, dead_after, address)))

    def __repr__(self) -> str:
        return "Tcp()"


def named(sock: PlainSocket, dead_after: float | None, address: Any) -> Any:
    """Tune a fresh socket and say who is at its other end; closes it if it is lost already.

    address: what accept() said, or the Address that was dialled.
    raises:  Disconnected(sent=False)
    """
    try:
        tune(sock, dead_after)
        if not isinstance(address, Address):
            return other_end(sock, address)
        return address.path if address.path is not None else other_end(sock)
    except OSError as exc:
        sock.close()
        error = lost(exc, "being set up")
        raise Disconnected(str(error), reason=error.reason) from exc


def check_transport(value: object, address: Address | None = None) -> Transport:
    """The transport to use: `value`, or `Tcp()` where an `erps+tcp://` URL asks for it by name.

    raises: ConfigError  there is none; the text says how to write one.
    """
    if isinstance(value, Transport):
        return value
    if value is None:
        if address is not None and address.scheme == "erps+tcp":
            return Tcp()
        raise ConfigError(f"no transport was given: {REMEDY}")
    if isinstance(value, type) and issubclass(value, Transport):
        raise ConfigError(f"transport={value.__name__} is the class itself: write {value.__name__}(...)")
    raise ConfigError(f"transport={value!r} is no transport: {REMEDY}")
