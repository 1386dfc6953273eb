"""What a client keeps while it is open: its process and the healer of its line.

The handle refers to its Lifeline; the Lifeline, and the process's loop, hold the handle only weakly, so that a
forgotten client can close itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.exceptions import LoopExit
from gevent.lock import Semaphore

from erps_gevent.client_connection import ClientConnection
from erps_gevent.client_hub import ClientHub
from erps_gevent.client_loop import ClientLoop, Connected, Lost, Pushed
from erps_gevent.dialects import dialect_of
from erps_gevent.errors import CallingSelf, CallTimeout, Disconnected, Overloaded
from erps_gevent.healing import Healer, State
from erps_gevent.integrations import forks
from erps_gevent.otp.bridge import FORKED
from erps_gevent.otp.gen import dead_end, describe
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.messages import Event, StopRequest
from erps_gevent.otp.process import Pid, Process, current
from erps_gevent.otp.words import NORMAL
from erps_gevent.wire.packet import Stamp

CLOSED = "closed: this client was closed for good; make a new one"
DISCONNECTED = "disconnected"  # the exit reason of a client that does not heal: no quiet one, so that it is restarted
BYE_TIMEOUT = 2.0  # seconds that close() waits for the server to have read our bye


class Lifeline(ClientHub):
    """What a client keeps while it is open: its process, and the healer of its line. Everything runs in `hub`.

    callers: who made the client, and that one's callers, if it lives in their universe.
    """

    def __init__(
        self,
        client: GenServer,
        target: Any,
        transport: Any,
        chosen: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        callers: tuple[Pid, ...],
    ) -> None:
        super().__init__(chosen["hub"])
        self.client = weakref.ref(client)
        self.target = target
        self.transport = transport
        self.chosen = chosen
        self.init = args, kwargs
        self.callers = callers
        self.label = type(client).__name__
        self.stamp = Stamp(chosen["version"], chosen["identifier"])
        self.dialect = dialect_of(chosen["codec"])
        self.process: Process | None = None
        self.pushes_waiting = 0
        self.pushes = 0
        self.line: ClientConnection | None = None  # the newest
        self.late = 0  # replies that came too late, on the lines before it
        self._starting = Semaphore(1)
        self._beginning: AsyncResult[Healer] | None = None  # for those who wait while init runs
        self._stays_down = False  # disconnect() was called before a fork
        forks.watch(self)

    def begin(
        self,
        parent: Process | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
        owner: Any = None,
        prepare: Callable[[Process], object] | None = None,
    ) -> Healer:
        """Start the process, and then the dialling; once. Parks until init has returned.

        options, prepare: as for GenServer.start, and its _start.

        raises: StartError, StartIgnored, AlreadyStarted  as GenServer.start.
                Disconnected  the client is closed.
        """
        with self._starting:
            if self.healer is not None:
                return self.healer
            client = self.client()
            if self.closed or client is None:
                raise Disconnected(CLOSED, reason="closed")
            self.process = Process(Inbox(), self.label, parent)
            self.process.callers = self.callers
            loop = ClientLoop(self.process, client, *self.init, owner)
            del client
            loop.hibernate_after = options.get("hibernate_after")
            if prepare is not None:
                prepare(self.process)
            process = self.process
            loop.start(options.get("name"), options.get("timeout"))
            if self.process is not process:
                raise Disconnected(forks.FORKED_TEXT, reason=FORKED)
            self.healer = Healer(
                f"{self.label} of {self.target}",
                self.dial,
                self.connected,
                self.disconnected,
                reconnect=self.chosen["reconnect"],
                heal=self.chosen["heal"],
            )
            self._started(self.healer, self.process)
            return self.healer

    def ready(self, deadline: float | None = None) -> Healer:
        """The healer, when init has returned. Who cannot wait so long leaves it to the others. Parks.

        raises: as `begin`.
                CallTimeout   init has not returned by the deadline.
                CallingSelf   init itself calls the server.
        """
        if self.healer is not None:
            return self.healer
        if self.process is not None and self.process is current():
            text = "the line is made when init has returned; call the server in handle_connect or handle_continue"
            raise CallingSelf(text, reason="calling_self")
        if self._beginning is None:
            self._beginning = AsyncResult()
            gevent.spawn(self._begin_for, self._beginning)
        try:
            begun = self._beginning
            begun.wait(None if deadline is None else max(0.0, deadline - monotonic()))
            if not begun.ready():
                text = f"the init of {self.label} has not returned in time, and the line is made after it"
                raise CallTimeout(text, reason="timeout")
            return begun.get(block=False)  # type: ignore[return-value]
        except LoopExit as nothing:
            assert self.process is not None
            raise dead_end(self.process.pid) from nothing

    def _begin_for(self, waiting: AsyncResult[Healer]) -> None:
        try:
            waiting.set(self.begin())
        except Exception as error:  # noqa: BLE001  it is raised where the healer is waited for
            waiting.set_exception(error)
        finally:
            self._beginning = None

    def _started(self, healer: Healer, process: Process) -> None:
        if self.closed:
            # By somebody else, while init ran.
            healer.close(CLOSED)
            process.send(StopRequest(NORMAL))
        elif self._stays_down:
            healer.disconnect()
        else:
            healer.open()
        process.monitor(self.process_ended)

    def open(self) -> None:
        healer = self.ready()
        healer.open()

    def disconnect(self) -> None:
        healer = self.ready()
        healer.disconnect()
        healer.join(BYE_TIMEOUT)

    def close(self) -> None:
        self.closed = True
        # A begin() that is under way sees `closed` when its init has returned.
        if self.healer is not None:
            self.healer.close(CLOSED)
            self.healer.join(BYE_TIMEOUT)
            assert self.process is not None
            self.process.send(StopRequest(NORMAL))

    def process_ended(self, reason: Any) -> None:
        """The client's own process is gone, and with it whoever would take pushes: so is the line."""
        self.closed = True
        if self.healer is not None and self.healer.state is not State.CLOSED:
            text = CLOSED if reason is NORMAL else f"closed: the client's own process ended: {describe(reason)}"
            self.healer.close(text)

    def after_fork(self) -> None:
        """In a forked child: as new, to connect at the first use; but closed stays closed, and disconnected so."""
        healer, process = self.healer, self.process
        if healer is not None and healer.state is not State.IDLE:
            self._stays_down = healer.state is State.DOWN
        # The copy of the process is the parent's: its name still leads here, and nothing wakes it.
        forks.bury(self.hub, healer, process, self.line, self._starting, self._beginning)
        if not forks.is_lost(self.hub):
            self._let_go(healer, process)
        self.hub = self.process = self.healer = self.line = self._beginning = None
        self.in_thread = False
        self.pushes_waiting = 0
        self._starting = Semaphore(1)

    def _let_go(self, healer: Healer | None, process: Process | None) -> None:
        if healer is not None:
            healer.after_fork()
        if process is not None:
            process.inbox.retire()
        if self._beginning is not None:
            self._beginning.set_exception(Disconnected(forks.FORKED_TEXT, reason=FORKED))

    def is_open(self) -> bool:
        return self.process is not None and self.process.alive and not self.closed

    def dial(self, healer: Healer) -> ClientConnection:
        """A connection that has been welcomed. Parks, for connect_timeout at the most."""
        chosen = self.chosen
        timeout = chosen["connect_timeout"]
        deadline = None if timeout is None else monotonic() + timeout
        stream = self.transport.connect(self.target, timeout, dead_after=chosen["dead_after"])
        session = self.dialect.client_session(
            self.stamp,
            max_size=chosen["max_size"],
            compressed=chosen["compressed"],
            safe=chosen["safe"],
            signing=chosen["signing"],
        )
        line = self.dialect.client_connection(
            stream,
            session,
            chosen["send_timeout"],
            chosen["max_pending"],
            self.pushed,
            healer.moving,
            self.keep_up,
            **self.dialect.own(chosen),
        )
        try:
            line.greet(deadline)
        except BaseException:
            line.drop()
            raise
        intervals = [seconds for seconds in (chosen["keepalive"], session.keepalive_interval) if seconds is not None]
        if intervals:
            line.keepalive.start(min(intervals), chosen["dead_after"])
        return line

    def connected(self, line: ClientConnection) -> None:
        if self.line is not None:
            self.late += self.line.late
        self.line = line
        self._tell(Connected(line.stream.peer))

    def disconnected(self, error: Exception) -> None:
        self._tell(Lost(error))
        if not self.chosen["heal"]:
            self._tell(StopRequest(DISCONNECTED))

    def pushed(self, message: Any) -> None:
        if self.pushes_waiting >= self.chosen["max_pushes"]:
            # While the client moves, the newest line is the one that is being left.
            line = self.healer.line if self.healer is not None and self.healer.line is not None else self.line
            if line is not None:
                text = f"{self.pushes_waiting} pushes wait for handle_push; make it faster, or raise max_pushes"
                line.lose(Overloaded(text, reason="overloaded", sent=True))
            return
        self.pushes_waiting += 1
        self.pushes += 1
        self._tell(Pushed(message))

    def keep_up(self) -> None:
        """Let handle_push take its turns while it gets on, so that a burst is none of its faults. Parks for turns only.

        A handler that is parked, perhaps in a call on this very line, does not keep the reader waiting.
        """
        while (waiting := self.pushes_waiting) > self.chosen["max_pushes"] // 4:
            gevent.sleep(0)
            if self.pushes_waiting >= waiting:
                return

    def _tell(self, event: Event) -> None:
        if self.process is not None:
            self.process.send(event)

    def stats(self) -> dict[str, int]:
        healer = self.healer
        counts = dict(healer.counts) if healer else {"connects": 0, "failed_attempts": 0, "lost": 0, "moves": 0}
        late, pending = (self.line.late, len(self.line.pending)) if self.line else (0, 0)
        return {**counts, "pushes": self.pushes, "late_replies": self.late + late, "pending": pending}

    def _unused(self) -> str:
        return "closed" if self.closed else "down" if self._stays_down else "idle"

    def info(self) -> dict[str, Any]:
        healer = self.healer
        state = healer.state.name.lower() if healer else self._unused()
        return {
            "state": state,
            "hub": None if self.hub is None else "thread" if self.in_thread else "here",
            "address": str(self.target),
            "identifier": self.stamp.identifier,
            "version": ".".join(map(str, self.chosen["version"])),
            "cause": healer.cause if healer else None,
        }
