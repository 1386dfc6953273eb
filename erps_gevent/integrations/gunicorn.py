"""A gunicorn worker that serves Erps in place of HTTP.

    gunicorn -k erps_gevent.integrations.gunicorn.ErpsWorker 'myapp:Counter'
    gunicorn -k egg:erps-gevent#erps 'myapp:make'

The application is a `Server` class, or a factory `f(listener, transport) -> Daemon`. Everything else is gunicorn's:
its sockets, signals, hooks, logs and limits. docs/serving.md says what each setting means here.

    TERM, HUP, TTOU, max_requests ──▶ stop accepting ──▶ goaway ──▶ the clients move to another worker ──▶ exit
"""

from __future__ import annotations

import os
import signal
import ssl
from dataclasses import dataclass
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.pool import Pool
from gunicorn.errors import AppImportError
from gunicorn.sock import ssl_context
from gunicorn.workers.base_async import AsyncWorker
from gunicorn.workers.ggevent import GeventWorker

from erps_gevent.daemon import Daemon
from erps_gevent.errors import ErpsError
from erps_gevent.integrations.hosting import check_app, daemon_of, show_log, stop_all
from erps_gevent.observing import ObservedCall
from erps_gevent.otp.reasons import brief
from erps_gevent.transport.tcp import Tcp, Transport
from erps_gevent.transport.tls import OneWayTls, Tls

NOTIFY_EVERY = 1.0  # seconds. The master takes a worker that is silent for `timeout`, 30 s, for a blocked one.
COUNT_EVERY = 0.1  # seconds between looks at the count of calls, if max_requests limits it
MARGIN = 2.0  # seconds before graceful_timeout, when the master kills: the drain is over by then
LAST_MARGIN = 0.5  # seconds before graceful_timeout: what has not ended by then is left behind

ACCESS_FORMAT = '%(h)s %(u)s %(t)s %(i)s "%(r)s" %(s)s %(L)s'

PLAIN = "there is no certificate: the lines are plain TCP, and whoever reaches the port can read and call"
ONE_WAY = "clients are not asked for a certificate: whoever reaches the port can call"
REMEDY = "; for two-way TLS set certfile, keyfile, ca_certs and cert_reqs = 2"


class ErpsWorker(GeventWorker):
    """Serves daemons on gunicorn's sockets.

    daemons: those of this worker, one for each socket, from `post_worker_init` on.
    nr:      count of calls answered, as of the last look.
    """

    daemons: list[Daemon]
    alive: bool
    nr: int

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """In the master, at its start: refuse certificates that cannot be used, and say what is not secure."""
        try:
            transport = transport_of(cfg)
        except ErpsError as error:
            # What gunicorn prints in one line.
            raise RuntimeError(str(error)) from error
        if not transport.secure and any(not isinstance(address, str) for address in cfg.address):
            log.warning(PLAIN + REMEDY)
        elif isinstance(transport, OneWayTls):
            log.warning(ONE_WAY + REMEDY)

    def init_process(self) -> None:
        # Until init_signals a forked worker has the master's handlers, which would swallow a TERM: the master waits
        # for graceful_timeout before it sends another.
        signal.signal(signal.SIGTERM, self._leave_early)
        super().init_process()

    def _leave_early(self, sig: int, frame: Any) -> None:
        self.alive = False

    def init_signals(self) -> None:
        self.daemons = []
        self._leave = Event()
        self._loop = get_hub().loop
        super().init_signals()

    def load_wsgi(self) -> None:
        """Load the application and make its daemons: what is wrong with them ends the boot, and not each worker."""
        show_log(self.log.error_log.handlers)
        where = str(getattr(self.app, "app_uri", None) or "the application")
        try:
            app = check_app(self.app.wsgi(), where)
            transport = transport_of(self.cfg)
            limit = self.cfg.worker_connections
            options = {"max_connections": limit}
            self.daemons = [daemon_of(app, sock, transport, where, **options) for sock in self.sockets]
        except ErpsError as error:
            self.log.error("%s", error)
            raise AppImportError(str(error)) from error
        except SyntaxError as error:
            self._await_correction(error)
        observer = CallObserver.wanted(self)
        places = Pool(limit) if self.daemons else None
        for daemon in self.daemons:
            # The socket is shared: who takes several connections at once takes them from its siblings.
            daemon.max_accept = 1
            daemon.hosted(places, observer)

    def _await_correction(self, error: SyntaxError) -> None:
        if not self.cfg.reload:
            raise error
        self.log.exception("nothing is served until this is corrected")
        if self.reloader is not None and error.filename is not None:
            self.reloader.add_extra_file(error.filename)

    def run(self) -> None:
        """Serve until told to leave, and then until the clients have."""
        if self.alive:
            for daemon in self.daemons:
                daemon.start()
        limited = self.cfg.max_requests > 0
        while self.alive:
            self.notify()
            self._leave.wait(COUNT_EVERY if limited else NOTIFY_EVERY)
            self._count()
        self._drain()
        # The master repeats its TERM until it has seen that the worker is gone; Python, as it ends, would die of it.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _count(self) -> None:
        self.nr = sum(daemon.info()["calls"] for daemon in self.daemons)
        if self.alive and self.nr >= self.max_requests:
            self.log.info("Autorestarting worker after %d calls.", self.nr)
            self.alive = False

    def _drain(self) -> None:
        graceful = self.cfg.graceful_timeout
        until = monotonic() + max(graceful - LAST_MARGIN, graceful / 2)
        stopping = stop_all(self.daemons, max(graceful - MARGIN, graceful / 2))
        while not all(task.ready() for task in stopping) and monotonic() < until:
            AsyncWorker.notify(self)
            gevent.joinall(stopping, timeout=min(NOTIFY_EVERY, max(until - monotonic(), 0.001)))
        if not all(task.successful() for task in stopping):
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)

    def notify(self) -> None:
        """Tell the master that the hub turns. If the master is another one, the worker drains and ends."""
        AsyncWorker.notify(self)
        if self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        # In a signal handler, anywhere in the program: nothing of gevent may be touched but this.
        self.alive = False
        self._loop.run_callback_threadsafe(self._leave.set)


