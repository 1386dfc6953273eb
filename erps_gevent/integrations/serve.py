"""`erps serve`: one process that serves an application without gunicorn, for containers and service managers.

TERM ──▶ accept for `delay` more ──▶ stop accepting ──▶ goaway ──▶ the clients move ──▶ exit, status 0
                                                             at most `drain_time`
INT, QUIT ──▶ end what runs, in about a second ──▶ exit, status 0
HUP  says in the log what it would be for      USR1  writes every stack to stderr
"""

from __future__ import annotations

import logging
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.util import print_run_info

from erps_gevent.daemon import Daemon
from erps_gevent.errors import ConfigError, StartError
from erps_gevent.integrations.hosting import daemon_of, load_app, stop_all
from erps_gevent.transport.inherited import inherited
from erps_gevent.transport.tcp import Tcp, Transport
from erps_gevent.transport.tls import Tls

logger = logging.getLogger("erps_gevent.serve")

LOG_FORMAT = "%(asctime)s [%(process)d] %(levelname)s %(message)s"
DESCRIPTOR = re.compile(r"fd://(\d+)")


@dataclass(frozen=True)
class Settings:
    """What `erps serve` was asked for.

    app:                "module:Name"; see hosting.load_app.
    bind:               where to listen: "host:port", "/run/x.sock", "fd://3".
    ca, cert, key:      PEM files for two-way TLS; `tcp` is True for plain TCP instead.
    drain_time:         seconds that clients have to move after TERM.
    delay:              seconds after TERM in which it goes on accepting.
    max_connections:    in all, over the addresses; None leaves each daemon its own limit.
    max_connection_age: seconds; see the option of Daemon. None: lines may be of any age.
    """

    app: str
    bind: Sequence[str]
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    tcp: bool = False
    drain_time: float = 30.0
    delay: float = 0.0
    max_connections: int | None = None
    max_connection_age: float | None = None


def run(settings: Settings) -> int:
    """Serve until a signal ends it; the exit status: 0, or 1 if accepting has become impossible.

    raises: ConfigError, TypeError  the application, an address or a certificate is wrong.
            StartError              an address is taken or cannot be bound.
    """
    service = Service(settings.drain_time, settings.delay)
    # First of all: a process with id 1 has no signal handlers but its own, and a long import may be told to end.
    with service.signals():
        service.daemons = daemons_of(settings)
        return service.run()


def daemons_of(settings: Settings) -> list[Daemon]:
    """One daemon for each address, which does not listen yet. raises: as `run`."""
    transport = transport_of(settings)
    options: dict[str, Any] = {}
    if settings.max_connections is not None:
        options["max_connections"] = settings.max_connections
    if settings.max_connection_age is not None:
        options["max_connection_age"] = settings.max_connection_age
    app = load_app(settings.app)
    if options and not isinstance(app, type):
        names = ", ".join(f"{name}=" for name in options)
        raise ConfigError(f"{settings.app} is a factory: have it give {names} to the Daemon that it makes")
    daemons = [daemon_of(app, listener_of(place), transport, settings.app, **options) for place in settings.bind]
    if settings.max_connections is not None:
        places = Pool(settings.max_connections)
        for daemon in daemons:
            daemon.hosted(places)
    return daemons


def transport_of(settings: Settings) -> Transport:
    files = {"--ca": settings.ca, "--cert": settings.cert, "--key": settings.key}
    given = [name for name, path in files.items() if path is not None]
    if settings.tcp:
        if given:
            raise ConfigError(f"--tcp is plain TCP, and {given[0]} is for TLS: give one or the other")
        return Tcp()
    missing = [name for name in ("--ca", "--cert") if name not in given]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} missing: two-way TLS needs --ca, --cert and --key; "
            "--tcp asks for plain TCP, if nobody else can reach the network"
        )
    return Tls(ca=settings.ca, cert=settings.cert, key=settings.key)


def listener_of(place: str) -> Any:
    """What to give a Daemon for the text `place`."""
    found = DESCRIPTOR.fullmatch(place)
    return inherited(int(found[1])) if found else place


class Service:
    """Daemons that are served until a signal ends them.

    ending: the name of the signal that has begun the end, or None.
    status: the exit status, so far.
    """

    def __init__(self, drain_time: float, delay: float) -> None:
        self.daemons: list[Daemon] = []
        self.drain_time = drain_time
        self.delay = delay
        self.ending: str | None = None
        self.status = 0

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Have the process's signals handled here, each in a greenlet of its own."""
        handlers = {
            signal.SIGTERM: self.drain,
            signal.SIGINT: self.quit,
            signal.SIGQUIT: self.quit,
            signal.SIGHUP: self.explain,
            signal.SIGUSR1: self.dump,
        }
        held = [gevent.signal_handler(signum, handler) for signum, handler in handlers.items()]
        try:
            yield
        finally:
            for one in held:
                one.cancel()

    def run(self) -> int:
        """Listen, and serve until the last daemon has ended; the exit status. raises: StartError"""
        # What was signalled while the application was imported is heard now.
        gevent.sleep(0)
        if self.ending is not None:
            return self.status
        try:
            for daemon in self.daemons:
                daemon.start()
        except BaseException:
            self._close()
            raise
        logger.info("listening at %s", ", ".join(shown(daemon.address) for daemon in self.daemons))
        gevent.joinall([gevent.spawn(self._serve, daemon) for daemon in self.daemons], raise_error=True)
        logger.info("ended")
        return self.status

    def _serve(self, daemon: Daemon) -> None:
        try:
            daemon.serve_forever(self.drain_time)
        except StartError as error:
            logger.error("%s", error)
            self.status = 1
            self._close()

    def _close(self) -> None:
        """Have each serve_forever stop: all listeners are closed before the first client is asked to move."""
        for daemon in self.daemons:
            daemon.close()

    def drain(self) -> None:
        if self.ending is not None:
            return
        self.ending = "TERM"
        if self.delay:
            logger.info("SIGTERM: going on to accept for %g s", self.delay)
            gevent.sleep(self.delay)
        logger.info("SIGTERM: asking the clients to move, for at most %g s", self.drain_time)
        self._close()

    def quit(self) -> None:
        logger.info("ending now, and the lines with it")
        self.ending = "INT"
        stop_all(self.daemons, 0.0)

    def explain(self) -> None:
        logger.info("SIGHUP: renewed certificates are picked up without it; for new code start a new process")

    def dump(self) -> None:
        print_run_info(file=sys.stderr)


def shown(address: Any) -> str:
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return str(address)
