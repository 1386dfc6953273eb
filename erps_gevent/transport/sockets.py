"""Names resolved; sockets connected, tuned and bound; all within a deadline.

The sockets are plain and non-blocking, out of gevent's sight: an idle line then costs no watcher, and a forked child
that closes its copy of the descriptor cannot disturb the parent's loop. Waiting is done with a watcher made for it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import gevent
from gevent import socket as green
from gevent.hub import get_hub
from gevent.monkey import get_original
from gevent.socket import getaddrinfo
from gevent.timeout import with_timeout

from erps_gevent.errors import ConfigError, Disconnected, StartError
from erps_gevent.transport.address import Address, Where, parse_address, peer_address
from erps_gevent.transport.held import hold, waits
from erps_gevent.transport.reasons import why

if TYPE_CHECKING:
    PlainSocket: TypeAlias = socket.socket
else:
    PlainSocket = get_original("socket", "socket")
_getaddrinfo = get_original("socket", "getaddrinfo")

KEEPALIVE_IDLE = 15  # seconds of silence before the kernel asks whether the other end is there
KEEPALIVE_INTERVAL = 5  # seconds between its questions
KEEPALIVE_PROBES = 4  # unanswered ones before it gives the line up
DEAD_AFTER = 60.0  # seconds that sent data may stay unread before the line is dead
SHORTEST_WAIT = 0.001  # seconds. libuv counts in milliseconds and warns of less.
BACKLOG_RETRY = 0.01  # seconds

EXPIRED = object()

# (family, type, protocol, socket address)
Target = tuple[int, int, int, Any]


class Deadline:
    """A point on the monotonic clock, or never.

    seconds: from now; None is never.
    """

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.at = None if seconds is None else monotonic() + seconds

    def left(self) -> float | None:
        """Seconds until then, at least 0.0; None is for ever."""
        return None if self.at is None else max(0.0, self.at - monotonic())

    @property
    def passed(self) -> bool:
        return self.at is not None and monotonic() >= self.at

    def share(self, among: int) -> Deadline:
        """The deadline of the first of so many attempts, so that none of them can use up everybody's time."""
        left = self.left()
        return Deadline(None if left is None else left / among)


def within(seconds: float | None, function: Callable[..., Any], *args: Any) -> Any:
    """What `function` returns, or EXPIRED if `seconds` passed first; None waits for ever."""
    clamped = None if seconds is None else max(seconds, SHORTEST_WAIT)
    return with_timeout(clamped, function, *args, timeout_value=EXPIRED)


def wait(sock: PlainSocket, writable: bool, seconds: float | None) -> bool:
    """Park until the socket is readable (or writable); False means that `seconds` passed first."""
    hub = get_hub()
    watcher = hub.loop.io(sock.fileno(), 2 if writable else 1)
    waits[watcher] = hub
    try:
        return within(seconds, hub.wait, watcher) is not EXPIRED
    finally:
        waits.pop(watcher, None)
        watcher.close()


def plain(sock: Any) -> PlainSocket:
    """A plain non-blocking socket in place of `sock`, which is left without its descriptor."""
    family, kind, proto = sock.family, sock.type, sock.proto
    made = PlainSocket(family, kind, proto, fileno=sock.detach())
    made.setblocking(False)
    return hold(made)  # type: ignore[no-any-return]


def tune(sock: PlainSocket, dead_after: float | None) -> None:
    """Set what every TCP connection gets: no delay, the kernel's keepalive, and a limit for unread data.

    dead_after: seconds that sent data may stay unacknowledged; None leaves it to the kernel. Where the kernel has
                TCP_USER_TIMEOUT only.
    """
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = [
        ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", KEEPALIVE_IDLE),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    ]
    if dead_after is not None:
        # The kernel has 31 bits for it, which are 24 days.
        options.append(("TCP_USER_TIMEOUT", max(1, round(min(dead_after, 2_000_000) * 1000))))
    for name, value in options:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def other_end(sock: PlainSocket, address: object = None) -> Where:
    """What to call the other end of an accepted socket; a unix client has no name of its own but its process has."""
    if sock.family != getattr(socket, "AF_UNIX", None):
        return peer_address(address or sock.getpeername())
    if not hasattr(socket, "SO_PEERCRED"):
        return "unix"
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"unix:pid={pid},uid={uid}"


def dial(address: Address, deadline: Deadline) -> PlainSocket:
    """Connect to `address`, trying all that its name resolves to, one after the other.

    raises: Disconnected(sent=False)  its message and `reason` say whether it was the name, a refusal, the network or
                                      time; the cause is that of the last attempt.
    switch: parks for the resolver and for the connection.
    """
    if address.path is not None:
        targets: list[Target] = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, address.path)]
    else:
        targets = _resolved(address, deadline)
    failures: list[tuple[Any, OSError]] = []
    for index, target in enumerate(targets):
        share = deadline.share(len(targets) - index)
        try:
            return _connected(target, share)
        except OSError as exc:
            failures.append((target[3], exc))
    raise _unreached(address, failures, deadline) from failures[-1][1]


def _unreached(address: Address, failures: list[tuple[Any, OSError]], deadline: Deadline) -> Disconnected:
    found = []
    for _, exc in failures:
        if isinstance(exc, _TimedOut):
            found.append(("connect_timeout", f"timed out while connecting (connecting had {deadline.seconds:.3g} s)"))
        else:
            found.append(why(exc))
    word, sentence = found[-1]
    if len(found) > 1:
        tried = (f"{peer_address(name)[0]}: {text}" for (name, _), (_, text) in zip(failures, found, strict=True))
        sentence = "; ".join(tried)
    return Disconnected(f"cannot connect to {address}: {sentence}", reason=word)


