"""Blocking GenServer calls over persistent two-way TLS, for synchronous Python.

A `Server` runs in a `Daemon`, one process for each client; a `Client` calls, casts and receives pushes. README.md has
the first program, docs/ the rest.

Importing the package alone loads next to nothing: each name brings its module when it is first used.
"""

from typing import TYPE_CHECKING

from erps_gevent import exits as _exits  # noqa: F401  at once; the rest is imported when it is used

if TYPE_CHECKING:
    from erps_gevent.client import Client
    from erps_gevent.daemon import Daemon
    from erps_gevent.errors import (
        AlreadyRegistered,
        AlreadyStarted,
        BadPacket,
        BadReturn,
        CallExit,
        CallingSelf,
        CallTimeout,
        ConfigError,
        Disconnected,
        EncodeError,
        ErpsError,
        ErrorReply,
        Exit,
        IdentifierMismatch,
        MaxChildren,
        NoProc,
        NotFound,
        Overloaded,
        PacketTooLarge,
        ProtocolError,
        ServerExit,
        SignatureMismatch,
        StartError,
        StartIgnored,
        TaskTimeout,
        UnsafeTerm,
        VersionMismatch,
    )
    from erps_gevent.live_servers import LiveServer
    from erps_gevent.otp import sys, universe
    from erps_gevent.otp.child_spec import child_spec
    from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
    from erps_gevent.otp.gen import call, cast, stop
    from erps_gevent.otp.gen_server import GenServer
    from erps_gevent.otp.job import TaskExit, TaskReply, TaskResult
    from erps_gevent.otp.mailbox import alias, cancel_timer, read_timer, receive, send, send_after, unalias
    from erps_gevent.otp.messages import Continue, From, IdleTimeout, Ignore, NoReply, Ok, Reply, Stop, is_remote, reply
    from erps_gevent.otp.names import Via
    from erps_gevent.otp.primitives import (
        current,
        demonitor,
        exit_,
        info,
        is_alive,
        kill,
        link,
        monitor,
        register,
        spawn,
        spawn_link,
        spawn_monitor,
        trap_exit,
        unlink,
        unregister,
    )
    from erps_gevent.otp.process import Down, ExitSignal, Pid, whereis
    from erps_gevent.otp.reasons import Shutdown
    from erps_gevent.otp.registry import Registry
    from erps_gevent.otp.requests import RequestId, receive_response, send_request, wait_response
    from erps_gevent.otp.supervisor import Supervisor
    from erps_gevent.otp.task import Task
    from erps_gevent.otp.task_supervisor import TaskSupervisor
    from erps_gevent.otp.words import HIBERNATE, KILL, KILLED, NOPROC, NORMAL, RESTARTING, SHUTDOWN, TIMEOUT
    from erps_gevent.server import Server, disconnect, push
    from erps_gevent.transport.address import Peer
    from erps_gevent.transport.tcp import Tcp
    from erps_gevent.transport.tls import OneWayTls, Tls
    from erps_gevent.wire.etf_types import Atom, Bitstring, ImproperList, OpaqueTerm, binary
    from erps_gevent.wire.signing import Keyring
    from erps_gevent.wire.terms import register_type

__version__ = "0.1.0"

