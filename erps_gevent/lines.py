"""The lines of one daemon, from the accepted socket to the last word.

    accept ──▶ handshake group: TLS, hello ──▶ slot ──▶ server process: init ──▶ welcome ──▶ it reads and serves
               at most max_handshakes,         none free:   at the end of the line
               handshake_timeout each          Overloaded

A peer that has not said hello holds no slot, only a place in the handshake group, and the oldest there is dropped for
a new one. Nothing that a peer does ends anything but its own line.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

import gevent
from gevent.event import Event
from gevent.pool import Pool, PoolFull

from erps_gevent.dialects import dialect_of
from erps_gevent.errors import ErpsError, Overloaded, ProtocolError
from erps_gevent.observing import Observer, observed
from erps_gevent.otp.messages import StopRequest
from erps_gevent.otp.process import Process
from erps_gevent.otp.words import KILLED, SHUTDOWN
from erps_gevent.server import RETRY_AFTER, farewell_of, regret_of
from erps_gevent.server_connection import DISCONNECTED, ServerConnection
from erps_gevent.transport.held import hold
from erps_gevent.transport.tcp import Stream, Transport
from erps_gevent.transport.tls_stream import PlaintextPeer
from erps_gevent.wire.packet import Stamp
from erps_gevent.wire.refusals import Code, Refusal

logger = logging.getLogger("erps_gevent")

LOOK_EVERY = 1.0  # seconds between looks at the lines of servers that are busy or parked in a handler
AGE_JITTER = 0.1  # share of max_connection_age by which lines differ, so that not all of them move at once
KILL_AFTER = 1.0  # seconds that servers have for their terminate once the drain deadline has passed

Handshake: TypeAlias = "gevent.Greenlet[..., Any]"


class Lines:
    """Who is being greeted, who is served, and who still has something to hear.

    transport: makes a stream of an accepted socket.
    options:   the daemon's and its server class's, all of them.
    places:    the pool that server processes run in, or None.
    observer:  who is told of each call, or None.
    start:     starts the server process at the end of a connection; parks until its init has returned.
    """

    def __init__(
        self,
        transport: Transport,
        options: Mapping[str, Any],
        places: Pool | None,
        start: Callable[[ServerConnection], Process],
    ) -> None:
        self.live: dict[Process, float] = {}  # when each began, in seconds since the epoch; oldest first
        self.handshakes: dict[Handshake, None] = {}  # oldest first
        self.draining = False
        self.abandoned = False
        self._due: dict[Process, float] = {}  # when each is asked to move, on the monotonic clock
        self._calls = 0  # answered on lines that have ended
        self.counts = {"accepted": 0, "handshake_failures": 0, "refused": 0, "served": 0}
        self._transport = transport
        self._options = options
        self._dialect = dialect_of(options["codec"])
        self.places = places
        self.observer: Observer | None = None
        self._start = start
        self._stamp = Stamp((0, 0, 0), options["identifier"])
        self._starting: set[Handshake] = set()
        self._tasks: set[gevent.Greenlet[..., Any]] = set()
        self._quiet = Event()
        self._quiet.set()

    def accept(self, handle: Callable[[Any, Any], None], sock: Any, address: Any) -> None:
        """Have `handle(sock, address)` run in the handshake group. Does not park."""
        self.counts["accepted"] += 1
        if len(self.handshakes) >= self._options["max_handshakes"]:
            oldest = next(iter(self.handshakes))
            del self.handshakes[oldest]
            oldest.kill(block=False)
        handshake: Handshake = gevent.Greenlet(handle, hold(sock), address)

        def over(_: Any) -> None:
            # It may have been dropped before it ran at all.
            sock.close()
            self.handshakes.pop(handshake, None)
            self._settle()

        handshake.rawlink(over)
        self.handshakes[handshake] = None
        self._quiet.clear()
        handshake.start()

    def greet(self, sock: Any, address: Any) -> ServerConnection | None:
        """A connection that has said a good hello, or None: its peer has been told why not. Parks."""
        timeout = self._options["handshake_timeout"]
        deadline = monotonic() + timeout
        try:
            stream = self._transport.accept(sock, address, timeout, dead_after=self._options["dead_after"])
        except PlaintextPeer as peer:
            if peer.stream is not None:
                refusal = Refusal(Code.PLAINTEXT, "BadPacket", PLAINTEXT)
                self._reject(self._connection(peer.stream), peer, address, refusal)
            return None
        except ErpsError as error:
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
        chosen, dialect = self._options, self._dialect
        make = dialect.server_connection
        if self.observer is not None:
            make = partial(observed, make, self.observer)
        session = dialect.server_session(
            self._stamp,
            chosen["versions"],
            max_size=chosen["max_size"],
            compressed=chosen["compressed"],
            safe=chosen["safe"],
            signing=chosen["signing"],
        )
        return make(stream, session, chosen["send_timeout"], chosen["max_pending"], **dialect.own(chosen))

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

    def admit(self, connection: ServerConnection) -> None:
        """Take a slot, start the process, welcome the client. Parks; runs in the handshake's greenlet."""
        # The hello is in: from here on it is no silent peer, and may not be dropped as one.
        me: Any = gevent.getcurrent()
        self.handshakes.pop(me, None)
        if not self._took_slot(me):
            self.counts["refused"] += 1
            text = "every server is taken (max_connections, or the pool given as spawn=); try again later"
            self.later(connection.say_farewell, Overloaded(text, retry_after=RETRY_AFTER))
            return
        self._starting.add(me)
        try:
            process = self._start(connection)
        except ErpsError as error:
            self._leave_slot(me)
            self.counts["refused"] += isinstance(error, Overloaded)
            self.later(connection.say_farewell, regret_of(error))
            return
        except BaseException:
            connection.drop()
            raise
        finally:
            self._starting.discard(me)
        # atomic: from giving the slot back to taking it for the process.
        self._leave_slot(me)
        greenlet: Any = process.greenlet
        if self.places is not None:
            self.places.add(greenlet, blocking=False)
        self._serve(process, connection)

    def _took_slot(self, me: Handshake) -> bool:
        if len(self.live) + len(self._starting) >= self._options["max_connections"]:
            return False
        if self.places is not None:
            try:
                self.places.add(me, blocking=False)
            except PoolFull:
                return False
        return True

    def _leave_slot(self, me: Handshake) -> None:
        if self.places is not None:
            self.places.discard(me)

    def _serve(self, process: Process, connection: ServerConnection) -> None:
        self.counts["served"] += 1
        self.live[process] = time.time()
        self._quiet.clear()
        connection.welcome(None)
        if (age := self._options["max_connection_age"]) is not None:
            self._due[process] = monotonic() + age * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
        if self.draining:
            connection.goaway()
        process.monitor(lambda _: self._ended(process, connection))

    def _ended(self, process: Process, connection: ServerConnection) -> None:
        """A server process is dead. Runs in its greenlet and must not park."""
        self.live.pop(process, None)  # a fork has removed it
        self._due.pop(process, None)
        self._calls += connection.calls_served
        reason, cause = connection.exit_reason, connection.cause
        connection.exit_reason = None  # an exception holds the frames that it came through
        if reason is DISCONNECTED:
            logger.info("%r of %s: %s", process.pid, connection.stream.peer, cause)
        if isinstance(cause, ProtocolError):
            self.later(connection.say_farewell, cause)
        elif cause is None:
            self.later(connection.say_farewell, farewell_of(reason, self._options["expose_tracebacks"]))
        else:
            connection.drop()
        self._settle()

    def later(self, function: Callable[..., Any], *args: Any) -> None:
        """Run it in a greenlet that the drain waits for."""
        task = gevent.spawn(function, *args)
        self._tasks.add(task)
        self._quiet.clear()
        task.rawlink(self._task_done)

    def _task_done(self, task: gevent.Greenlet[..., Any]) -> None:
        self._tasks.discard(task)
        self._settle()

    def _settle(self) -> None:
        if not (self.live or self._starting or self.handshakes or self._tasks):
            self._quiet.set()

    def watch(self) -> None:
        """Look at the lines whose servers are busy: what their handlers park for does not silence the line."""
        while self.live or not self.abandoned:
            gevent.sleep(LOOK_EVERY)
            self._move_the_old()
            for connection in self.connections():
                # A server that listens to its line is parked with the watcher; any other is busy or parked elsewhere.
                if not connection.listening:
                    connection.look()
                    gevent.sleep(0)

    def _move_the_old(self) -> None:
        """Ask the clients whose lines are older than max_connection_age to move."""
        now = monotonic()
        for process in [process for process, due in self._due.items() if due <= now]:
            del self._due[process]
            if isinstance(process.inbox, ServerConnection):
                process.inbox.goaway()

    @property
    def calls(self) -> int:
        """Count of calls answered, on lines that have ended too."""
        return self._calls + sum(connection.calls_served for connection in self.connections())

    def connections(self, *, supervised: bool = True) -> Iterator[ServerConnection]:
        """Those that are served, oldest first."""
        for process in self._left(supervised):
            if isinstance(process.inbox, ServerConnection):
                yield process.inbox

    def drain(self, timeout: float | None) -> bool:
        """Ask all clients to move, and wait until they have; True if none is left. Parks."""
        self.draining = True
        for connection in self.connections():
            connection.goaway()
        return bool(self._quiet.wait(timeout))

    def abandon(self) -> None:
        """Their daemon is dead: end all but the servers that have a supervisor, which live on. Does not park."""
        self.abandoned = True
        gevent.spawn(self.end, supervised=False)

    def end(self, *, supervised: bool = True) -> None:
        """End what is left: politely, then not. Parks for at most twice KILL_AFTER.

        supervised: False leaves the servers alone that have a supervisor.
        """
        for process in self._left(supervised):
            process.send(StopRequest(SHUTDOWN))
        for handshake in (*self.handshakes, *self._starting):
            handshake.kill(block=False)
        if self._quiet.wait(KILL_AFTER):
            return
        for process in self._left(supervised):
            process.die(KILLED)
        if not self._quiet.wait(KILL_AFTER):
            for connection in self.connections(supervised=supervised):
                logger.error("the server of %s does not end; its line is cut", connection.stream.peer)
                connection.drop()

    def after_fork(self) -> None:
        """In a forked child: end what greets and says goodbye. Server processes are never woken again."""
        self.abandoned = True
        for greenlet in (*self.handshakes, *self._starting, *self._tasks):
            greenlet.kill(block=False)
        if self.places is not None:
            for process in self.live:
                runner: Any = process.greenlet
                self.places.discard(runner)
        self.live.clear()

    def _left(self, supervised: bool) -> list[Process]:
        return [process for process in self.live if supervised or process.parent is None]


PLAINTEXT = "this port speaks TLS: connect with transport=Tls(ca=..., cert=..., key=...), not Tcp()"
