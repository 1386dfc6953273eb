"""Child specifications: what a supervisor knows of a child.

A spec is a dict, as in OTP:

    id           names the child within its supervisor; any value that can be a key
    start        (function, args) or (function, args, kwargs): called in the supervisor's process, returns a linked Pid
    restart      "permanent" always, "transient" unless it ended quietly, "temporary" never
    shutdown     seconds that it has to end by itself, "infinity", or "brutal_kill"
    type         "worker" or "supervisor"
    modules      classes for people and tools to see, or "dynamic"; by default the one whose method `start` is
    significant  True: its end may end the supervisor, see auto_shutdown
    backoff      (first, longest): seconds to wait before a restart, doubling from the first to the longest. OTP has no
                 such thing; without it a restart is immediate

`id` and `start` must be there. The rest has OTP's defaults.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from erps_gevent.errors import ConfigError
from erps_gevent.otp.behaviour import Option, checked, did_you_mean, flag, number, one_of
from erps_gevent.otp.reasons import brief
from erps_gevent.otp.words import ABSENT

logger = logging.getLogger("erps_gevent")

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


def _id(name: str, value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        raise ConfigError(f"{name} is a value that can be a key of a dict, not {value!r}") from None
    return value


def _start(name: str, value: Any) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    match value:
        case (function, [*args]) | (function, [*args], None) if callable(function):
            return function, tuple(args), {}
        case (function, [*args], Mapping() as kwargs) if callable(function):
            return function, tuple(args), dict(kwargs)
    hint = f"; write ({getattr(value, '__name__', value)}, ())" if callable(value) else ""
    raise ConfigError(f"{name} is (function, args) or (function, args, kwargs), not {brief(value)}{hint}")


def _modules(name: str, value: Any) -> Any:
    if value == "dynamic" or isinstance(value, list | tuple):
        return value if isinstance(value, str) else list(value)
    raise ConfigError(f"{name} is a list of classes or 'dynamic', not {value!r}")


def _backoff(name: str, value: Any) -> tuple[float, float] | None:
    match value:
        case None:
            return None
        case (first, longest):
            if 0 < (_seconds(name, first) or 0) <= (_seconds(name, longest) or 0):
                return first, longest
    raise ConfigError(f"{name} is (first, longest) in seconds, with 0 < first <= longest, not {value!r}")


# The class keywords of every behaviour.
CHILD = {
    "id": Option(None, _anything),
    "restart": Option("permanent", restart),
    "shutdown": Option(5.0, shutdown),
    "forward_callers": Option(False, flag),
}

# The keys of a spec.
SPEC = {
    "id": Option(ABSENT, _id),
    "start": Option(ABSENT, _start),
    "restart": Option("permanent", restart),
    "shutdown": Option(ABSENT, shutdown),
    "type": Option("worker", one_of("worker", "supervisor")),
    "modules": Option(ABSENT, _modules),
    "significant": Option(False, flag),
    "backoff": Option(None, _backoff),
}
SHUTDOWNS = {"worker": 5.0, "supervisor": "infinity"}


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


def child_spec(entry: Any, **overrides: Any) -> dict[str, Any]:
    """The spec of a child as a supervisor takes it, with some of its keys changed.

    entry:     a spec; a class with child_spec, such as a GenServer; or a tuple of one and the arguments of child_spec.
    overrides: keys of a spec.
    raises:    TypeError    there is no such key; with the nearest one.
               ConfigError  `entry` is no child, or a value is wrong.
    source:    Supervisor.child_spec/2
    """
    spec = spec_of(entry)
    for key in overrides:
        if key not in SPEC:
            raise TypeError(f"a child spec has no key {key!r}{did_you_mean(key, SPEC)}")
    checked(overrides, SPEC, f"child {overrides.get('id', spec.get('id'))!r}")
    return {**spec, **overrides}


def spec_of(entry: Any) -> dict[str, Any]:
    """The spec that an entry in a list of children stands for; not yet checked.

    raises: ConfigError  it is no child.
    """
    if isinstance(entry, Mapping):
        return dict(entry)
    who, args = (entry[0], entry[1:]) if isinstance(entry, tuple) and entry else (entry, ())
    maker = getattr(who, "child_spec", None)
    if not callable(maker):
        what = f"{who.__name__} has no child_spec" if isinstance(who, type) else f"{brief(entry)} is no child"
        text = "a child is a spec, a class with child_spec such as a GenServer, or a tuple (class, *arguments)"
        raise ConfigError(f"{what}: {text}")
    spec = maker(*args)
    if not isinstance(spec, Mapping):
        name = getattr(who, "__name__", who)
        raise ConfigError(f"{name}.child_spec returned {brief(spec)}; it returns a dict with at least id and start")
    return dict(spec)


def validated(spec: Mapping[str, Any], required: Iterable[str] = ("id", "start")) -> dict[str, Any]:
    """Every key of the spec, checked, with the defaults of those that are not there.

    A key that there is not is left out, as in OTP, with a warning.
    raises: ConfigError  a key is missing or wrong; the text names the child.
    """
    where = f"child {spec['id']!r}" if "id" in spec else f"child {brief(spec)}"
    for key in required:
        if key not in spec:
            raise ConfigError(f"{where}: a child spec needs {key!r}")
    for key in [key for key in spec if key not in SPEC]:
        logger.warning("%s: ignored the unknown key %r of its child spec%s", where, key, did_you_mean(str(key), SPEC))
    known = {key: value for key, value in spec.items() if key in SPEC}
    given = {**{key: option.default for key, option in SPEC.items()}, **checked(known, SPEC, where)}
    if given["shutdown"] is ABSENT:
        given["shutdown"] = SHUTDOWNS[given["type"]]
    function = given["start"][0]
    if given["id"] is ABSENT:
        given["id"] = getattr(function, "__qualname__", function)
    if given["modules"] is ABSENT:
        # A start function is a class method as a rule.
        owner = getattr(function, "__self__", None)
        given["modules"] = [owner] if isinstance(owner, type) else []
    if given["significant"] and given["restart"] == "permanent":
        text = "a permanent child is always restarted, so that its end means nothing; make it transient or temporary"
        raise ConfigError(f"{where}: significant=True: {text}")
    return given
