"""Daemon: a StreamServer that runs a server process for each client.

It always accepts: a full house is told so, by name. What happens to an accepted socket is in `lines.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar, TypeVar

import gevent
from gevent.hub import Hub, get_hub
from gevent.pool import Pool
from gevent.server import StreamServer

from erps_gevent import options
from erps_gevent.errors import CallExit, ConfigError, EncodeError, StartError
from erps_gevent.lines import Lines
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.process import Pid, Process
from erps_gevent.outbox import HIGH_WATER
from erps_gevent.server import Server, chosen_options, start_on
from erps_gevent.server_connection import ServerConnection
from erps_gevent.transport.address import Peer, parse_address
from erps_gevent.transport.sockets import SocketFile
from erps_gevent.transport.tcp import check_transport
from erps_gevent.wire import terms

logger = logging.getLogger("erps_gevent")

T = TypeVar("T")

_SSL_KEYWORDS = {
    *("ca_certs", "cert_reqs", "certfile", "ciphers", "do_handshake_on_connect", "keyfile", "server_side"),
    *("ssl_context", "ssl_version", "suppress_ragged_eofs"),
}


@dataclass(frozen=True)
class LiveServer:
    """One live server process, as `Daemon.servers` shows it.

    connected_since: seconds since the epoch.
    calls:           count of calls answered. `pending` is the count of those that are not.
    """

    pid: Pid
    peer: Peer
    connected_since: float
    calls: int
    pending: int
    received_bytes: int

    @property
    def address(self) -> Any:
        """The peer's address."""
        return self.peer.address

    @property
    def subject(self) -> str | None:
        """The subject of the peer's certificate."""
        return self.peer.subject


