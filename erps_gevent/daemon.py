"""Daemon: a StreamServer that runs a server process for each client.

It always accepts: a full house is told so, by name. What happens to an accepted socket is in `lines.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, ClassVar, TypeVar

import gevent
from gevent.hub import get_hub
from gevent.pool import Pool

from erps_gevent import daemon_process, options
from erps_gevent.acceptor import Acceptor
from erps_gevent.dialects import dialect_of
from erps_gevent.errors import ConfigError
from erps_gevent.integrations import blocking, forks
from erps_gevent.integrations.threads import hub_thread
from erps_gevent.lines import Lines
from erps_gevent.live_servers import LiveServer, broadcast, servers_of
from erps_gevent.observing import Observer
from erps_gevent.otp import behaviour, bridge, universe
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.child_spec import child_spec_of
from erps_gevent.otp.names import Via
from erps_gevent.otp.process import Pid, Process
from erps_gevent.server import Server, chosen_options, start_on, start_under
from erps_gevent.server_connection import ServerConnection

T = TypeVar("T")

_SSL_KEYWORDS = {
    *("ca_certs", "cert_reqs", "certfile", "ciphers", "do_handshake_on_connect", "keyfile", "server_side"),
    *("ssl_context", "ssl_version", "suppress_ragged_eofs"),
}


class Daemon(Acceptor):
    """Listens, and serves each client with a server process of its own.

    listener:  `(host, port)`, "host:port", the path of a unix socket, a URL, or a bound socket.
    server:    a subclass of Server. `args` and the keywords that are no options go to its `init`.
    transport: `Tls(...)`, `OneWayTls(...)` or `Tcp()`; there is no default.
    spawn:     a gevent Pool for the server processes, or its size.
    options:   see the table in README.md; an option given here wins over the server's class keyword.
    raises:    ConfigError  an option, the listener or the transport is wrong.
               TypeError    there is no such option, or the arguments do not fit init.

    `start()`, `stop()`, `serve_forever()`, `server_port`, `address` are StreamServer's; `with` starts it. A program
    without gevent uses `start_in_thread()`. In a supervision tree a process stands for it, `pid`: see `start_link`,
    `child_spec`, and `of`, which leads from a pid or a name to this object.
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
        if own["shutdown"] is None:
            own["shutdown"] = self.stop_timeout + daemon_process.END_TIME
        self.options = {**chosen_options(server, given), **own}
        options.check_together(self.options, f"Daemon of {server.__name__}")
        behaviour.bind(server, args, arguments, ["transport", "backlog", "spawn", *self.OPTIONS, *server.OPTIONS])
        self.server_class = server
        self._init = args, arguments
        self._settled = False
        self._watcher_task: gevent.Greenlet[..., None] | None = None
        self._drain_until: float | None = None
        self.pid: Pid | None = None
        forward = own["forward_callers"] or server.class_options.get("forward_callers")
        self._callers = universe.link() if forward else ()
        super().__init__(listener, transport, own["reuse_port"], spawn, backlog)
        self._lines = self._new_lines()
        forks.watch(self)

    def _new_lines(self) -> Lines:
        lines = Lines(self.transport, self.options, self.places, self._start_server)
        threshold = self.options["blocking_threshold"]
        self._watch = None if threshold is None else blocking.Watch(threshold, lines.live)
        return lines

    # What becomes of a client.

    def handle(self, sock: Any, address: Any) -> None:
        """Greet one client and start its server process. Parks; runs in the handshake group."""
        connection = self._lines.greet(sock, address)
        if connection is not None:
            self._lines.admit(connection)

    def do_handle(self, sock: Any, address: Any) -> None:
        self._lines.accept(self.handle, sock, address)

    def later(self, function: Callable[..., Any], *args: Any) -> None:
        self._lines.later(function, *args)

    def _start_server(self, connection: ServerConnection) -> Process:
        if self._watch is not None:
            self._watch.begin(get_hub())
        args, kwargs = self._init
        supervisor = self.options["server_supervisor"]
        if supervisor is None:
            return start_on(connection, self.server_class, self._callers, None, args, kwargs)
        return start_under(supervisor, connection, self.server_class, self._callers, args, kwargs)

    # As a process.

    @classmethod
    def start_link(cls, listener: Any, server: type[Server], *args: Any, **kwargs: Any) -> Pid:
        """Start a daemon as a process that is linked to the running one, which is its parent.

        The arguments are those of the class, and a `name` for the process, and a `timeout` for its start in seconds.
        raises: StartError      the address is taken or cannot be bound; the cause is chained.
                AlreadyStarted  the name is taken.
                ConfigError, TypeError  as the class.

        The process listens as long as it lives. An exit that its parent sends, and erps.stop, are a stop(): clients
        move, within `shutdown`. A kill, or a fatal error of accepting, which is then its exit reason, closes the
        listening socket at once and ends the servers, but for those that a server_supervisor has.
        A close(), drain() or stop() of the daemon ends it with NORMAL, after which a permanent child is started again;
        terminate_child of its supervisor is what ends it for good.
        source: Erps.Daemon.start_link/3
        """
        given, rest = behaviour.split(kwargs, daemon_process.START_OPTIONS)
        chosen = behaviour.checked(given, daemon_process.START_OPTIONS, f"{cls.__name__}.start_link")
        daemon = cls(listener, server, *args, **rest)
        shutdown = daemon.options["shutdown"]
        if isinstance(shutdown, int | float):
            daemon.stop_timeout = min(cls.stop_timeout, max(0.0, shutdown - daemon_process.END_TIME))
        return daemon_process.start_link(daemon, daemon._callers, **chosen)

    @classmethod
    def child_spec(cls, listener: Any, server: type[Server], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The child of a supervisor that is started with these arguments of start_link.

        kwargs: options, and `id`, by default the class and the listener, `restart`, by default "permanent", and
                `shutdown`, by default 12.5 s: 10 s, `stop_timeout`, for the clients to move, and the rest for what
                does not.
        raises: as the class; ConfigError also for a bound socket, which cannot be bound again.

        At port 0 each start takes another port; clients need one that stays.
        source: Erps.Daemon.child_spec/1
        """
        if hasattr(listener, "accept"):
            raise ConfigError("a bound socket is closed with its daemon and cannot be restarted; give its address")
        start, rest = behaviour.split(kwargs, daemon_process.START_OPTIONS)
        behaviour.checked(start, daemon_process.START_OPTIONS, f"{cls.__name__}.child_spec")
        chosen = cls(listener, server, *args, **rest).options
        id_ = cls, tuple(listener) if isinstance(listener, list) else listener
        return child_spec_of(id_, cls.start_link, (listener, server, *args), kwargs, chosen)

    @classmethod
    def of(cls, target: Pid | str | Via) -> Daemon:
        """The daemon that runs as the process `target`, a Pid or a name: for server_port, servers, broadcast, info.

        raises: NoProc     the process is dead, or there is none.
                TypeError  it is no daemon's.
        source: Erps.Daemon.port/1, info/1
        """
        daemon: Daemon = daemon_process.daemon_of(target)
        return daemon

    def close(self) -> None:
        """Stop accepting and close the listening socket; then serve_forever returns, and its process ends, if any."""
        self._in_hub(self._close)

    def _close(self) -> None:
        super().close()
        if self.pid is not None:
            self.pid.send(daemon_process.Closed())

    def abandon(self, _reason: Any = None) -> None:
        """Its process has ended: close the listening socket, and end the servers that no supervisor has."""
        self.close()
        self._lines.abandon()

    def after_fork(self) -> None:
        """In a forked child: as one that was never started. The parent accepts and serves on."""
        lines, watcher = self._lines, self._watcher_task
        forks.bury(self._hub, lines, dict(lines.live), watcher)
        if self.started:
            self.let_go()
        if not forks.is_lost(self._hub):
            lines.after_fork()
            if watcher is not None:
                watcher.kill(block=False)
        if self.pid is not None:
            forks.bury(self.pid)
            self.pid.process.inbox.retire()
        self._hub = get_hub()
        self.loop = self._hub.loop
        self._watcher_task = self._drain_until = self.pid = None
        self._settled = False
        self._lines = self._new_lines()
        self._lines.observer = lines.observer

    # The face.

    def start(self) -> None:
        """Listen and accept; once it does, a second time does nothing.

        raises: StartError  the address is taken or cannot be bound.
        """
        if self.started:
            return
        self._settle_here()
        self._lines.draining = False
        self._drain_until = self._fatal = None
        super().start()
        if self._watcher_task is None:
            self._watcher_task = gevent.spawn(self._lines.watch)

    def start_in_thread(self) -> None:
        """Listen and serve in the hub thread of this Python process, for programs without gevent; return once it does.

        All of the daemon can then be used from any thread, serve_forever too.

        The callbacks of its servers run in that thread, as greenlets beside each other, and beside every client with
        hub="thread". Who waits in gevent's ways (gevent.sleep, a call of a client, a process) lets the others run. Who
        computes, or waits natively (time.sleep, a lock, a database driver that nobody patched), keeps all of these
        lines waiting, but not the threads of the program: leave that to the server's `run_blocking`.

        raises: StartError   the address is taken or cannot be bound, or no thread can be had; the cause is chained.
                ConfigError  it is started already, or was in another hub before, or belongs to a process.
        switch: parks; in a plain thread, the thread.
        """
        if self.pid is not None:
            raise ConfigError(f"this daemon belongs to the process {self.pid!r}, which starts and stops it")
        if self.started:
            raise ConfigError("this daemon is started already; stop() it first")
        hub = hub_thread()
        if bridge.is_foreign(hub):
            bridge.run_in(hub, self.start)
        else:
            self.start()

    def _settle_here(self) -> None:
        """The thread that starts it first is the one whose hub serves; its events and timers belong to that hub."""
        hub = get_hub()
        if self._settled and hub is not self._hub:
            raise ConfigError("this daemon has served in the hub of another thread; make a new one to serve in this")
        self._settled = True
        self._hub = hub
        self.loop = hub.loop

    def serve_forever(self, stop_timeout: float | None = None) -> None:
        """Start if need be, and serve until stopped or drained. Parks.

        raises: StartError  it cannot listen, or accepting has become impossible; the cause is chained.
        """
        if self.started and bridge.is_foreign(self._hub):
            try:
                bridge.run_in(self._hub, self._stop_event.wait)
            finally:
                self.stop(stop_timeout)
        else:
            super().serve_forever(stop_timeout)
        if (error := self.ended) is not None:
            raise error

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
        if self._watch is not None:
            self._watch.end(wait=False)
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

    def hosted(self, places: Pool | None = None, observer: Observer | None = None) -> None:
        """Share what one host has for all of its daemons. For hosts such as a gunicorn worker; before start().

        places:   the pool that the server processes of all of them run in, unless `spawn` has given one.
        observer: who is told of each call on lines that begin from now on.
        """
        if self.places is None:
            self.places = self._lines.places = places
        self._lines.observer = observer

    def _in_hub(self, function: Callable[..., T], *args: Any) -> T:
        if bridge.is_foreign(self._hub):
            return bridge.run_in(self._hub, function, *args)
        return function(*args)

    @property
    def servers(self) -> list[LiveServer]:
        """The live server processes, oldest first."""
        return servers_of(self._lines)

    def broadcast(self, message: Any) -> int:
        """Push `message` to every client that has room for it; return the count of those.

        raises: EncodeError  it cannot be sent; no client got it.
        switch: does not park: a client that does not read, or takes only smaller messages, is left out and logged.
        """
        dialect_of(self.options["codec"]).encode(message, "message")
        return self._in_hub(broadcast, self._lines, message)

    def info(self) -> dict[str, Any]:
        """How it is: address, servers, handshakes, limits, and counts since it was made."""
        lines = self._lines
        return {
            "address": self.address,
            "accepting": self.started,
            "draining": lines.draining,
            "servers": len(lines.live),
            "handshakes": len(lines.handshakes),
            "calls": lines.calls,
            "max_connections": self.options["max_connections"],
            "max_handshakes": self.options["max_handshakes"],
            "accept_errors": self.accept_errors,
            **lines.counts,
        }

    def __enter__(self) -> Any:
        self.start()
        return self
