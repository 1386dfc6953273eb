"""The generic loop's half of sys: what it does when it is asked for the state of its process, and the like.

The caller's half is sys.py. A system message takes its turn in the mailbox, and the user's class does not see it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from erps_gevent.errors import CallExit
from erps_gevent.otp.attempt import attempt
from erps_gevent.otp.messages import Call
from erps_gevent.otp.process import Process
from erps_gevent.otp.reasons import brief
from erps_gevent.otp.watch import Watch


class System(Call):
    """A call to the loop itself.

    request: one of OPERATIONS and its arguments.
    """

    __slots__ = ()

    def run(self, loop: Any) -> None:
        """Do what is asked, and reply."""
        name, *args = self.request
        try:
            value = OPERATIONS[name](loop, *args)
        except CallExit as error:
            # Its traceback has the frames of this process, which the caller would keep alive.
            self.from_.exited(error.with_traceback(None))
        else:
            self.from_.reply(value)


def state_of(server: Any) -> dict[str, Any]:
    """The attributes of a GenServer's instance, without those of this library."""
    return {name: value for name, value in vars(server).items() if name not in server.OWN_ATTRIBUTES}


def formatted_state(loop: Any) -> Any:
    """The state as `format_state` lets others see it. A hook that fails shows that, and nothing of the state."""
    server = loop.server()
    formatted, failure = attempt(loop.process, server.format_state, state_of(server))
    try:
        return formatted if failure is None else f"format_state failed: {brief(failure)}"
    finally:
        # Its traceback holds this frame, which would hold it in a cycle.
        del failure


def _get_state(loop: Any) -> dict[str, Any]:
    return state_of(loop.server())


def _replace_state(loop: Any, function: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    server = loop.server()
    state, failure = attempt(loop.process, function, state_of(server))
    if failure is None:
        failure = _misfit(server, state)
    if failure is not None:
        text = f"replace_state of {loop.process.pid!r}: the function failed, the state is as it was: {brief(failure)}"
        raise CallExit(text, reason="callback_failed", sent=True) from failure
    # atomic: nobody may see half of the new state.
    attributes = vars(server)
    own = {name: attributes[name] for name in server.OWN_ATTRIBUTES if name in attributes}
    attributes.clear()
    attributes.update(state, **own)
    return state_of(server)


def _misfit(server: Any, state: Any) -> TypeError | None:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        return TypeError(f"the new state is a dict of attributes by name, not {brief(state)}")
    if taken := sorted(server.OWN_ATTRIBUTES & state.keys()):
        return TypeError(f"{taken[0]} belongs to the library and is no part of the state")
    if hidden := sorted(name for name in state.keys() - vars(server).keys() if _is_property(server, name)):
        text = f"is a property of {type(server).__name__}, which would hide it; give it another name"
        return TypeError(f"{hidden[0]} {text}")
    return None


def _is_property(server: Any, name: str) -> bool:
    return isinstance(getattr(type(server), name, None), property)


def _get_status(loop: Any) -> dict[str, Any]:
    process: Process = loop.process
    return {
        "pid": process.pid,
        "module": type(loop.server()),
        "status": "suspended" if loop.suspended else "running",
        "parent": process.parent.pid if process.parent else None,
        "registered_name": process.name,
        "hibernating": process.hibernating,
        "state": formatted_state(loop),
    }


def _suspend(loop: Any) -> None:
    loop.suspended = True


def _resume(loop: Any) -> None:
    loop.suspended = False


def _watching(what: Callable[[Watch, Any], Any]) -> Callable[[Any, Any], Any]:
    """An operation on the Watch of a process, which has one only while there is something to note."""

    def operation(loop: Any, flag: Any) -> Any:
        watch = loop.watch or Watch()
        value = what(watch, flag)
        loop.watch = None if watch.is_idle else watch
        return value

    return operation


OPERATIONS: dict[str, Callable[..., Any]] = {
    "get_state": _get_state,
    "replace_state": _replace_state,
    "get_status": _get_status,
    "suspend": _suspend,
    "resume": _resume,
    "statistics": _watching(Watch.statistics),
    "log": _watching(Watch.log),
    "trace": _watching(Watch.trace),
}
