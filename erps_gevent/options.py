"""The options of servers, clients and daemons: their defaults, in one table each, and what is wrong with a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packaging.specifiers import SpecifierSet

from erps_gevent.errors import ConfigError
from erps_gevent.otp.behaviour import Option, count, flag, number, one_of
from erps_gevent.otp.child_spec import CHILD
from erps_gevent.otp.names import Via
from erps_gevent.otp.process import Pid
from erps_gevent.wire.packet import check_identifier, parse_version
from erps_gevent.wire.payloads import LEAST_SIZE
from erps_gevent.wire.requirement import parse_versions
from erps_gevent.wire.signing import Keyring

MEBIBYTE = 1024 * 1024


def _identifier(name: str, value: Any) -> str:
    try:
        return check_identifier(value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _version(name: str, value: Any) -> tuple[int, int, int]:
    try:
        return parse_version(value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _versions(name: str, value: Any) -> Any:
    if value is None or isinstance(value, SpecifierSet):
        return value
    # A SpecifierSet takes a list or bytes too, and fails on them at the first client.
    if not isinstance(value, str):
        raise ConfigError(f"{name} is text such as '~=1.0', '>=1.2,<2' or '~> 1.0 and < 1.5.0', not {value!r}")
    try:
        return parse_versions(value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _compressed(name: str, value: Any) -> bool | int:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and 0 <= value <= 9:
        return value
    raise ConfigError(f"{name} is True, False or a zlib level from 0 to 9, not {value!r}")


def _supervisor(name: str, value: Any) -> Any:
    if isinstance(value, Pid | Via) or (isinstance(value, str) and value):
        return value
    if hasattr(value, "start_child") and not isinstance(value, type):
        return value
    text = "is a Pid, a name or a Via of a DynamicSupervisor, or an object with start_child(child_spec)"
    raise ConfigError(f"{name} {text}, not {value!r}")


def _signing(name: str, value: Any) -> Keyring | None:
    if value is None or isinstance(value, Keyring):
        return value
    # Whatever it is, there may be secrets in it.
    raise ConfigError(f"{name} is Keyring({{key_id: secret}}, use=key_id) or None, not a {type(value).__name__}")


BOTH = {
    "identifier": Option("", _identifier),
    "safe": Option(True, flag),
    "compressed": Option(False, _compressed),
    "codec": Option("cbor", one_of("cbor", "etf")),
    "signing": Option(None, _signing),
    "pacing": Option(0.15, number(0)),
    "max_size": Option(16 * MEBIBYTE, count(LEAST_SIZE)),
    "max_pending": Option(1000, count(1)),
    "dead_after": Option(60.0, number(0.001, none=True)),
    "send_timeout": Option(30.0, number(0.001)),
}

SERVER = {
    **CHILD,
    **BOTH,
    "versions": Option(None, _versions),
    "expose_tracebacks": Option(False, flag),
}

CLIENT = {
    **CHILD,
    **BOTH,
    "version": Option((0, 0, 0), _version),
    "keepalive": Option(25.0, number(0.001, none=True)),
    "reconnect": Option(60.0, number(0.001)),
    "heal": Option(True, flag),
    "hub": Option("auto", one_of("auto", "here", "thread")),
    "max_pushes": Option(1000, count(1)),
    "connect_timeout": Option(5.0, number(0.001, none=True)),
}

DAEMON = {
    **CHILD,
    "shutdown": Option(None, CHILD["shutdown"].check),
    "server_supervisor": Option(None, _supervisor),
    "max_connections": Option(10_000, count(1)),
    "max_connection_age": Option(None, number(0.001, none=True)),
    "max_handshakes": Option(1000, count(1)),
    "handshake_timeout": Option(5.0, number(0.001)),
    "reuse_port": Option(False, flag),
    "blocking_threshold": Option(0.25, number(0.001, none=True)),
}


def check_together(chosen: Mapping[str, Any], where: str) -> None:
    """See that what is chosen for one end goes together. raises: ConfigError"""
    if chosen["signing"] is not None and chosen["codec"] != "cbor":
        text = "Erps 0.7 does not sign; take signing= away, and use Tls(...) with a certificate for each end"
        raise ConfigError(f"{where}: signing= cannot be used with codec={chosen['codec']!r}: {text}")
