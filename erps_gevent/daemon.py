"""Daemon: a StreamServer that runs a server process for each client.

    accept ──▶ handshake group: TLS, hello ──▶ slot ──▶ server process: init ──▶ welcome ──▶ it reads and serves
               at most max_handshakes,         none free:   at the end of the line
               handshake_timeout each          Overloaded

It always accepts: a full house is told so. A peer that has not said hello holds no slot, only a place in the handshake
group, and the oldest there is dropped for a new one. Nothing that a peer does ends anything but its own line.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer

from erps_gevent import options
from erps_gevent.connection import DISCONNECTED, ServerConnection
from erps_gevent.errors import CallExit, ConfigError, Disconnected, ErpsError, Overloaded, ProtocolError
from erps_gevent.otp import behaviour
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.messages import StopRequest
from erps_gevent.otp.process import Pid, Process
from erps_gevent.otp.reasons import KILLED, SHUTDOWN
from erps_gevent.server import Server, chosen_options, farewell_of, start_on
from erps_gevent.transport.address import Peer, parse_address
from erps_gevent.transport.sockets import listen
from erps_gevent.transport.tcp import Stream, check_transport
from erps_gevent.transport.tls_stream import PlaintextPeer
from erps_gevent.wire.packet import Stamp
from erps_gevent.wire.refusals import Code, Refusal
from erps_gevent.wire.session import ServerSession

logger = logging.getLogger("erps_gevent")

LOOK_EVERY = 1.0  # seconds between looks at the lines of servers that are busy or parked in a handler
KILL_AFTER = 1.0  # seconds that servers have for their terminate once the drain deadline has passed

_SSL_KEYWORDS = frozenset(
    "ca_certs cert_reqs certfile ciphers do_handshake_on_connect keyfile server_side ssl_context ssl_version "
    "suppress_ragged_eofs".split()  # noqa: SIM905  one to a line would be a page
)


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
        self._stamp = Stamp((0, 0, 0), self.options["identifier"])
        self._transport = transport
        self._handshakes: dict[Any, None] = {}  # greenlets, oldest first
        self._live: dict[Process, float] = {}
        self._starting = 0
        self._tasks: set[gevent.Greenlet[..., Any]] = set()
        self._quiet = Event()
        self._quiet.set()
        self._draining = False
        self._fatal: Exception | None = None
        self._accept_failure: str | None = None
        self._accept_delay = self.min_delay
        self.counts = {"accepted": 0, "handshake_failures": 0, "refused": 0, "served": 0, "accept_errors": 0}
        super().__init__(listener, spawn=spawn, backlog=backlog)

    # What StreamServer asks of its subclasses.

    def set_listener(self, listener: Any) -> None:
        if (
            hasattr(listener, "accept")
            or isinstance(listener, int)
            or (isinstance(listener, str) and "/" not in listener)
        ):
            super().set_listener(listener)
        else:
            target = parse_address(listener, listening=True)
            self._transport = check_transport(self._transport, target)
            parse_address(target, self._transport, listening=True)
            self.family: Any = None
            self.address = target.path if target.path is not None else (target.host, target.port)
        self._transport = check_transport(self._transport)
        self._transport.check_listener()

    def set_spawn(self, spawn: Any) -> None:
        self._places: Any = Pool(spawn) if isinstance(spawn, int) and not isinstance(spawn, bool) else None
        if isinstance(spawn, Pool):
            self._places = spawn
        if self._places is None and spawn != "default":
            raise ConfigError(
                f"spawn={spawn!r}: a server process needs a greenlet of its own; pass a gevent Pool or its size"
            )
        super().set_spawn("default")

    @classmethod
    def get_listener(cls, address: Any, backlog: int | None = None, family: Any = None) -> Any:
        return listen(address, cls.backlog if backlog is None else backlog)

    def handle(self, sock: Any, address: Any) -> None:
        """Greet one client and start its server process. Parks; runs in the handshake group."""
        deadline = monotonic() + self.options["handshake_timeout"]
        try:
            connection = self._greeted(sock, address, deadline)
            if connection is not None:
                self._admit(connection)
        finally:
            self._handshakes.pop(gevent.getcurrent(), None)
            self._settle()

    def do_handle(self, sock: Any, address: Any) -> None:
        self.counts["accepted"] += 1
        if len(self._handshakes) >= self.options["max_handshakes"]:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.kill(block=False)
        greenlet = gevent.Greenlet(self.handle, sock, address)
        self._handshakes[greenlet] = None
        self._quiet.clear()
        greenlet.start()

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
            logger.info("accepting at %s again", self.address)
            self._accept_failure = None
            self._accept_delay = self.min_delay
        return accepted

    def _accept_failed(self, error: Exception) -> None:
        self.counts["accept_errors"] += 1
        if self.is_fatal_error(error):
            self._fatal = error
            self.close()
            return
        if str(error) != self._accept_failure:
            self._accept_failure = str(error)
            self._spawn_task(logger.error, "cannot accept at %s for now: %s", self.address, error)
        self.stop_accepting()
        # As BaseServer does it itself, but for its printing of a traceback each time.
        self._timer = self.loop.timer(self._accept_delay)
        self._timer.start(self._start_accepting_if_started)  # type: ignore[attr-defined, call-arg]
        self._accept_delay = min(self._accept_delay * 2, self.max_delay)

    # The life of one line.

    def _greeted(self, sock: Any, address: Any, deadline: float) -> ServerConnection | None:
        """A connection that has said a good hello, or None: its peer has been told why not."""
        try:
            stream = self._transport.accept(
                sock, address, self.options["handshake_timeout"], dead_after=self.options["dead_after"]
            )
        except PlaintextPeer as peer:
            self._reject(self._connection(peer.stream), peer, address, Refusal(Code.PLAINTEXT, "BadPacket", str(peer)))
            return None
        except Disconnected as error:
            self._log_rejected(address, error)
            return None
        connection = self._connection(stream)
        try:
            connection.await_hello(deadline)
        except ErpsError as error:
            self._reject(connection, error, stream.peer)
            return None
        except BaseException:
            connection.drop()
            raise
        return connection

    def _connection(self, stream: Stream) -> ServerConnection:
        chosen = self.options
        session = ServerSession(
            self._stamp,
            chosen["versions"],
            max_size=chosen["max_size"],
            compressed=chosen["compressed"],
            safe=chosen["safe"],
        )
        return ServerConnection(stream, session, chosen["send_timeout"], chosen["max_pending"])

    def _reject(
        self, connection: ServerConnection, error: ErpsError, peer: object, refusal: Refusal | None = None
    ) -> None:
        self._log_rejected(peer, error)
        if refusal is not None:
            connection.part(connection.session.refusal(None, refusal))
        elif isinstance(error, ProtocolError):
            connection.say_farewell(error)
        else:
            connection.drop()

    def _log_rejected(self, peer: object, error: Exception) -> None:
        self.counts["handshake_failures"] += 1
        logger.info("%s was not let in: %s", peer, error)

    def _admit(self, connection: ServerConnection) -> None:
        """Take a slot, start the process, welcome the client."""
        # The hello is in: from here on it is no silent peer, and may not be dropped as one.
        self._handshakes.pop(gevent.getcurrent(), None)
        limit = self.options["max_connections"]
        places = self._places
        if len(self._live) + self._starting >= limit or (places is not None and places.full()):
            self.counts["refused"] += 1
            connection.say_farewell(Overloaded("every server is taken; try again later", retry_after=1.0))
            return
        # atomic: from the look at the limit to here.
        self._starting += 1
        try:
            process = start_on(connection, self.server_class, *self._init)
        except ErpsError as error:
            connection.say_farewell(error)
            return
        except BaseException:
            connection.drop()
            raise
        finally:
            self._starting -= 1
        self._serve(process, connection)

    def _serve(self, process: Process, connection: ServerConnection) -> None:
        self.counts["served"] += 1
        self._live[process] = time.time()
        self._quiet.clear()
        if self._places is not None and process.greenlet is not None:
            self._places.add(process.greenlet)
        connection.welcome(None)
        if self._draining:
            connection.goaway()
        process.monitor(lambda _: self._ended(process, connection))

    def _ended(self, process: Process, connection: ServerConnection) -> None:
        """A server process is dead. Runs in its greenlet and must not park."""
        del self._live[process]
        reason, cause = process.reason, connection.cause
        if reason == DISCONNECTED:
            logger.info("%r of %s: %s", process.pid, connection.stream.peer, cause)
        if isinstance(cause, ProtocolError):
            self._spawn_task(connection.say_farewell, cause)
        elif cause is None:
            farewell = farewell_of(reason, self.options["expose_tracebacks"])
            self._spawn_task(connection.say_farewell, farewell)
        else:
            connection.drop()
        self._settle()

    def _spawn_task(self, function: Callable[..., Any], *args: Any) -> None:
        task = gevent.spawn(function, *args)
        self._tasks.add(task)
        task.rawlink(self._task_done)

    def _task_done(self, task: gevent.Greenlet[..., Any]) -> None:
        self._tasks.discard(task)
        self._settle()

    def _settle(self) -> None:
        if not (self._live or self._starting or self._handshakes or self._tasks):
            self._quiet.set()

    def _watch(self) -> None:
        """Look at the lines whose servers are busy: what their handlers park for does not silence the line."""
        while True:
            gevent.sleep(LOOK_EVERY)
            for process in list(self._live):
                connection = process.inbox
                if connection.parked is None and isinstance(connection, ServerConnection):
                    connection.look()

    # The face.

    def start(self) -> None:
        """Listen and accept. raises: StartError  the address is taken or cannot be bound."""
        self._draining = False
        super().start()
        self._watcher_task = gevent.spawn(self._watch)

    def serve_forever(self, stop_timeout: float | None = None) -> None:
        """Start if need be, and serve until stopped. Parks.

        raises: StartError  accepting has become impossible; the cause is chained.
        """
        super().serve_forever(stop_timeout)
        if self._fatal is not None:
            raise self._fatal

    def stop(self, timeout: float | None = None) -> None:
        """Stop accepting, have the clients move, and end the servers that are left after `timeout` seconds.

        timeout: None means `stop_timeout`, 10 s. A daemon whose clients are gone stops at once.
        switch:  parks for at most the timeout and KILL_AFTER.
        """
        self.close()
        self.drain(self.stop_timeout if timeout is None else timeout)
        for process in list(self._live):
            process.send(StopRequest(SHUTDOWN))
        for handshake in list(self._handshakes):
            handshake.kill(block=False)
        if not self._quiet.wait(KILL_AFTER):
            for process in list(self._live):
                process.die(KILLED)
        watcher = self.__dict__.pop("_watcher_task", None)
        if watcher is not None:
            watcher.kill(block=False)

    def drain(self, timeout: float | None = None) -> bool:
        """Ask all clients to move, and wait until they have; True if none is left.

        timeout: seconds; None waits for ever. New clients are welcomed and asked to move at once.
        switch:  parks.
        """
        self._draining = True
        for process in list(self._live):
            connection = process.inbox
            if isinstance(connection, ServerConnection):
                connection.goaway()
        return bool(self._quiet.wait(timeout))

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
            for process, since in self._live.items()
            if isinstance(connection := process.inbox, ServerConnection)
        ]

    def broadcast(self, message: Any) -> int:
        """Push `message` to every client that has room for it; return the count of those.

        raises: EncodeError  it cannot be sent; no client got it.
        switch: does not park: a client that does not read is left out, and logged.
        """
        reached = 0
        for process in list(self._live):
            connection = process.inbox
            assert isinstance(connection, ServerConnection)
            try:
                connection.push(message, timeout=0)
            except CallExit as error:
                logger.warning("broadcast left out %s: %s", connection.stream.peer, error)
            else:
                reached += 1
        return reached

    def info(self) -> dict[str, Any]:
        """How it is: address, servers, handshakes, limits, and counts since it was made."""
        return {
            "address": self.address,
            "accepting": self.started,
            "draining": self._draining,
            "servers": len(self._live),
            "handshakes": len(self._handshakes),
            "max_connections": self.options["max_connections"],
            "max_handshakes": self.options["max_handshakes"],
            **self.counts,
        }

    def __enter__(self) -> Any:
        self.start()
        return self
