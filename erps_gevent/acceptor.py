"""Acceptor: a StreamServer that always accepts, whatever happens to an accept.

An accept that fails is logged once and tried again, with pauses; what makes accepting impossible closes the socket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gevent.event import Event
from gevent.hub import Hub, get_hub
from gevent.pool import Pool
from gevent.server import StreamServer

from erps_gevent.errors import ConfigError, StartError
from erps_gevent.integrations import forks
from erps_gevent.transport.address import parse_address
from erps_gevent.transport.held import hold
from erps_gevent.transport.sockets import SocketFile
from erps_gevent.transport.tcp import check_transport

logger = logging.getLogger("erps_gevent")


class Acceptor(StreamServer):
    """Listens at `listener`, and has each accepted socket taken by `do_handle`, a method of its subclass.

    spawn: a gevent Pool that server processes are to run in, or its size; `places` is that pool, or None.
    """

    def __init__(self, listener: Any, transport: Any, reuse_port: bool, spawn: Any, backlog: int | None) -> None:
        self._hub: Hub = get_hub()
        self.transport = transport
        self.reuse_port = reuse_port
        self.accept_errors = 0
        self._socket_file: SocketFile | None = None
        self._fatal: Exception | None = None
        self._accept_failure: str | None = None
        self._accept_delay = self.min_delay
        super().__init__(listener, spawn=spawn, backlog=backlog)

    def later(self, function: Callable[..., Any], *args: Any) -> None:
        """Run it in a greenlet: the hub itself may not log."""
        raise NotImplementedError

    @property
    def ended(self) -> StartError | None:
        """Why it cannot accept any more, if that is impossible and nobody has asked for it."""
        if self._fatal is None:
            return None
        text = f"accepting at {self.address} has become impossible: {self._fatal}; the listening socket is gone"
        error = StartError(text, reason=str(self._fatal))
        error.__cause__ = self._fatal
        return error

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
            self.transport = check_transport(self.transport, target)
            parse_address(target, self.transport, listening=True)
            self.family: Any = None
            self.address = target.path if target.path is not None else (target.host, target.port)
        self.transport = check_transport(self.transport)
        self.transport.check_listener(listener)

    def set_spawn(self, spawn: Any) -> None:
        self.places: Any = Pool(spawn) if isinstance(spawn, int) and not isinstance(spawn, bool) else None
        if isinstance(spawn, Pool):
            self.places = spawn
        if self.places is None and spawn != "default":
            raise ConfigError(
                f"spawn={spawn!r}: a server process needs a greenlet of its own; pass a gevent Pool or its size"
            )
        super().set_spawn("default")

    def get_listener(  # type: ignore[override]
        self, address: Any, backlog: int | None = None, family: Any = None
    ) -> Any:
        backlog = self.backlog if backlog is None else backlog
        listener, self._socket_file = self.transport.listen(address, backlog, self.reuse_port)
        return listener

    def start_accepting(self) -> None:
        # Held from now on: until then it is for a child to accept on, if that is forked to do so.
        hold(self.socket)
        super().start_accepting()

    def close(self) -> None:
        """Stop accepting and close the listening socket; the file of a unix socket that was made here goes with it."""
        super().close()
        if self._socket_file is not None:
            self._socket_file.remove()
            self._socket_file = None

    def let_go(self) -> None:
        """In a forked child: as after close(), but the parent accepts on. The socket's file is its too."""
        forks.bury(dict(self.__dict__))
        self.__dict__.pop("socket", None)
        if forks.is_lost(self._hub):
            self.__dict__.update(_watcher=None, _timer=None)
        self._socket_file = None
        # Another one: a greenlet that is in serve_forever() is the parent's, and is not to return.
        self._stop_event = Event()
        super().close()

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
            self.later(logger.info, "accepting at %s again", self.address)
            self._accept_failure = None
            self._accept_delay = self.min_delay
        return accepted

    def _accept_failed(self, error: Exception) -> None:
        self.accept_errors += 1
        if self.is_fatal_error(error):
            self.later(logger.error, "accepting at %s has ended: %s", self.address, error)
            self._fatal = error
            self.close()
            return
        if str(error) != self._accept_failure:
            self._accept_failure = str(error)
            self.later(logger.error, "cannot accept at %s for now: %s", self.address, error)
        self.stop_accepting()
        # As BaseServer does it itself, but for its printing of a traceback each time.
        self._timer = self.loop.timer(self._accept_delay)
        self._timer.start(self._start_accepting_if_started)  # type: ignore[attr-defined, call-arg]
        self._accept_delay = min(self._accept_delay * 2, self.max_delay)
