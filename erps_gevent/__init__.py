"""Blocking GenServer calls over persistent two-way TLS, for synchronous Python.

A `Server` runs in a `Daemon`, one process for each client; a `Client` calls, casts and receives pushes. README.md has
the first program, docs/ the rest.
"""

from erps_gevent.client import Client
from erps_gevent.daemon import Daemon, LiveServer
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
from erps_gevent.otp.gen import call, cast, stop
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.messages import (
    HIBERNATE,
    TIMEOUT,
    Continue,
    From,
    IdleTimeout,
    Ignore,
    NoReply,
    Ok,
    Reply,
    Stop,
    is_remote,
    reply,
)
from erps_gevent.otp.process import Down, ExitSignal, Pid, exit_, whereis
from erps_gevent.otp.reasons import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN, Shutdown
from erps_gevent.server import Server, disconnect, push
from erps_gevent.transport.address import Peer
from erps_gevent.transport.tcp import Tcp
from erps_gevent.transport.tls import OneWayTls, Tls
from erps_gevent.wire.etf_types import Atom, Bitstring, ImproperList, OpaqueTerm, binary
from erps_gevent.wire.terms import register_type

__version__ = "0.1.0"

__all__ = [
    "HIBERNATE",
    "KILL",
    "KILLED",
    "NOPROC",
    "NORMAL",
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
    "Reply",
    "Server",
    "ServerExit",
    "Shutdown",
    "SignatureMismatch",
    "StartError",
    "StartIgnored",
    "Stop",
    "TaskTimeout",
    "Tcp",
    "Tls",
    "UnsafeTerm",
    "VersionMismatch",
    "binary",
    "call",
    "cast",
    "disconnect",
    "exit_",
    "is_remote",
    "push",
    "register_type",
    "reply",
    "stop",
    "whereis",
]
