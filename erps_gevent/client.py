"""Client: a handle for one remote server process, with callbacks of its own.

The handle is a front. What lives as long as the line, the `Lifeline`, holds it only weakly, so that a forgotten client
can close itself:

    Client (the user's)  ──▶  Lifeline ──▶ Healer ──▶ ClientConnection      calls and casts take this path,
       ▲      weak               │                         │                in the caller's greenlet
       └──── ClientLoop ◀── mailbox ◀── pushes, connects, losses ◀──────    and callbacks this one, in the process
"""

from __future__ import annotations

import warnings
import weakref
from time import monotonic
from typing import Any, ClassVar

import gevent
from gevent import getcurrent
from gevent.hub import Hub, get_hub
from gevent.lock import Semaphore
from gevent.monkey import get_original, is_module_patched

from erps_gevent import options
from erps_gevent.connection import ClientConnection
from erps_gevent.errors import CallExit, ConfigError, Disconnected, Exit, Overloaded
from erps_gevent.healing import Healer, State
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.gen import describe
from erps_gevent.otp.gen_server import GenServer, Loop
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.messages import Event, StopRequest
from erps_gevent.otp.process import Pid, Process
from erps_gevent.otp.reasons import NORMAL
from erps_gevent.transport.address import Peer, parse_address
from erps_gevent.transport.tcp import check_transport
from erps_gevent.wire.packet import Stamp
from erps_gevent.wire.session import ClientSession

_allocate_lock = get_original("_thread", "allocate_lock")
_choosing = _allocate_lock()

BYE_TIMEOUT = 2.0  # seconds that close() waits for the server to have read our bye


