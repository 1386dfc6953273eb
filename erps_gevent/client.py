"""Client: a handle for one remote server process, with callbacks of its own.

The handle is a front. What lives as long as the line, the `Lifeline`, holds it only weakly, so that a forgotten client
can close itself:

    Client (the user's)  ──▶  Lifeline ──▶ Healer ──▶ ClientConnection      calls and casts take this path,
       ▲      weak               │                         │                in the caller's greenlet
       └──── ClientLoop ◀── mailbox ◀── pushes, connects, losses ◀──────    and callbacks this one, in the process
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import gevent
from gevent.hub import get_hub

from erps_gevent import options
from erps_gevent.errors import ConfigError, Disconnected
from erps_gevent.healing import State
from erps_gevent.lifeline import BYE_TIMEOUT, Lifeline
from erps_gevent.otp import behaviour, universe
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.child_spec import child_spec_of
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.process import Pid, Process
from erps_gevent.transport.address import Peer, parse_address
from erps_gevent.transport.tcp import check_transport


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
    OWN_ATTRIBUTES: ClassVar[frozenset[str]] = GenServer.OWN_ATTRIBUTES | {"_lifeline"}
    START_OPTIONS: ClassVar[dict[str, Option]] = {
        name: GenServer.START_OPTIONS[name] for name in ("name", "timeout", "hibernate_after")
    }
    class_options: ClassVar[dict[str, Any]] = {}

    def __init__(self, address: Any, *args: Any, transport: Any = None, **kwargs: Any) -> None:
        given, arguments = behaviour.split(kwargs, self.OPTIONS)
        chosen = {name: option.default for name, option in self.OPTIONS.items()}
        chosen.update(self.class_options)
        chosen.update(behaviour.checked(given, self.OPTIONS, type(self).__name__))
        options.check_together(chosen, type(self).__name__)
        behaviour.bind(type(self), args, arguments, ["transport", *self.OPTIONS])
        target = parse_address(address)
        checked = check_transport(transport, target)
        parse_address(target, checked)
        checked.check_target(target)
        callers = universe.link() if chosen["forward_callers"] else ()
        self._lifeline = Lifeline(self, target, checked, chosen, args, arguments, callers)

    # Callbacks.

    def handle_connect(self, peer: Peer) -> Any:
        """The line is up, after the server's welcome: at first, after healing, and after a move."""

    def handle_disconnect(self, error: Exception) -> Any:
        """The line was lost, or an attempt to bring it up failed for a new reason."""

    def handle_push(self, message: Any) -> Any:
        """The server has pushed `message`. Runs in the client's process, a greenlet of the client's hub, one at a time.

        With hub="thread" that is a thread of the library's, beside the program's: it runs while the program computes,
        so what it shares with the program wants a lock, and to hand a message on, queue.SimpleQueue does. With
        hub="here" it runs while the program's greenlets wait. In both, a handler that waits in gevent's ways lets the
        lines go on; one that computes, or waits natively, stops every line of its hub meanwhile: replies, keepalives,
        healing. Leave such work to `self.run_blocking(function, *args)`.
        """

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
        return self._lifeline.call(request, timeout, wait)

    def cast(self, request: Any, timeout: float | None = 5.0, wait: bool = False) -> None:
        """Tell the server process, without waiting for its handler.

        request, timeout, wait: as for call; the timeout covers waiting for the line and for room to send.
        raises:  Disconnected  the line is down; nothing was sent.
                 CallTimeout   no line, or no room, in time; nothing was sent.
                 EncodeError   the request cannot be sent; nothing was.
        switch:  parks while the line is being made, or is full.
        source:  GenServer.cast/2; unlike it, a line that is down is an error.
        """
        self._lifeline.cast(request, timeout, wait)

    def connect(self) -> None:
        """Start, or end a disconnect() or a back-off, and return; `wait_connected` waits for the outcome."""
        self._lifeline.run(self._lifeline.open)

    def wait_connected(self, timeout: float | None = 5.0) -> None:
        """Wait until the line is up, through failed attempts too; starts the client if need be.

        raises: CallTimeout   it is not up in time; the cause is chained.
                Disconnected  it is down by disconnect() or close().
        """
        self._lifeline.wait_connected(timeout)

    def disconnect(self) -> None:
        """Say bye and stay down until connect(). Calls raise Disconnected meanwhile. Parks until the bye is said."""
        self._lifeline.run(self._lifeline.disconnect, patience=BYE_TIMEOUT)

    def close(self) -> None:
        """Say bye and end the client's process, for good. Idempotent. Parks until the bye is said."""
        lifeline = self._lifeline
        lifeline.closed = True
        # The end of the thread whose hub it was has ended the line, perhaps just now.
        if lifeline.hub is not None and not lifeline.hub.dead:
            try:
                lifeline.run(lifeline.close, patience=BYE_TIMEOUT)
            except Disconnected as error:
                if error.reason != "thread_ended":
                    raise

    @property
    def connected(self) -> bool:
        """True if the line is up."""
        healer = self._lifeline.healer
        return healer is not None and healer.state is State.UP

    @property
    def peer(self) -> Peer | None:
        """Who is at the other end: address, certificate subject and names. None while the line is down."""
        healer = self._lifeline.healer
        # Read once: the hub of the line may be another thread's, and lose it between two looks.
        line = healer.line if healer is not None else None
        return line.stream.peer if line is not None else None

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
        lifeline: Lifeline | None = getattr(self, "_lifeline", None)
        # A program that ends may leave its clients open; only one that is forgotten before was left by mistake.
        if lifeline is None or not lifeline.is_open() or sys.is_finalizing():
            return
        lifeline.closed = True
        # A hub that was destroyed has taken the greenlets along.
        if lifeline.hub is not None and lifeline.hub.loop is not None:
            lifeline.hub.loop.run_callback_threadsafe(gevent.spawn, lifeline.close)
        text = f"{self!r} was never closed: use `with`, or call close()"
        warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        info = self._lifeline.info()
        return f"<{type(self).__name__} of {info['address']}, {info['state']}>"

    @classmethod
    def child_spec(cls, address: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The child of a supervisor that is started with these arguments of start_link.

        kwargs: options, and `id`, the class and the address if there is none, `restart` and `shutdown`.
        raises: as the constructor.

        A client heals by itself, and its supervisor has nothing to do. With heal=False it ends with its line, with the
        reason "disconnected", and it is the supervisor that has another one connect.
        source: Erps.Client.child_spec/1
        """
        start, options = behaviour.split(kwargs, cls.START_OPTIONS)
        behaviour.checked(start, cls.START_OPTIONS, f"{cls.__name__}.child_spec")
        chosen = cls(address, *args, **options)._lifeline.chosen
        id_ = cls, tuple(address) if isinstance(address, list) else address
        return child_spec_of(id_, cls.start_link, (address, *args), kwargs, chosen)

    @classmethod
    def _start(
        cls,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parent: Process | None,
        prepare: Callable[[Process], object] | None = None,
    ) -> Pid:
        given, rest = behaviour.split(kwargs, cls.START_OPTIONS)
        checked = behaviour.checked(given, cls.START_OPTIONS, f"{cls.__name__}.start")
        client = cls(*args, **rest)
        lifeline = client._lifeline
        hub = lifeline.choose_hub()
        if (parent is not None and parent.hub is not hub) or (prepare is not None and hub is not get_hub()):
            text = "cannot be linked to, or monitored by, a process of another hub"
            raise ConfigError(f'hub="thread" {text}; use hub="here", or start()')
        try:
            lifeline.run(lifeline.begin, parent, checked, client, prepare)
        except BaseException:
            # Somebody may wait for it already, by its name; there is not to be a second attempt.
            lifeline.closed = True
            raise
        assert lifeline.process is not None
        return lifeline.process.pid
