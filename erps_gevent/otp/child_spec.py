"""Child specifications: what a supervisor knows of a child.

A spec is a dict, as in OTP:

    id        names the child within its supervisor; any value that can be a key
    start     (function, args) or (function, args, kwargs): called in the supervisor's process, returns a linked Pid
    restart   "permanent" always, "transient" unless it ended quietly, "temporary" never
    shutdown  seconds that it has to end by itself, "infinity", or "brutal_kill"
    type      "worker" or "supervisor"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from erps_gevent.errors import ConfigError
from erps_gevent.otp.behaviour import Option, flag, number, one_of

restart = one_of("permanent", "transient", "temporary")
_seconds = number(0)


def shutdown(name: str, value: Any) -> Any:
    """A check: seconds, "brutal_kill" or "infinity"."""
    if value in ("brutal_kill", "infinity"):
        return value
    try:
        return _seconds(name, value)
    except ConfigError:
        raise ConfigError(f"{name} is seconds, 'brutal_kill' or 'infinity', not {value!r}") from None


def _anything(_name: str, value: Any) -> Any:
    return value


# The class keywords of every behaviour.
CHILD = {
    "id": Option(None, _anything),
    "restart": Option("permanent", restart),
    "shutdown": Option(5.0, shutdown),
    "forward_callers": Option(False, flag),
}


def child_spec_of(
    id_: Any,
    start: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: Mapping[str, Any],
    type_: str = "worker",
) -> dict[str, Any]:
    """The spec of a child that `start(*args, **kwargs)` starts.

    id_:     what the child is called unless `options` has an id.
    options: id, restart and shutdown, where they differ from the defaults.
    """
    chosen = {name: options.get(name, CHILD[name].default) for name in ("id", "restart", "shutdown")}
    if chosen["id"] is None:
        chosen["id"] = id_
    return {**chosen, "start": (start, args, kwargs) if kwargs else (start, args), "type": type_}
