"""Local names: who has which, in this Python process."""

from __future__ import annotations

from typing import Any

from erps_gevent.errors import AlreadyStarted, ConfigError

_holders: dict[str, Any] = {}


def check_name(name: object) -> str:
    """Return `name` if it may be one. raises: ConfigError"""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"a process name is a non-empty str, not {name!r}")
    return name


def take(name: str, pid: Any) -> None:
    """Give `name` to `pid`.

    raises: AlreadyStarted  another one has it.
            ConfigError     it is no name.
    """
    # One step of the interpreter, so that of two threads only one gets the name.
    holder = _holders.setdefault(check_name(name), pid)
    if holder is not pid:
        raise AlreadyStarted(f"the name {name!r} belongs to {holder!r}", pid=holder)


def free(name: str) -> None:
    """Let another one take `name`."""
    _holders.pop(name, None)


def holder_of(name: str) -> Any:
    """The pid that has `name`, or None. raises: ConfigError"""
    return _holders.get(check_name(name))
