"""What an operator may ask of any running gen_server: its state, its status, to stand still, to be watched.

    from erps_gevent import sys

    sys.get_state("shop")                                       # {'stock': 3, ...}
    sys.replace_state("shop", lambda state: {**state, "stock": 0})
    sys.suspend("shop")                                         # calls wait until sys.resume("shop")
    sys.trace("shop", True)                                     # each event in the log

`target` is everywhere what `stop` takes: a Pid, a name, a Via, or a Client, which means its own process. These
functions work from any thread and park the caller. Their messages take their turn in the mailbox; they neither end an
IdleTimeout nor wake a process that hibernates. All of them raise

    NoProc       it is dead, there is none, or it is a process that runs a function and is no gen_server.
    CallTimeout  it was busy for longer than `timeout` seconds (None waits for ever). It does what was asked all the
                 same when its turn comes.
    CallingSelf  a process cannot wait for itself.
    ServerExit   it ended meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from erps_gevent.errors import ConfigError, NoProc
from erps_gevent.otp import behaviour
from erps_gevent.otp.gen import LocalGateway, process_of, stop
from erps_gevent.otp.messages import Call
from erps_gevent.otp.process import Pid
from erps_gevent.otp.system import System
from erps_gevent.otp.words import NOPROC, NORMAL

__all__ = [
    "get_state",
    "get_status",
    "log",
    "replace_state",
    "resume",
    "statistics",
    "suspend",
    "terminate",
    "trace",
]

LOGGED = 10  # events that log(target, True) keeps


class _SystemGateway(LocalGateway):
    __slots__ = ()
    event: ClassVar[type[Call]] = System


def _ask(target: Any, timeout: float | None, *request: Any) -> Any:
    process = process_of(target)
    if process.gateway is None and process.alive:
        text = f"{process.pid!r} takes no system messages: it runs a function and is no gen_server"
        raise NoProc(text, reason=NOPROC, request=request)
    return _SystemGateway(process).call(request, timeout)


def get_state(target: Any, timeout: float | None = 5.0) -> dict[str, Any]:
    """The state: the attributes of the instance by name, without the library's own. As it is, not by format_state.

    The dict is a copy; what is in it is not.
    source: sys:get_state/2
    """
    state: dict[str, Any] = _ask(target, timeout, "get_state")
    return state


def replace_state(
    target: Any, function: Callable[[dict[str, Any]], dict[str, Any]], timeout: float | None = 5.0
) -> dict[str, Any]:
    """Let the state be what `function(state)` returns, and return that.

    function: takes and returns a dict as `get_state` does; runs in the process. An attribute that it leaves out is
              gone.
    raises:   CallExit   with reason "callback_failed": the function raised, which is the cause, or returned no state;
                         the state is as it was and the process lives.
              TypeError  `function` is none.
    source:   sys:replace_state/3
    """
    if not callable(function):
        raise TypeError(f"replace_state takes a function of the state, not {function!r}")
    state: dict[str, Any] = _ask(target, timeout, "replace_state", function)
    return state


def get_status(target: Any, timeout: float | None = 5.0) -> dict[str, Any]:
    """How it is, as a dict.

    Its keys: pid, module (the class), status ("running" or "suspended"), parent (a pid or None), registered_name,
    hibernating, state (what its `format_state` made of it).
    source: sys:get_status/2
    """
    status: dict[str, Any] = _ask(target, timeout, "get_status")
    return status


def suspend(target: Any, timeout: float | None = 5.0) -> None:
    """Have it take nothing but system messages, stop requests and the exit of its parent; all else waits in order.

    Callers may time out meanwhile. A server with a line does not serve what comes over it; the line itself lives, and
    is looked at as that of a server whose handler is parked. If the line ends, the server does when it is resumed. A
    client's calls go on; its pushes wait, as many as max_pushes.
    source: sys:suspend/2
    """
    _ask(target, timeout, "suspend")


def resume(target: Any, timeout: float | None = 5.0) -> None:
    """Undo `suspend`. An IdleTimeout that has passed meanwhile fires now, unless a message waits.

    source: sys:resume/2
    """
    _ask(target, timeout, "resume")


def statistics(target: Any, flag: bool | str, timeout: float | None = 5.0) -> dict[str, Any] | None:
    """Count what comes in and goes out from now on (True), stop that (False), or return the counts ("get").

    Those are a dict of start_time and current_time, in seconds since the epoch, messages_in, and messages_out, the
    replies that a callback returned or raised; None if it does not count.
    raises: ConfigError  the flag is something else.
    source: sys:statistics/3
    """
    counts: dict[str, Any] | None = _ask(target, timeout, "statistics", _checked(flag))
    return counts


def log(target: Any, flag: bool | int | str, timeout: float | None = 5.0) -> list[tuple[Any, ...]] | None:
    """Keep the last ten events (True) or as many as the number says, none (False), or return them ("get").

    An event is ("in", message), where a call has the attributes request and from_, a cast request; ("out", reply,
    from_); ("noreply",); or ("continue", argument). None instead of a list if it keeps none.
    raises: ConfigError  the flag is something else.
    source: sys:log/3
    """
    if not isinstance(flag, bool) and isinstance(flag, int):
        wanted: Any = _at_least_one("the count of events", flag)
    else:
        wanted = LOGGED if _checked(flag) is True else flag
    events: list[tuple[Any, ...]] | None = _ask(target, timeout, "log", wanted)
    return events


def trace(target: Any, flag: bool | Callable[[Pid, tuple[Any, ...]], object], timeout: float | None = 5.0) -> None:
    """Log each event through logging's "erps_gevent" at level info (True), or no longer (False).

    flag:   or a function that is called with the pid and the event, as `log` has it, instead. It runs in the process
            and must not call it. One that raises is reported, and called no more.
    raises: ConfigError  it is none of these.
    source: sys:trace/3, sys:install/3
    """
    if not isinstance(flag, bool) and not callable(flag):
        raise ConfigError(f"trace takes True, False or a function of a pid and an event, not {flag!r}")
    _ask(target, timeout, "trace", flag)


def terminate(target: Any, reason: Any = NORMAL, timeout: float | None = None) -> None:
    """`erps_gevent.stop`, which a suspended process heeds too. source: sys:terminate/3"""
    stop(target, reason, timeout)


_at_least_one = behaviour.count(1)


def _checked(flag: Any) -> Any:
    if isinstance(flag, bool) or flag == "get":
        return flag
    raise ConfigError(f"the flag is True, False or 'get', not {flag!r}")