class Daemon(StreamServer):
    """Listens, and serves each client with a server process of its own.

    listener:  `(host, port)`, "host:port", the path of a unix socket, a URL, or a bound socket.
    server:    a subclass of Server. `args` and the keywords that are no options go to its `init`.
    transport: `Tls(...)`, `OneWayTls(...)` or `Tcp()`; there is no default.
    spawn:     a gevent Pool for the server processes, or its size.
    options:   see the table in README.md; an option given here wins over the server's class keyword.
    raises:    ConfigError  an option, the listener or the transport is wrong.
               TypeError    there is no such option, or the arguments do not fit init.

    `start()`, `stop()`, `serve_forever()`, `server_port`, `address` are StreamServer's; `with` starts it.
    """

    stop_timeout = 10.0
    OPTIONS: ClassVar[dict[str, Option]] = options.DAEMON

    def __init__(
        self,
        listener: Any,
        server: type[Server],
        *args: Any,
        transport: Any = None,
        backlog: int | None = None,
        spawn: Any = "default",
        **kwargs: Any,
    ) -> None:
        if wrong := sorted(_SSL_KEYWORDS & kwargs.keys()):
            raise ConfigError(f"{wrong[0]}= is StreamServer's; write transport=Tls(ca=..., cert=..., key=...) instead")
        given, rest = behaviour.split(kwargs, self.OPTIONS)
        own = {name: option.default for name, option in self.OPTIONS.items()}
        own.update(behaviour.checked(given, self.OPTIONS, "Daemon"))
        given, arguments = behaviour.split(rest, getattr(server, "OPTIONS", {}))
        self.options = {**chosen_options(server, given), **own}
        behaviour.bind(server, args, arguments, ["transport", "backlog", "spawn", *self.OPTIONS, *server.OPTIONS])
        self.server_class = server
        self._init = args, arguments
        self._hub: Hub = get_hub()
        self._transport = transport
        self._watcher_task: gevent.Greenlet[..., None] | None = None
        self._socket_file: SocketFile | None = None
        self._drain_until: float | None = None
        self._fatal: Exception | None = None
        self._accept_failure: str | None = None
        self._accept_errors = 0
        self._accept_delay = self.min_delay
        super().__init__(listener, spawn=spawn, backlog=backlog)
        self._lines = Lines(self._transport, self.options, self._places, self._start_server)

    # What StreamServer asks of its subclasses.

    def set_listener(self, listener: Any) -> None:
        if hasattr(listener, "accept"):
            # gevent's sockets do not block anyway; a plain one would stop the hub at the second accept.
            listener.setblocking(False)
            super().set_listener(listener)
        elif isinstance(listener, int) or (isinstance(listener, str) and "/" not in listener):
            try:
                super().set_listener(listener)  # type: ignore[arg-type]
            except ValueError as exc:
                text = f"the listener {listener!r} is no host and port: write ('0.0.0.0', 4747), or '0.0.0.0:4747'"
                raise ConfigError(text) from exc
        else:
            target = parse_address(listener, listening=True)
            self._transport = check_transport(self._transport, target)
            parse_address(target, self._transport, listening=True)
            self.family: Any = None
            self.address = target.path if target.path is not None else (target.host, target.port)
        self._transport = check_transport(self._transport)
        self._transport.check_listener(listener)

    def set_spawn(self, spawn: Any) -> None:
        self._places: Any = Pool(spawn) if isinstance(spawn, int) and not isinstance(spawn, bool) else None
        if isinstance(spawn, Pool):
            self._places = spawn
        if self._places is None and spawn != "default":
            raise ConfigError(
                f"spawn={spawn!r}: a server process needs a greenlet of its own; pass a gevent Pool or its size"
            )
        super().set_spawn("default")

    def get_listener(  # type: ignore[override]
        self, address: Any, backlog: int | None = None, family: Any = None
    ) -> Any:
        backlog = self.backlog if backlog is None else backlog
        listener, self._socket_file = self._transport.listen(address, backlog, self.options["reuse_port"])
        return listener

    def close(self) -> None:
        """Stop accepting and close the listening socket; the file of a unix socket that was made here goes with it."""
        super().close()
        if self._socket_file is not None:
            self._socket_file.remove()
            self._socket_file = None

    def handle(self, sock: Any, address: Any) -> None:
        """Greet one client and start its server process. Parks; runs in the handshake group."""
        connection = self._lines.greet(sock, address)
        if connection is not None:
            self._lines.admit(connection)

    def do_handle(self, sock: Any, address: Any) -> None:
        self._lines.accept(self.handle, sock, address)

    def full(self) -> bool:
        """Never: a client that cannot be served is told so."""
        return False

    def do_read(self) -> Any:
        try:
            accepted = super().do_read()
        except Exception as error:  # noqa: BLE001  judged here: is_fatal_error knows which ones end the daemon
            self._accept_failed(error)
            return None
        if accepted and self._accept_failure:
            self._lines.later(logger.info, "accepting at %s again", self.address)
            self._accept_failure = None
            self._accept_delay = self.min_delay
        return accepted

    def _accept_failed(self, error: Exception) -> None:
        self._accept_errors += 1
        if self.is_fatal_error(error):
            self._lines.later(logger.error, "accepting at %s has ended: %s", self.address, error)
            self._fatal = error
            self.close()
            return
        if str(error) != self._accept_failure:
            self._accept_failure = str(error)
            self._lines.later(logger.error, "cannot accept at %s for now: %s", self.address, error)
        self.stop_accepting()
        # As BaseServer does it itself, but for its printing of a traceback each time.
        self._timer = self.loop.timer(self._accept_delay)
        self._timer.start(self._start_accepting_if_started)  # type: ignore[attr-defined, call-arg]
        self._accept_delay = min(self._accept_delay * 2, self.max_delay)

    def _start_server(self, connection: ServerConnection) -> Process:
        return start_on(connection, self.server_class, *self._init)

    # The face.

    def start(self) -> None:
        """Listen and accept; once it does, a second time does nothing.

        raises: StartError  the address is taken or cannot be bound.
        """
        if self.started:
            return
        self._lines.draining = False
        self._drain_until = self._fatal = None
        super().start()
        if self._watcher_task is None:
            self._watcher_task = gevent.spawn(self._lines.watch)

    def serve_forever(self, stop_timeout: float | None = None) -> None:
        """Start if need be, and serve until stopped or drained. Parks.

        raises: StartError  it cannot listen, or accepting has become impossible; the cause is chained.
        """
        super().serve_forever(stop_timeout)
        if self._fatal is not None:
            text = f"accepting at {self.address} has become impossible: {self._fatal}; the listening socket is gone"
            raise StartError(text, reason=str(self._fatal)) from self._fatal

    def stop(self, timeout: float | None = None) -> None:
        """Stop accepting, have the clients move, and end the servers that are left after `timeout` seconds.

        timeout: None means what is left of a drain() that is under way, or `stop_timeout`, 10 s. A daemon whose
                 clients are gone stops at once.
        switch:  parks for at most the timeout and two seconds for servers that do not want to end.
        """
        self._in_hub(self._stop, timeout)

    def _stop(self, timeout: float | None) -> None:
        if timeout is None:
            timeout = self.stop_timeout
            if self._drain_until is not None:
                timeout = max(0.0, self._drain_until - monotonic())
        self.close()
        self._lines.drain(timeout)
        self._lines.end()
        watcher, self._watcher_task = self._watcher_task, None
        if watcher is not None:
            watcher.kill(block=False)

    def drain(self, timeout: float | None = None) -> bool:
        """Stop accepting, ask all clients to move, and wait until they have; True if none is left.

        timeout: seconds; None waits for ever. A client that was being greeted is welcomed and asked to move at once.
        switch:  parks.
        """
        return self._in_hub(self._drain, timeout)

    def _drain(self, timeout: float | None) -> bool:
        self._drain_until = float("inf") if timeout is None else monotonic() + timeout
        self.close()
        return self._lines.drain(timeout)

    def _in_hub(self, function: Callable[..., T], *args: Any) -> T:
        if bridge.is_foreign(self._hub):
            return bridge.run_in(self._hub, function, *args)
        return function(*args)

    @property
    def servers(self) -> list[LiveServer]:
        """The live server processes, oldest first."""
        return [
            LiveServer(
                process.pid,
                connection.stream.peer,
                since,
                connection.calls_served,
                len(connection.calls),
                connection.session.received_bytes,
            )
            for process, since in list(self._lines.live.items())
            if isinstance(connection := process.inbox, ServerConnection)
        ]

    def broadcast(self, message: Any) -> int:
        """Push `message` to every client that has room for it; return the count of those.

        raises: EncodeError  it cannot be sent; no client got it.
        switch: does not park: a client that does not read, or takes only smaller messages, is left out and logged.
        """
        terms.encode(message, "message")
        return self._in_hub(self._broadcast, message)

    def _broadcast(self, message: Any) -> int:
        reached = 0
        for connection in self._lines.connections():
            if connection.outbox.size > HIGH_WATER:
                logger.warning("broadcast left out %s: it does not read", connection.stream.peer)
                continue
            try:
                connection.push(message, timeout=0)
            except (CallExit, EncodeError) as error:
                logger.warning("broadcast left out %s: %s", connection.stream.peer, error)
            else:
                reached += 1
        return reached

    def info(self) -> dict[str, Any]:
        """How it is: address, servers, handshakes, limits, and counts since it was made."""
        lines = self._lines
        return {
            "address": self.address,
            "accepting": self.started,
            "draining": lines.draining,
            "servers": len(lines.live),
            "handshakes": len(lines.handshakes),
            "max_connections": self.options["max_connections"],
            "max_handshakes": self.options["max_handshakes"],
            "accept_errors": self._accept_errors,
            **lines.counts,
        }

    def __enter__(self) -> Any:
        self.start()
        return self