__all__ = [
    "HIBERNATE",
    "KILL",
    "KILLED",
    "NOPROC",
    "NORMAL",
    "RESTARTING",
    "SHUTDOWN",
    "TIMEOUT",
    "AlreadyRegistered",
    "AlreadyStarted",
    "Atom",
    "BadPacket",
    "BadReturn",
    "Bitstring",
    "CallExit",
    "CallTimeout",
    "CallingSelf",
    "Client",
    "ConfigError",
    "Continue",
    "Daemon",
    "Disconnected",
    "Down",
    "DynamicSupervisor",
    "EncodeError",
    "ErpsError",
    "ErrorReply",
    "Exit",
    "ExitSignal",
    "From",
    "GenServer",
    "IdentifierMismatch",
    "IdleTimeout",
    "Ignore",
    "ImproperList",
    "Keyring",
    "LiveServer",
    "MaxChildren",
    "NoProc",
    "NoReply",
    "NotFound",
    "Ok",
    "OneWayTls",
    "OpaqueTerm",
    "Overloaded",
    "PacketTooLarge",
    "Peer",
    "Pid",
    "ProtocolError",
    "Registry",
    "Reply",
    "RequestId",
    "Server",
    "ServerExit",
    "Shutdown",
    "SignatureMismatch",
    "StartError",
    "StartIgnored",
    "Stop",
    "Supervisor",
    "Task",
    "TaskExit",
    "TaskReply",
    "TaskResult",
    "TaskSupervisor",
    "TaskTimeout",
    "Tcp",
    "Tls",
    "UnsafeTerm",
    "VersionMismatch",
    "Via",
    "alias",
    "binary",
    "call",
    "cancel_timer",
    "cast",
    "child_spec",
    "current",
    "demonitor",
    "disconnect",
    "exit_",
    "info",
    "is_alive",
    "is_remote",
    "kill",
    "link",
    "monitor",
    "push",
    "read_timer",
    "receive",
    "receive_response",
    "register",
    "register_type",
    "reply",
    "send",
    "send_after",
    "send_request",
    "spawn",
    "spawn_link",
    "spawn_monitor",
    "stop",
    "sys",
    "trap_exit",
    "unalias",
    "universe",
    "unlink",
    "unregister",
    "wait_response",
    "whereis",
]

# The imports above once more, for the interpreter: module and names.
_HOMES = {
    name: home
    for home, names in {
        "client": "Client",
        "daemon": "Daemon",
        "errors": (
            "AlreadyRegistered AlreadyStarted BadPacket BadReturn CallExit CallingSelf CallTimeout "
            "ConfigError Disconnected EncodeError ErpsError ErrorReply Exit IdentifierMismatch MaxChildren "
            "NoProc NotFound Overloaded PacketTooLarge ProtocolError ServerExit SignatureMismatch "
            "StartError StartIgnored TaskTimeout UnsafeTerm VersionMismatch"
        ),
        "live_servers": "LiveServer",
        "otp": "sys universe",
        "otp.child_spec": "child_spec",
        "otp.dynamic_supervisor": "DynamicSupervisor",
        "otp.gen": "call cast stop",
        "otp.gen_server": "GenServer",
        "otp.job": "TaskExit TaskReply TaskResult",
        "otp.mailbox": "alias cancel_timer read_timer receive send send_after unalias",
        "otp.messages": "Continue From IdleTimeout Ignore NoReply Ok Reply Stop is_remote reply",
        "otp.names": "Via",
        "otp.primitives": (
            "current demonitor exit_ info is_alive kill link monitor register spawn spawn_link "
            "spawn_monitor trap_exit unlink unregister"
        ),
        "otp.process": "Down ExitSignal Pid whereis",
        "otp.reasons": "Shutdown",
        "otp.registry": "Registry",
        "otp.requests": "RequestId receive_response send_request wait_response",
        "otp.supervisor": "Supervisor",
        "otp.task": "Task",
        "otp.task_supervisor": "TaskSupervisor",
        "otp.words": "HIBERNATE KILL KILLED NOPROC NORMAL RESTARTING SHUTDOWN TIMEOUT",
        "server": "Server disconnect push",
        "transport.address": "Peer",
        "transport.tcp": "Tcp",
        "transport.tls": "OneWayTls Tls",
        "wire.etf_types": "Atom Bitstring ImproperList OpaqueTerm binary",
        "wire.signing": "Keyring",
        "wire.terms": "register_type",
    }.items()
    for name in names.split()
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # a type checker would take every misspelt name for one that is here

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is not None:
            # As `from home import name` does it. The next use finds it without coming here.
            value = globals()[name] = getattr(__import__(f"{__name__}.{home}", fromlist=(name,)), name)
            return value
        if not name.startswith("_"):
            # `erps_gevent.errors`, without an import of its own.
            module = f"{__name__}.{name}"
            try:
                return __import__(module, fromlist=("",))
            except ModuleNotFoundError as missing:
                if missing.name != module:
                    raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
