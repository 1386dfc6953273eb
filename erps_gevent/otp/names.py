"""Names: who has which. Local ones are unique in this Python process; a `Via` is one in a registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from erps_gevent.errors import AlreadyStarted, ConfigError

_holders: dict[str, Any] = {}
_registrars: dict[Any, Registrar] = {}


class Registrar(Protocol):
    """What keeps the names of a `Via`: the three callbacks of OTP's via modules."""

    def whereis_name(self, key: Any) -> Any:
        """The pid of the living process that has `key`, or None."""

    def register_name(self, key: Any, pid: Any, value: Any) -> bool:
        """Give `key` to `pid`; False if another one has it."""

    def unregister_name(self, key: Any) -> None:
        """Let another one take `key`."""


@dataclass(frozen=True)
class Via:
    """A name in a registry, accepted wherever a name is.

    registry: the local name or the Pid of a Registry, or an object with whereis_name, register_name, unregister_name.
    key:      what the process is registered under.
    value:    what is kept with it, when a process starts under this name.
    raises:   ConfigError  `registry` is none of these.
    source:   {:via, module, term}
    """

    registry: Any
    key: Any
    value: Any = None

    def __post_init__(self) -> None:
        is_name = isinstance(self.registry, str) and self.registry
        if not (is_name or hasattr(self.registry, "process") or _is_registrar(self.registry)):
            text = "is the name or the Pid of a Registry, or has whereis_name, register_name and unregister_name"
            raise ConfigError(f"the registry of a Via {text}; not {self.registry!r}")

    def registrar(self) -> Registrar | None:
        """What keeps the name, or None: there is no such registry now."""
        if _is_registrar(self.registry):
            keeper: Registrar = self.registry
            return keeper
        return registrar_of(self.registry)


def _is_registrar(thing: object) -> bool:
    return all(hasattr(thing, method) for method in ("whereis_name", "register_name", "unregister_name"))


def add_registrar(pid: Any, registrar: Registrar) -> None:
    """From now on the process `pid`, and its local name, may be the registry of a Via."""
    _registrars[pid] = registrar


def remove_registrar(pid: Any) -> None:
    """No longer."""
    del _registrars[pid]


def registrar_of(registry: Any) -> Registrar | None:
    """What keeps the names of the registry with this local name or Pid, or None: there is none."""
    return _registrars.get(_holders.get(registry) if isinstance(registry, str) else registry)


def check_name(name: object) -> Any:
    """Return `name` if it may be one. raises: ConfigError"""
    if isinstance(name, Via) or (isinstance(name, str) and name):
        return name
    raise ConfigError(f"a process name is a non-empty str or a Via, not {name!r}")


def take(name: str | Via, pid: Any) -> None:
    """Give `name` to `pid`.

    raises: AlreadyStarted  another one has it.
            ConfigError     it is no name, or there is no such registry.
    """
    if isinstance(name, Via):
        _take_via(name, pid)
        return
    # One step of the interpreter, so that of two threads only one gets the name.
    holder = _holders.setdefault(check_name(name), pid)
    if holder is not pid and _has_lost_its_thread(holder):
        free(name, holder)
        holder = _holders.setdefault(name, pid)
    if holder is not pid:
        raise AlreadyStarted(f"the name {name!r} belongs to {holder!r}", pid=holder)


def _take_via(name: Via, pid: Any) -> None:
    registrar = name.registrar()
    if registrar is None:
        raise ConfigError(f"{name!r} is no name: there is no registry {name.registry!r}; start it first")
    if not registrar.register_name(name.key, pid, name.value):
        holder = registrar.whereis_name(name.key)
        raise AlreadyStarted(f"the name {name!r} belongs to {holder!r}", pid=holder)


def free(name: str | Via, pid: Any) -> None:
    """Let another one take `name`, which `pid` has."""
    if not isinstance(name, Via):
        if _holders.get(name) is pid:
            del _holders[name]
        return
    registrar = name.registrar()
    # The registry may be another one by now, in which the name belongs to somebody else.
    if registrar is not None and registrar.whereis_name(name.key) in (pid, None):
        registrar.unregister_name(name.key)


def holder_of(name: str | Via) -> Any:
    """The pid that has `name`, or None. raises: ConfigError"""
    if isinstance(name, Via):
        registrar = name.registrar()
        return None if registrar is None else registrar.whereis_name(name.key)
    holder = _holders.get(check_name(name))
    return None if holder is None or _has_lost_its_thread(holder) else holder


def _has_lost_its_thread(pid: Any) -> bool:
    """True for a process that nothing runs any more, and that will never say that it has ended."""
    return bool(pid.process.hub.dead)
