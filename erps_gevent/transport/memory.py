"""`Memory()`, lines inside one Python process, for tests: no port, no file, no certificates.

Each line is a pair of connected sockets, so that whatever reads, writes, waits and fails on it does as over TCP. Only
how the two ends find each other is different:

    connect ──▶ the far end waits in the Listener ──▶ _accept ──▶ accept
                └─ the first to wait rings its bell, which is what the daemon's watcher sees
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from dataclasses import replace
from itertools import count
from weakref import WeakSet

from gevent.monkey import get_original

from erps_gevent.errors import ConfigError, Disconnected, StartError
from erps_gevent.transport.address import Address, Peer, Where, parse_address
from erps_gevent.transport.held import hold
from erps_gevent.transport.sockets import DEAD_AFTER, PlainSocket, plain
from erps_gevent.transport.tcp import Stream, Transport

FIRST_PORT = 49152  # for port 0: where the ports begin that nobody is assigned (RFC 6335, 6)
ANY_HOST = "0.0.0.0"

# A client's hub may be another thread's; what it guards never parks.
_allocate_lock = get_original("_thread", "allocate_lock")
_networks: WeakSet[Memory] = WeakSet()

Caller = tuple[str, int]


class Memory(Transport):
    """A network of its own inside this Python process, of one machine with as many names as you like.

    Both ends need the same `Memory()`, and nobody else is in it: tests that run at the same time, each with one of its
    own, cannot meet. Addresses are those of TCP and unix sockets, URLs too, and none of them leaves the process: the
    host is not looked at, the port finds the daemon, and port 0 is one that nobody had before. The server sees its
    clients as ("memory", 1), ("memory", 2) and so on.
    """

    secure = None

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._listeners: dict[int | str, Listener] = {}
        self._ports = count(FIRST_PORT)
        self._callers = count(1)
        _networks.add(self)

    def check_listener(self, listener: object = None) -> None:
        if hasattr(listener, "accept"):
            raise ConfigError(f"{listener!r} is a socket of a network, and Memory() has none: pass an address instead")

    def listen(self, address: object, backlog: int, reuse_port: bool) -> tuple[Listener, None]:
        target = parse_address(address, self, listening=True)
        with self._lock:
            if target.path is None and not target.port:
                free = next(port for port in self._ports if port not in self._listeners)
                target = replace(target, port=free)
            if self._found(target) is not None:
                text = f"cannot listen at {target}: the address is in use in this Memory(); port 0 takes any free port"
                raise StartError(text, reason=os.strerror(errno.EADDRINUSE))
            listener = self._listeners[_place(target)] = Listener(self, target)
        return listener, None

    def connect(self, address: Address, timeout: float | None, *, dead_after: float | None = DEAD_AFTER) -> Stream:
        near, far = _pair()
        with self._lock:
            listener = self._found(address)
            if listener is not None:
                listener.ring(far, ("memory", next(self._callers)))
        if listener is None:
            near.close()
            far.close()
            why = "connection refused: nothing listens there in this Memory(), and both ends need the same one"
            raise Disconnected(f"cannot connect to {address}: {why}", reason="refused")
        return Stream(near, Peer(_where(address)))

    def accept(
        self, sock: object, address: Caller, timeout: float | None, *, dead_after: float | None = DEAD_AFTER
    ) -> Stream:
        return Stream(plain(sock), Peer(address))

    def _found(self, address: Address) -> Listener | None:
        listener = self._listeners.get(_place(address))
        # In a forked child it is a copy, whose bell would ring in the parent.
        return listener if listener is not None and listener.pid == os.getpid() else None

    def forget(self, listener: Listener) -> None:
        """It no longer listens. Called under the lock."""
        if self._listeners.get(listener.place) is listener:
            del self._listeners[listener.place]

    def __repr__(self) -> str:
        return "Memory()"


class Listener(PlainSocket):
    """What a StreamServer accepts from: readable while a line waits.

    place: where a client finds it.
    pid:   the process that made it.
    """

    def __init__(self, memory: Memory, address: Address) -> None:
        heard, self._bell = _pair()
        super().__init__(heard.family, heard.type, heard.proto, fileno=heard.detach())
        self.setblocking(False)
        self._memory = memory
        self._name = _where(address)
        self._waiting: deque[tuple[PlainSocket, Caller]] = deque()
        self.place = _place(address)
        self.pid = os.getpid()
        hold(self)

    def getsockname(self) -> Where:
        return self._name

    def ring(self, sock: PlainSocket, caller: Caller) -> None:
        """The far end of a new line; called under the lock of the Memory."""
        if not self._waiting:
            self._bell.send(b"!")
        self._waiting.append((sock, caller))

    def _accept(self) -> tuple[int, Caller]:
        with self._memory._lock:
            if not self._waiting:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            sock, caller = self._waiting.popleft()
            if not self._waiting:
                self.recv(1)
        return sock.detach(), caller

    def close(self) -> None:
        """Listen no more. Who waits to be accepted is cut off."""
        with self._memory._lock:
            self._memory.forget(self)
            waiting, self._waiting = self._waiting, deque()
        for sock, _ in waiting:
            sock.close()
        self._bell.close()
        super().close()


def after_fork() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    for network in list(_networks):
        network._lock = _allocate_lock()


def _pair() -> tuple[PlainSocket, PlainSocket]:
    near, far = socket.socketpair()
    return plain(near), plain(far)


def _place(address: Address) -> int | str:
    return address.port if address.path is None else address.path


def _where(address: Address) -> Where:
    return (address.host or ANY_HOST, address.port) if address.path is None else address.path