class Client(GenServer):
    """Subclass it for callbacks, or use it as it is.

    address:   `(host, port)`, the path of a unix socket, or a URL: `erps://host:4747`.
    args:      for `init`, which runs in the client's process when it is started.
    transport: `Tls(...)`, `OneWayTls(...)` or `Tcp()`; there is no default.
    options:   see the table in README.md; an option given here wins over the class keyword.
    raises:    ConfigError  an option, the address or the transport is wrong.
               TypeError    there is no such option, or the arguments do not fit init.

    Constructing it never touches the network. The first call, cast, connect() or `with` starts it.
    """

    OPTIONS: ClassVar[dict[str, Option]] = options.CLIENT
    class_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, address: Any, *args: Any, transport: Any = None, **kwargs: Any) -> None:
        given, arguments = behaviour.split(kwargs, self.OPTIONS)
        chosen = {name: option.default for name, option in self.OPTIONS.items()}
        chosen.update(self.class_options)
        chosen.update(behaviour.checked(given, self.OPTIONS, type(self).__name__))
        behaviour.bind(type(self), args, arguments, ["transport", *self.OPTIONS])
        target = parse_address(address)
        checked = check_transport(transport, target)
        parse_address(target, checked)
        checked.check_target(target)
        self._lifeline = Lifeline(self, target, checked, chosen, args, arguments)

    # Callbacks.

    def handle_connect(self, peer: Peer) -> Any:
        """The line is up, after the server's welcome: at first, after healing, and after a move."""

    def handle_disconnect(self, error: Exception) -> Any:
        """The line was lost, or an attempt to bring it up failed for a new reason."""

    def handle_push(self, message: Any) -> Any:
        """The server has pushed `message`. Runs in the client's process, which lives in the client's hub."""

    # The handle.

    def call(self, request: Any, timeout: float | None = 5.0, wait: bool = False) -> Any:
        """Ask the server process and return its reply.

        request: any value of the types in README.md.
        timeout: seconds for everything: waiting for the line, sending, waiting for the answer; None waits for ever.
        wait:    True waits within the timeout while the line is down; False fails at once.
        raises:  ErrorReply    the handler refused.
                 CallTimeout   no answer in time; `.sent` tells whether the request may have been executed.
                 Disconnected  the line is down or was lost; `.sent` likewise, the cause is chained.
                 ServerExit, BadReturn  the server process ended before it answered.
                 Overloaded    refused before it was started.
                 EncodeError   the request cannot be sent; nothing was.
        switch:  parks this greenlet; in a plain thread, the thread.
        source:  GenServer.call/3
        """
        lifeline = self._lifeline
        hub = lifeline.hub or lifeline.choose_hub()
        if bridge.is_foreign(hub):
            return bridge.run_in(hub, lifeline.call, request, timeout, wait)
        return lifeline.call(request, timeout, wait)

    def cast(self, request: Any, timeout: float | None = 5.0, wait: bool = False) -> None:
        """Tell the server process, without waiting for its handler.

        request, timeout, wait: as for call; the timeout covers waiting for the line and for room to send.
        raises:  Disconnected  the line is down; nothing was sent.
                 CallTimeout   no line, or no room, in time; nothing was sent.
                 EncodeError   the request cannot be sent; nothing was.
        switch:  parks while the line is being made, or is full.
        source:  GenServer.cast/2; unlike it, a line that is down is an error.
        """
        self._run(self._lifeline.cast, request, timeout, wait)

    def connect(self) -> None:
        """Start, or end a disconnect() or a back-off, and return; `wait_connected` waits for the outcome."""
        self._run(self._lifeline.open)

    def wait_connected(self, timeout: float | None = 5.0) -> None:
        """Wait until the line is up, through failed attempts too; starts the client if need be.

        raises: CallTimeout   it is not up in time; the cause is chained.
                Disconnected  it is down by disconnect() or close().
        """
        self._run(self._lifeline.wait_connected, timeout)

    def disconnect(self) -> None:
        """Say bye and stay down until connect(). Calls raise Disconnected meanwhile. Parks until the bye is said."""
        self._run(self._lifeline.disconnect)

    def close(self) -> None:
        """Say bye and end the client's process, for good. Idempotent. Parks until the bye is said."""
        lifeline = self._lifeline
        lifeline.closed = True
        if lifeline.hub is not None:
            self._run(lifeline.close)

    @property
    def connected(self) -> bool:
        """True if the line is up."""
        healer = self._lifeline.healer
        return healer is not None and healer.state is State.UP

    @property
    def peer(self) -> Peer | None:
        """Who is at the other end: address, certificate subject and names. None while the line is down."""
        healer = self._lifeline.healer
        return healer.line.stream.peer if healer is not None and healer.line is not None else None

    @property
    def stats(self) -> dict[str, int]:
        """Counts since the start: connects, failed_attempts, lost, moves, pushes, late_replies, pending."""
        return self._lifeline.stats()

    def info(self) -> dict[str, Any]:
        """How it is: state, hub ("here", "thread" or None), address, peer, identifier, version, cause, stats."""
        return {**self._lifeline.info(), "peer": self.peer, "stats": self.stats}

    def __enter__(self) -> Any:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        lifeline = getattr(self, "_lifeline", None)
        if lifeline is not None and lifeline.is_open():
            warnings.warn(f"unclosed client of {lifeline.target}", ResourceWarning, stacklevel=2, source=self)
            lifeline.closed = True
            lifeline.hub.loop.run_callback_threadsafe(gevent.spawn, lifeline.close)

    def __repr__(self) -> str:
        info = self._lifeline.info()
        return f"<{type(self).__name__} of {info['address']}, {info['state']}>"

    def _run(self, function: Any, *args: Any) -> Any:
        hub = self._lifeline.hub or self._lifeline.choose_hub()
        if bridge.is_foreign(hub):
            return bridge.run_in(hub, function, *args)
        return function(*args)

    @classmethod
    def _start(cls, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Process | None) -> Pid:
        given, rest = behaviour.split(kwargs, cls.START_OPTIONS)
        checked = behaviour.checked(given, cls.START_OPTIONS, f"{cls.__name__}.start")
        client = cls(*args, **rest)
        lifeline = client._lifeline
        lifeline.choose_hub()
        lifeline.begin(parent, checked.get("name"), checked.get("timeout"), owner=client)
        assert lifeline.process is not None
        return lifeline.process.pid


