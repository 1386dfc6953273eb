"""What the tests of the faces share: both ends over every transport, and a server that does what a test tells it."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event
from support import Certs

import erps_gevent as erps

PATIENCE = 10.0  # seconds: a bound for what takes milliseconds
KINDS = ("tcp", "tls1.2", "tls1.3")
HUBS = ("here", "thread")
VERSIONS = {"tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class Wire:
    """The transports of both ends."""

    kind: str
    server: Any
    client: Any


def wire(kind: str, certs: Certs, client: str = "alice") -> Wire:
    if kind == "tcp":
        return Wire(kind, erps.Tcp(), erps.Tcp())
    if kind == "one way":
        return Wire(
            kind, erps.OneWayTls(cert=certs.cert("server"), key=certs.key("server")), erps.OneWayTls(ca=certs.ca)
        )
    return Wire(kind, tls(kind, certs, "server", True), tls(kind, certs, client, False))


def tls(
    kind: str, certs: Certs, who: str | None, server_side: bool, ca: str | None = None, name: str = "localhost"
) -> erps.Tls:
    """Two-way TLS of exactly one version.

    who:  whose certificate is presented; None presents none.
    ca:   the authority that is believed; None is that of `certs`.
    name: what the server's certificate is checked for.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = VERSIONS[kind]
    context.load_verify_locations(ca or certs.ca)
    if who is not None:
        context.load_cert_chain(certs.cert(who), certs.key(who))
    context.verify_mode = ssl.CERT_REQUIRED
    return erps.Tls(context=context, server_hostname=name)


class Lab(erps.Server, identifier="lab", versions="~=1.0"):
    """`call((name, *args))` runs `acts[name](server, from_, *args)`, whose value is the callback's answer."""

    def init(self, acts: dict[str, Any] | None = None, note: Callable[..., Any] | None = None) -> None:
        self.acts = acts or {}
        self.note = note or (lambda *_: None)

    def handle_call(self, request: Any, from_: erps.From) -> Any:
        match request:
            case ("echo", value):
                return erps.Reply(value)
            case (str(name), *args) if name in self.acts:
                return self.acts[name](self, from_, *args)
        raise erps.ErrorReply("unknown", f"there is no act for {request!r}")

    def handle_cast(self, request: Any) -> Any:
        self.note("cast", request)
        match request:
            case (str(name), *args) if name in self.acts:
                return self.acts[name](self, None, *args)
        return None

    def handle_info(self, message: Any) -> Any:
        self.note("info", message)

    def terminate(self, reason: Any) -> None:
        self.note("terminate", reason)


class LabClient(erps.Client, identifier="lab", version="1.0.3"):
    """Notes what its callbacks are given."""

    def init(self, note: Callable[..., Any] | None = None) -> None:
        self.note = note or (lambda *_: None)

    def handle_connect(self, peer: erps.Peer) -> None:
        self.note("connect", peer)

    def handle_disconnect(self, error: Exception) -> None:
        self.note("disconnect", error)

    def handle_push(self, message: Any) -> None:
        self.note("push", message)

    def handle_info(self, message: Any) -> None:
        self.note("info", message)

    def terminate(self, reason: Any) -> None:
        self.note("terminate", reason)


class Notes:
    """What callbacks noted, and a wait for it, from any hub."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Any]] = []

    def __call__(self, what: str, value: Any = None) -> None:
        self.all.append((what, value))

    def of(self, what: str) -> list[Any]:
        return [value for kind, value in self.all if kind == what]

    def wait(self, what: str, count: int = 1) -> list[Any]:
        """Wait until `what` was noted `count` times."""
        until(lambda: len(self.of(what)) >= count, f"{count} x {what}, but: {self.all}")
        return self.of(what)


def until(true: Callable[[], Any], what: str = "it") -> Any:
    """Park until `true()`; a bound for what has no event of its own, such as something in another thread's hub."""
    with gevent.Timeout(PATIENCE, AssertionError(f"waited in vain for {what}")):
        while not (value := true()):
            gevent.sleep(0.002)
    return value


class House:
    """Makes daemons and clients over one wire, and closes all of them at the end."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.daemons: list[erps.Daemon] = []
        self.pids: list[erps.Pid] = []
        self.clients: list[erps.Client] = []
        self.sockets: list[Any] = []

    def daemon(
        self,
        server: type[erps.Server] = Lab,
        *args: Any,
        listener: Any = ("127.0.0.1", 0),
        transport: Any = None,
        **options: Any,
    ) -> erps.Daemon:
        """A daemon that listens."""
        made = erps.Daemon(listener, server, *args, transport=transport or self.wire.server, **options)
        self.daemons.append(made)
        made.start()
        return made

    def process(
        self, server: type[erps.Server] = Lab, *args: Any, listener: Any = ("127.0.0.1", 0), **options: Any
    ) -> erps.Pid:
        """A daemon that listens as a process; linked, if the caller is one."""
        options.setdefault("transport", self.wire.server)
        pid = erps.Daemon.start_link(listener, server, *args, **options)
        self.pids.append(pid)
        return pid

    def client(
        self, to: Any, *args: Any, cls: type[erps.Client] = LabClient, transport: Any = None, **options: Any
    ) -> Any:
        """A client of a daemon, of its process, or of an address."""
        to = erps.Daemon.of(to) if isinstance(to, erps.Pid) else to
        address = to.address if isinstance(to, erps.Daemon) else to
        options.setdefault("hub", "here")
        made = cls(address, *args, transport=transport or self.wire.client, **options)
        self.clients.append(made)
        return made

    def raw(self, daemon: erps.Daemon) -> Any:
        """A plain socket that is connected to it."""
        from gevent import socket as green

        sock = green.create_connection(daemon.address, timeout=PATIENCE)
        self.sockets.append(sock)
        return sock

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        for client in self.clients:
            client.close()
        for daemon in self.daemons:
            daemon.stop(timeout=0)
        for pid in self.pids:
            erps.kill(pid)
            ended(pid)
        self.clients.clear()
        self.daemons.clear()
        self.pids.clear()
        gc.collect()


def greenlets() -> int:
    """How many greenlets there are that have begun and not ended."""
    gc.collect()
    return sum(1 for thing in gc.get_objects() if isinstance(thing, gevent.Greenlet) and thing and not thing.dead)


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def ended(pid: erps.Pid) -> Any:
    """Wait until a process of this hub is dead; its exit reason, or NOPROC if it was dead before."""
    reason = pid.process.join(PATIENCE)
    assert not pid.is_alive(), f"{pid!r} lives"
    return reason


class Parent(erps.GenServer):
    """A process that starts others: a call with a function runs it here. Its links end with it, as it does with them.

    trap: True has it note the exit signals instead.
    """

    def init(self, trap: bool = False, note: Callable[..., Any] | None = None) -> None:
        self.trap_exit = trap
        self.note = note or (lambda *_: None)

    def handle_call(self, request: Callable[[], Any], from_: erps.From) -> Any:
        return erps.Reply(request())

    def handle_cast(self, request: Any) -> Any:
        return erps.Stop(request)

    def handle_info(self, message: Any) -> None:
        self.note("info", message)


class Gate:
    """A place where a handler parks until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = Event()
        self._open = Event()

    def __call__(self, *_: Any) -> erps.Reply:
        self.entered.set()
        self._open.wait()
        return erps.Reply("through")

    def open(self) -> None:
        self._open.set()
