"""Blocking GenServer calls over persistent two-way TLS, for synchronous Python.

A `Server` runs in a `Daemon`, one process for each client; a `Client` calls, casts and receives pushes. README.md has
the first program, docs/ the rest.
"""

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