class _TimedOut(TimeoutError):
    """One attempt used up its share of the time."""


def _resolved(address: Address, deadline: Deadline) -> list[Target]:
    host, port = address.host, address.port
    try:
        # An address in figures needs no resolver, and so no thread.
        found = _getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
    except OSError:
        found = _looked_up(host, port, deadline)
    targets = dict.fromkeys((family, kind, proto, sockaddr) for family, kind, proto, _, sockaddr in found)
    return list(targets)


def _looked_up(host: str, port: int, deadline: Deadline) -> list[Any]:
    try:
        found = within(deadline.left(), getaddrinfo, host, port, 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        text = getattr(exc, "strerror", None) or str(exc)
        raise Disconnected(f"cannot resolve the host name {host!r}: {text}", reason="dns") from exc
    if found is EXPIRED:
        text = f"timed out, DNS did not answer in {deadline.seconds:.3g} s"
        raise Disconnected(f"cannot resolve the host name {host!r}: {text}", reason="dns")
    return list(found)


def _connected(target: Target, deadline: Deadline) -> PlainSocket:
    family, kind, proto, sockaddr = target
    sock = hold(PlainSocket(family, kind, proto))
    try:
        sock.setblocking(False)
        _connect(sock, sockaddr, deadline)
    except BaseException:
        sock.close()
        raise
    return sock  # type: ignore[no-any-return]


def _connect(sock: PlainSocket, sockaddr: Any, deadline: Deadline) -> None:
    code = sock.connect_ex(sockaddr)
    while code == errno.EAGAIN:
        # A unix listener whose backlog is full says so, and nothing tells when it has room again.
        if deadline.passed:
            raise _TimedOut
        gevent.sleep(BACKLOG_RETRY)
        code = sock.connect_ex(sockaddr)
    if code == errno.EINPROGRESS:
        if not wait(sock, True, deadline.left()):
            raise _TimedOut
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not code and sock.family != getattr(socket, "AF_UNIX", None) and sock.getsockname() == sock.getpeername():
        # For a free port of this machine the kernel may pick that very port for our end, and join us to ourselves.
        code = errno.ECONNREFUSED
    if code:
        raise OSError(code, os.strerror(code))


def listen(address: object, backlog: int = 128, reuse_port: bool = False) -> green.socket:
    """A gevent socket that listens at `address`.

    address:    as `parse_address` takes it; the host "" is every IPv4 interface, port 0 any free port. The file of a
                unix socket on which nobody accepts any more is removed first; a live one, or any other file, never.
    backlog:    count of connections that may wait to be accepted.
    reuse_port: lets several processes listen at the same port, and the kernel deal the connections out.
    raises:     StartError  the address is in use, forbidden or not of this machine; the cause is chained.
                ConfigError the path holds something that is no socket.
    """
    parsed = parse_address(address, listening=True)
    try:
        if parsed.path is not None:
            _remove_stale(parsed.path)
            return _bound(socket.AF_UNIX, parsed.path, backlog, False)
        flags = socket.AI_PASSIVE
        family = 0 if parsed.host else socket.AF_INET
        found = getaddrinfo(parsed.host or None, parsed.port, family, socket.SOCK_STREAM, 0, flags)
        return _bound(found[0][0], found[0][4], backlog, reuse_port)
    except OSError as exc:
        raise StartError(f"cannot listen at {parsed}: {_unbound(exc)}", reason=exc.strerror) from exc


def _bound(family: int, sockaddr: Any, backlog: int, reuse_port: bool) -> green.socket:
    sock = green.socket(family, socket.SOCK_STREAM)
    try:
        if family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind(sockaddr)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _unbound(exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return "the address is in use; another process listens there (port 0 takes any free port)"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return "permission denied; ports below 1024 and other users' directories need rights"
    if exc.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if exc.errno == errno.ENOENT:
        return "there is no such directory"
    return exc.strerror or str(exc)


class SocketFile(NamedTuple):
    """The file of a unix socket that listens, so that it can be removed when it no longer does.

    pid, inode: a forked copy of the listener removes nothing, and nobody removes a successor's file.
    """

    path: str
    inode: tuple[int, int]
    pid: int

    @classmethod
    def of(cls, listener: green.socket) -> SocketFile | None:
        """The file of `listener`; None if it has none."""
        if listener.family != getattr(socket, "AF_UNIX", None):
            return None
        path = os.fsdecode(listener.getsockname())
        found = os.lstat(path)
        return cls(path, (found.st_dev, found.st_ino), os.getpid())

    def remove(self) -> None:
        """Remove the file, if it is still the one, and this the process that made it."""
        try:
            found = os.lstat(self.path)
            if self.pid == os.getpid() and self.inode == (found.st_dev, found.st_ino):
                os.unlink(self.path)
        except OSError:
            # Somebody else has removed it, or it is no longer ours to remove.
            return


def _remove_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"cannot listen at {path}: the file there is no socket; remove it or choose another path")
    with PlainSocket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code == errno.ECONNREFUSED:
        os.unlink(path)
    elif code in (0, errno.EAGAIN):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    else:
        raise OSError(code, os.strerror(code))
