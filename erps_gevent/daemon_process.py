"""A daemon as a process: what stands for it in a supervision tree.

    supervisor ──▶ DaemonProcess ──▶ Daemon ──▶ Lines ──▶ server processes, which are not linked to it

Whatever ends the process closes the listening socket in that moment, so that its successor can bind. The death of a
server process, and whatever a peer does, never reaches it.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from erps_gevent.errors import ErrorReply, NoProc, StartError
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.gen import LocalGateway
from erps_gevent.otp.gen_server import GenServer, Loop
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.messages import Event, From, Stop
from erps_gevent.otp.names import Via
from erps_gevent.otp.process import Pid, Process, starter, whereis
from erps_gevent.otp.reasons import brief, is_quiet
from erps_gevent.otp.words import NOPROC, NORMAL

logger = logging.getLogger("erps_gevent")

END_TIME = 2.5  # seconds of `shutdown` that are for the end of the servers, and not for the clients to move
START_OPTIONS: dict[str, Option] = {name: GenServer.START_OPTIONS[name] for name in ("name", "timeout")}


class Listening(Protocol):
    """What the process needs of its daemon.

    pid: the process; it is to be sent Closed when the listening socket is closed.
    """

    pid: Pid | None

    @property
    def ended(self) -> StartError | None:
        """Why accepting has become impossible, if it has."""

    def start(self) -> None:
        """Listen. raises: StartError"""

    def stop(self) -> None:
        """Have the clients move, and end what is left. Parks."""

    def abandon(self, reason: Any) -> None:
        """The process has ended with `reason`. Must not park."""


class Closed(Event):
    """The daemon has closed its listening socket, whoever asked for that."""

    __slots__ = ()

    def deliver(self, server: Any) -> Any:
        return Stop(server.daemon.ended or NORMAL)


class DaemonProcess(GenServer):
    """Listens while it lives. Its parent's shutdown has the clients move; a crash does not wait for them."""

    def init(self, daemon: Listening) -> None:  # type: ignore[override]
        self.trap_exit = True
        self.daemon = daemon
        daemon.pid = self.pid
        daemon.start()

    def handle_call(self, request: Any, from_: From) -> Any:
        raise ErrorReply("unknown_request", f"a daemon takes no calls such as {brief(request)}; see Daemon.of")

    def handle_cast(self, request: Any) -> None:
        logger.warning("%r takes no casts; dropped %s", self.pid, brief(request))

    def terminate(self, reason: Any) -> None:
        if is_quiet(reason):
            self.daemon.stop()


class _Gateway(LocalGateway):
    """Calls and casts, and the way from the pid to the daemon."""

    __slots__ = ("daemon",)

    def __init__(self, process: Process, daemon: Listening) -> None:
        super().__init__(process)
        self.daemon = daemon


def start_link(daemon: Listening, callers: tuple[Pid, ...], name: Any = None, timeout: float | None = None) -> Pid:
    """Start `daemon` as a process linked to the running one; see Daemon.start_link."""
    process = Process(Inbox(), type(daemon).__name__, starter())
    process.callers = callers
    loop = Loop(process, DaemonProcess.__new__(DaemonProcess), (daemon,), {})
    process.gateway = _Gateway(process, daemon)

    def gone(reason: Any) -> None:
        process.gateway = LocalGateway(process)
        daemon.abandon(reason)

    process.monitor(gone)
    try:
        return loop.start(name, timeout)
    except StartError as error:
        if not isinstance(error.reason, StartError):
            raise
        # That its init failed is nobody's business; why it cannot listen is.
        raise StartError(str(error.reason), reason=error.reason) from error.reason.__cause__


def daemon_of(target: Pid | str | Via) -> Any:
    """The daemon whose process `target` is. raises: NoProc, TypeError"""
    pid = target if isinstance(target, Pid) else whereis(target)
    if pid is None or not pid.is_alive():
        raise NoProc(f"there is no process {target!r}", reason=NOPROC)
    gateway = pid.process.gateway
    if not isinstance(gateway, _Gateway):
        raise TypeError(f"{target!r} is no daemon: it was not started by Daemon.start_link")
    return gateway.daemon