class _Connected(Event):
    __slots__ = ("peer",)

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    def deliver(self, server: Client) -> Any:
        return server.handle_connect(self.peer)


class _Lost(Event):
    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def deliver(self, server: Client) -> Any:
        return server.handle_disconnect(self.error)


class _Pushed(Event):
    __slots__ = ("message",)

    def __init__(self, message: Any) -> None:
        self.message = message

    def deliver(self, server: Client) -> Any:
        server._lifeline.pushes_waiting -= 1
        return server.handle_push(self.message)


class ClientLoop(Loop):
    """The loop of a client's process, which keeps the handle alive only while a callback runs.

    owner: the client itself if it was started as an OTP process, which nobody else refers to.
    """

    def __init__(
        self, process: Process, client: Client, args: tuple[Any, ...], kwargs: dict[str, Any], owner: Client | None
    ) -> None:
        super().__init__(process, client, args, kwargs)
        self.weak = weakref.ref(client)
        self.instance = owner  # type: ignore[assignment]

    def server(self) -> Client:
        client = self.weak()
        if client is None:
            raise Exit(NORMAL)
        return client


class Lifeline:
    """What a client keeps while it is open: its process, and the healer of its line. Everything runs in `hub`."""

    def __init__(
        self,
        client: Client,
        target: Any,
        transport: Any,
        chosen: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.client = weakref.ref(client)
        self.target = target
        self.transport = transport
        self.chosen = chosen
        self.init = args, kwargs
        self.label = type(client).__name__
        self.stamp = Stamp(chosen["version"], chosen["identifier"])
        self.hub: Hub | None = None
        self.in_thread = False
        self.process: Process | None = None
        self.healer: Healer | None = None
        self.closed = False
        self.pushes_waiting = 0
        self.pushes = 0
        self.late = 0
        self._starting = Semaphore(1)

    def choose_hub(self) -> Hub:
        """Decide, once, which hub owns the socket."""
        with _choosing:
            if self.hub is None:
                if self.closed:
                    raise Disconnected("closed", reason="closed")
                wanted = self.chosen["hub"]
                cooperative = is_module_patched("threading") or getcurrent().parent is not None
                self.in_thread = wanted == "thread" or (wanted == "auto" and not cooperative)
                if self.in_thread:
                    from erps_gevent.integrations.threads import hub_thread

                    self.hub = hub_thread()
                else:
                    self.hub = get_hub()
            return self.hub

    def begin(
        self, parent: Process | None = None, name: str | None = None, timeout: float | None = None, owner: Any = None
    ) -> Healer:
        """Start the process, and then the dialling; once. Parks until init has returned."""
        with self._starting:
            if self.closed:
                raise Disconnected("closed", reason="closed")
            if self.healer is None:
                client = self.client()
                assert client is not None
                self.process = Process(Inbox(), self.label, parent)
                ClientLoop(self.process, client, *self.init, owner).start(name, timeout)
                del client
                self.process.gateway = self
                self.healer = Healer(
                    f"{self.label} of {self.target}",
                    self.dial,
                    self.connected,
                    self.disconnected,
                    reconnect=self.chosen["reconnect"],
                    heal=self.chosen["heal"],
                )
                self.healer.open()
                self.process.monitor(self.process_ended)
            return self.healer

    def open(self) -> None:
        healer = self.healer or self.begin()
        healer.open()

    def call(self, request: Any, timeout: float | None = 5.0, wait: bool = False) -> Any:
        deadline = None if timeout is None else monotonic() + _seconds(timeout)
        healer = self.healer or self.begin()
        line = healer.line
        try:
            # A line that is up and has room, which is nearly always, is used without asking further.
            if line is None or line.cause is not None or healer.state is not State.UP or line.outbox.size:
                line = healer.usable(deadline, wait)
            return line.call(request, timeout, deadline)
        except CallExit as error:
            error.request = request
            raise

    def cast(self, request: Any, timeout: float | None = 5.0, wait: bool = False) -> None:
        deadline = None if timeout is None else monotonic() + _seconds(timeout)
        healer = self.healer or self.begin()
        try:
            healer.usable(deadline, wait).cast(request)
        except CallExit as error:
            error.request = request
            raise

    def wait_connected(self, timeout: float | None) -> None:
        deadline = None if timeout is None else monotonic() + _seconds(timeout)
        (self.healer or self.begin()).usable(deadline, wait=True)

    def disconnect(self) -> None:
        healer = self.healer or self.begin()
        healer.disconnect()
        healer.join(BYE_TIMEOUT)

    def close(self) -> None:
        if self.healer is not None:
            self.healer.close()
            self.healer.join(BYE_TIMEOUT)
        if self.process is not None:
            self.process.send(StopRequest(NORMAL))

    def process_ended(self, reason: Any) -> None:
        """The client's own process is gone, and with it whoever would take pushes: so is the line."""
        self.closed = True
        if self.healer is not None and self.healer.state is not State.CLOSED:
            text = "closed" if reason is NORMAL else f"closed: the client's own process ended: {describe(reason)}"
            self.healer.close(text)

    def is_open(self) -> bool:
        return self.process is not None and self.process.alive and not self.closed

    def dial(self, healer: Healer) -> ClientConnection:
        """A connection that has been welcomed. Parks, for connect_timeout at the most."""
        chosen = self.chosen
        timeout = chosen["connect_timeout"]
        deadline = None if timeout is None else monotonic() + timeout
        stream = self.transport.connect(self.target, timeout, dead_after=chosen["dead_after"])
        session = ClientSession(
            self.stamp, max_size=chosen["max_size"], compressed=chosen["compressed"], safe=chosen["safe"]
        )
        line = ClientConnection(
            stream, session, chosen["send_timeout"], chosen["max_pending"], self.pushed, healer.moving
        )
        try:
            line.greet(deadline)
        except BaseException:
            line.drop()
            raise
        intervals = [seconds for seconds in (chosen["keepalive"], session.keepalive_interval) if seconds is not None]
        if intervals:
            line.keep_alive(min(intervals), chosen["dead_after"])
        return line

    def connected(self, line: ClientConnection) -> None:
        self._tell(_Connected(line.stream.peer))

    def disconnected(self, error: Exception) -> None:
        self._tell(_Lost(error))

    def pushed(self, message: Any) -> None:
        if self.pushes_waiting >= self.chosen["max_pushes"]:
            healer = self.healer
            if healer is not None and healer.line is not None:
                text = f"{self.pushes_waiting} pushes wait for handle_push; make it faster, or raise max_pushes"
                healer.line.lose(Overloaded(text, reason="overloaded", sent=True))
            return
        self.pushes_waiting += 1
        self.pushes += 1
        self._tell(_Pushed(message))

    def _tell(self, event: Event) -> None:
        if self.process is not None:
            self.process.send(event)

    def stats(self) -> dict[str, int]:
        healer = self.healer
        counts = dict(healer.counts) if healer else {"connects": 0, "failed_attempts": 0, "lost": 0, "moves": 0}
        line = healer.line if healer else None
        late, pending = (line.late, len(line.pending)) if line else (0, 0)
        return {**counts, "pushes": self.pushes, "late_replies": self.late + late, "pending": pending}

    def info(self) -> dict[str, Any]:
        healer = self.healer
        state = healer.state.name.lower() if healer else "closed" if self.closed else "idle"
        return {
            "state": state,
            "hub": None if self.hub is None else "thread" if self.in_thread else "here",
            "address": str(self.target),
            "identifier": self.stamp.identifier,
            "version": ".".join(map(str, self.chosen["version"])),
            "cause": healer.cause if healer else None,
        }


def _seconds(timeout: Any) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout < 0:
        raise ConfigError(f"timeout is seconds of at least 0, or None for ever, not {timeout!r}")
    return timeout
