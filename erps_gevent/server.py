"""Server: a GenServer that lives at one end of a line, one process for each client."""

from __future__ import annotations

import logging
import traceback
from functools import partial
from typing import Any, ClassVar

from erps_gevent import options
from erps_gevent.errors import (
    BadReturn,
    ConfigError,
    Disconnected,
    ErpsError,
    MaxChildren,
    Overloaded,
    ServerExit,
    StartError,
    StartIgnored,
)
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.child_spec import child_spec_of
from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.gen import describe, exit_error
from erps_gevent.otp.gen_server import GenServer, Loop
from erps_gevent.otp.messages import StopRequest
from erps_gevent.otp.process import Pid, Process, starter
from erps_gevent.otp.reasons import to_plain
from erps_gevent.otp.words import NORMAL
from erps_gevent.server_connection import ROOM_TIMEOUT, ServerConnection
from erps_gevent.transport.address import Peer

logger = logging.getLogger("erps_gevent")

RETRY_AFTER = 1.0  # seconds that a client is asked to wait when every server is taken


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
    connection: ServerConnection,
    server: type[Server],
    callers: tuple[Pid, ...],
    parent: Process | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Process:
    """Start a server process at the end of `connection`; parks until its init has returned.

    callers: those that it is to have.
    parent:  what it is linked to, if anything.
    raises:  StartError, StartIgnored
    """
    process = Process(connection, server.__name__, parent)
    process.callers = callers
    instance = server.__new__(server)
    instance._connection = connection

    def ended(reason: Any) -> None:
        connection.exit_reason = reason

    process.monitor(ended)
    Loop(process, instance, args, kwargs).start(None, None)
    return process


def start_under(
    supervisor: Any,
    connection: ServerConnection,
    server: type[Server],
    callers: tuple[Pid, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Process:
    """`start_on`, as a child of `supervisor` and in its process. A line cannot be restarted: the child is temporary.

    supervisor: a Pid, a name or a Via of a DynamicSupervisor, or an object with start_child(child_spec).
    raises:     as start_on; StartError also when there is no supervisor, or it is wrong, with the cause chained.
                Overloaded  it has max_children already.
    """
    start = partial(_start_child, connection, server, callers)
    spec = child_spec_of(server, start, args, kwargs, {**server.class_options, "restart": "temporary"})
    try:
        if hasattr(supervisor, "start_child"):
            pid = supervisor.start_child(spec)
        else:
            pid = DynamicSupervisor.start_child(supervisor, spec)
    except MaxChildren as error:
        text = "every server is taken (max_children of their supervisor); try again later"
        raise Overloaded(text, retry_after=RETRY_AFTER) from error
    except (StartError, StartIgnored):
        raise
    except Exception as error:
        logger.warning("the server_supervisor %r starts no server: %s", supervisor, describe(error))
        text = f"the supervisor of the servers starts none: {describe(error)}"
        raise StartError(text, reason=getattr(error, "reason", None)) from error
    process = pid.process if isinstance(pid, Pid) else None
    if process is None or process.inbox is not connection:
        logger.warning("start_child of %r returned %r, not what the start of its child spec returned", supervisor, pid)
        raise StartError("the supervisor of the servers starts none: its start_child returns no Pid of a server")
    return process


def _start_child(
    connection: ServerConnection, server: type[Server], callers: tuple[Pid, ...], /, *args: Any, **kwargs: Any
) -> Pid:
    """The start of a child spec: runs in the supervisor's process."""
    parent = starter()
    if bridge.is_foreign(connection.hub):
        raise ConfigError("the server_supervisor belongs to the hub of another thread; start it where the daemon runs")
    if connection.cause is not None:
        raise StartError(f"the client has left: {connection.cause}", reason="disconnected")
    return start_on(connection, server, callers, parent, args, kwargs).pid


def chosen_options(server: object, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a server class: defaults, its keywords, and what was given to the daemon, which wins."""
    if not (isinstance(server, type) and issubclass(server, Server)):
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