def transport_of(cfg: Any) -> Transport:
    """The transport that gunicorn's settings ask for.

    raises: ConfigError  a file cannot be used; the text says which.
    """
    if not cfg.is_ssl:
        return Tcp()
    two_way = cfg.cert_reqs == ssl.CERT_REQUIRED
    hook = cfg.settings["ssl_context"]
    if hook.get() is not hook.default or cfg.ciphers or (two_way and not cfg.ca_certs):
        context = ssl_context(cfg)
        return (Tls if context.verify_mode == ssl.CERT_REQUIRED else OneWayTls)(context=context)
    if two_way:
        return Tls(ca=cfg.ca_certs, cert=cfg.certfile, key=cfg.keyfile)
    return OneWayTls(cert=cfg.certfile, key=cfg.keyfile)


@dataclass(frozen=True, slots=True)
class Request:
    """What pre_request and post_request are given for a call; `method`, `path` and `uri` are there for HTTP's hooks."""

    peer: Any
    identifier: str
    request: Any
    method: str = "CALL"

    @property
    def path(self) -> str:
        return self.identifier

    uri = path


@dataclass(frozen=True, slots=True)
class Response:
    """What post_request is given for the outcome.

    status:  "reply", "error:unknown_request" and so on, see ObservedCall.outcome.
    seconds: that the call took.
    """

    status: str
    seconds: float


class CallObserver:
    """Writes the access log and runs the hooks of calls."""

    def __init__(self, worker: ErpsWorker, *, logs: bool) -> None:
        self.worker = worker
        self.logs = logs
        self.pre = _set_by_user(worker.cfg, "pre_request")
        self.post = _set_by_user(worker.cfg, "post_request")
        names = {daemon.options["identifier"] for daemon in worker.daemons}
        self.identifier = next(iter(names), "") or "-"
        wanted = worker.cfg.settings["access_log_format"]
        self.format = ACCESS_FORMAT if wanted.get() == wanted.default else wanted.get()

    @classmethod
    def wanted(cls, worker: ErpsWorker) -> CallObserver | None:
        """An observer, if the settings ask for anything that needs one."""
        logs = bool(getattr(worker.log, "access_log_enabled", worker.cfg.accesslog))
        observer = cls(worker, logs=logs)
        return observer if logs or observer.pre or observer.post else None

    def began(self, call: ObservedCall) -> None:
        if self.pre is not None:
            self._run("pre_request", self.pre, self._request(call))

    def ended(self, call: ObservedCall) -> None:
        if self.logs:
            log = self.worker.log
            log.access_log.info(self.format, log.atoms_wrapper_class(atoms(call, self.identifier, log.now())))
        if self.post is not None:
            response = Response(call.outcome or "ended", call.seconds)
            self._run("post_request", self.post, self._request(call), {}, response)

    def _request(self, call: ObservedCall) -> Request:
        return Request(call.peer, self.identifier, call.request)

    def _run(self, name: str, hook: Any, *args: Any) -> None:
        try:
            hook(self.worker, *args)
        except Exception:
            self.worker.log.exception("Exception in %s hook", name)


def atoms(call: ObservedCall, identifier: str, now: str) -> dict[str, Any]:
    """What an access_log_format may name: gunicorn's letters as far as they mean something here, and `i`.

    h: the peer's host. u: its key id, or the subject of its certificate. t: the time. i: the identifier. r: the
    request, cut where it is long. s: the outcome. m: CALL. T, M, D, L: the time it took, in seconds, milliseconds,
    microseconds, decimal seconds. p: the process id.
    """
    peer = call.peer
    host = peer.address[0] if isinstance(peer.address, tuple) else peer.address
    return {
        "h": host,
        "l": "-",
        "u": peer.key_id or peer.subject or "-",
        "t": now,
        "i": identifier,
        "U": identifier,
        "r": brief(call.request),
        "s": call.outcome,
        "m": "CALL",
        "T": int(call.seconds),
        "M": int(call.seconds * 1000),
        "D": int(call.seconds * 1_000_000),
        "L": f"{call.seconds:.6f}",
        "p": f"<{os.getpid()}>",
    }


def _set_by_user(cfg: Any, hook: str) -> Any:
    setting = cfg.settings[hook]
    return None if setting.get() is setting.default else setting.get()
