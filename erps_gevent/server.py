"""Server: a GenServer that lives at one end of a line, one process for each client."""

from __future__ import annotations

import inspect
import traceback
from typing import Any, ClassVar

from erps_gevent import options
from erps_gevent.errors import BadReturn, Disconnected, ErpsError, ServerExit, StartError
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.gen import exit_error
from erps_gevent.otp.gen_server import GenServer, Loop
from erps_gevent.otp.messages import StopRequest
from erps_gevent.otp.process import Pid, Process
from erps_gevent.otp.reasons import to_plain
from erps_gevent.otp.words import NORMAL
from erps_gevent.server_connection import ROOM_TIMEOUT, ServerConnection
from erps_gevent.transport.address import Peer


class Server(GenServer):
    """Subclass it and give the class to a Daemon, which runs one instance for each connected client.

    Started by `start` or `start_link` it is a GenServer without a line.
    """

    OPTIONS: ClassVar[dict[str, Option]] = options.SERVER
    OWN_ATTRIBUTES: ClassVar[frozenset[str]] = GenServer.OWN_ATTRIBUTES | {"_connection"}
    class_options: ClassVar[dict[str, Any]] = {}
    _connection: ServerConnection | None = None

    @property
    def peer(self) -> Peer | None:
        """The other end of the line: address, certificate subject and names. None without a line."""
        return self._connection.stream.peer if self._connection is not None else None

    def push(self, message: Any, timeout: float | None = ROOM_TIMEOUT) -> None:
        """Send `message` to the client's handle_push, without waiting for it.

        message: any value of the types in README.md.
        timeout: seconds to wait for room when the client does not read; None waits for ever.
        raises:  Disconnected  there is no line, or it is down; nothing was sent.
                 CallTimeout   no room in time; nothing was sent.
                 EncodeError   it cannot be sent; nothing was.
        switch:  may park the caller when the line is full.
        source:  Erps.Server.push/2, lib/erps/server.ex (0.7.0)
        """
        if self._connection is None:
            raise Disconnected(f"{self.pid!r} has no line: it was started without a daemon", reason="disconnected")
        _push(self._connection, message, timeout)

    def disconnect(self) -> None:
        """End the line and this process, with reason NORMAL, after what is already in its mailbox.

        source: Erps.Server.disconnect/1
        """
        disconnect(self.pid)


def push(pid: Pid, message: Any, timeout: float | None = ROOM_TIMEOUT) -> None:
    """`Server.push` from outside, by the pid of the server process."""
    connection = connection_of(pid)
    if connection is None:
        raise Disconnected(f"{pid!r} has no line", reason="disconnected")
    _push(connection, message, timeout)


def _push(connection: ServerConnection, message: Any, timeout: float | None) -> None:
    if bridge.is_foreign(connection.hub):
        bridge.run_in(connection.hub, connection.push, message, timeout, patience=timeout)
    else:
        connection.push(message, timeout)


def disconnect(pid: Pid) -> None:
    """`Server.disconnect` from outside, by the pid of the server process. A dead one is no error."""
    process = pid.process
    if bridge.is_foreign(process.hub):
        process.hub.loop.run_callback_threadsafe(process.send, StopRequest(NORMAL))
    else:
        process.send(StopRequest(NORMAL))


def connection_of(pid: Pid) -> ServerConnection | None:
    inbox = pid.process.inbox
    return inbox if isinstance(inbox, ServerConnection) else None


def start_on(
    connection: ServerConnection, server: type[Server], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Process:
    """Start a server process at the end of `connection`; parks until its init has returned.

    raises: StartError, StartIgnored
    """
    process = Process(connection, server.__name__)
    instance = server.__new__(server)
    instance._connection = connection
    Loop(process, instance, args, kwargs).start(None, None)
    return process


def chosen_options(server: object, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a server class: defaults, its keywords, and what was given to the daemon, which wins."""
    if not (inspect.isclass(server) and issubclass(server, Server)):
        raise TypeError(f"the daemon serves a subclass of erps_gevent.Server, not {server!r}")
    checked = behaviour.checked(given, server.OPTIONS, f"Daemon of {server.__name__}")
    return {**{name: option.default for name, option in server.OPTIONS.items()}, **server.class_options, **checked}


def farewell_of(reason: Any, expose_tracebacks: bool) -> ErpsError:
    """What the callers of a server process are told when it ends with `reason`."""
    error = exit_error(reason, None)
    if not isinstance(error, ServerExit):
        return error
    if expose_tracebacks and isinstance(reason, BaseException) and not isinstance(reason, BadReturn):
        error.message = "".join(traceback.format_exception(reason)).rstrip()
    error.reason = to_plain(reason)
    return error


def regret_of(error: ErpsError) -> ErpsError:
    """What the client is told when its server process did not start because of `error`."""
    if isinstance(error, StartError):
        error.reason = to_plain(error.reason)
    return error
