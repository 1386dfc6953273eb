"""The caller's half of a gen_server: call, cast, stop, and what a caller is told when there is no reply.

A call is a monitor, a message and a wait: whatever ends the server ends the wait, at once and with the real reason.
The caller's mailbox is never looked at.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, ClassVar

from gevent.exceptions import LoopExit

from erps_gevent.errors import BadReturn, CallExit, CallingSelf, CallTimeout, NoProc, ServerExit
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.messages import Call, Cast, LocalFrom, StopRequest
from erps_gevent.otp.names import Via
from erps_gevent.otp.process import Pid, Process, current, whereis
from erps_gevent.otp.reasons import brief, is_same, kind_and_message, text_of
from erps_gevent.otp.waiting import TIMED_OUT, answer
from erps_gevent.otp.words import NOPROC, NORMAL

_check_timeout = behaviour.number(0, none=True)


def describe(reason: Any) -> str:
    """An exit reason in words."""
    if isinstance(reason, BaseException):
        return f"{type(reason).__name__}: {text_of(reason)}"
    return brief(reason)


def exit_error(reason: Any, request: Any, what: str = "the server ended before it answered") -> CallExit:
    """What a caller gets when the server ended with `reason` before it answered."""
    if reason is NOPROC:
        return NoProc("the process is dead", reason=NOPROC, request=request)
    kind, message = kind_and_message(reason)
    kinds = BadReturn if isinstance(reason, BadReturn) else ServerExit
    error = kinds(f"{what}: {describe(reason)}", reason=reason, request=request, kind=kind, message=message)
    error.__cause__ = reason if isinstance(reason, BaseException) else None
    return error


def dead_end(who: object, request: Any = None) -> CallExit:
    """What replaces gevent's LoopExit: the main greenlet waits for `who`, and nothing is left that could wake it."""
    text = f"{who!r} will never answer: this thread has no greenlet, timer or socket left that could let it go on"
    return CallExit(text, reason="deadlock", request=request, sent=True)


class LocalGateway:
    """`call` and `cast` into the mailbox of a process of this Python process.

    event: what a call puts there.
    """

    __slots__ = ("process",)
    event: ClassVar[type[Call]] = Call

    def __init__(self, process: Process) -> None:
        self.process = process

    def call(self, request: Any, timeout: float | None = 5.0) -> Any:
        _check_timeout("timeout", timeout)
        process, caller = self.process, current()
        if process is caller:
            raise CallingSelf(f"{process.pid!r} called itself", reason="calling_self", request=request)
        if not bridge.is_foreign(process.hub):
            return self._call(request, timeout, caller.pid if caller else None)
        try:
            return bridge.run_in(process.hub, self._call, request, timeout, None, patience=timeout)
        except CallExit as error:
            error.request = request
            raise

    def _call(self, request: Any, timeout: float | None, caller: Pid | None) -> Any:
        process = self.process
        if not process.alive:
            raise NoProc(f"{process.pid!r} is dead", reason=NOPROC, request=request)
        from_ = LocalFrom(process.hub, None if timeout is None else monotonic() + timeout, caller)
        monitor = process.monitor(lambda reason: from_._fail(exit_error(reason, request)))
        process.send(self.event(request, from_))
        try:
            value = answer(from_.waiter, timeout)
        except LoopExit as nothing:
            raise dead_end(process.pid, request) from nothing
        finally:
            process.demonitor(monitor)
            from_.done = True
        if value is TIMED_OUT:
            text = f"{process.pid!r} did not answer in {timeout} s"
            raise CallTimeout(text, reason="timeout", request=request, sent=True)
        return value

    def cast(self, request: Any) -> None:
        self.process.send(Cast(request))


def stop(target: Any, reason: Any = NORMAL, timeout: float | None = None) -> None:
    """Ask a local process to stop with `reason`, and wait until it is dead.

    target:  its Pid or name; or a Client, which means its own process, and closes it.
    timeout: seconds; None waits for ever.
    raises:  NoProc       it is dead already, or there is none.
             CallingSelf  a process cannot wait for its own end; return Stop(reason) instead.
             CallTimeout  it is still alive, finishing its terminate.
             ServerExit   it ended with another reason.
             CallExit     "deadlock", in the main greenlet: it waits, and nothing else is left that runs.
    switch:  parks.
    source:  GenServer.stop/3
    """
    _check_timeout("timeout", timeout)
    process = process_of(target)
    if process is current():
        raise CallingSelf(f"{process.pid!r} cannot stop itself so; return Stop(reason)", reason="calling_self")
    if bridge.is_foreign(process.hub):
        return bridge.run_in(process.hub, _stop, process, reason, timeout, patience=timeout)
    return _stop(process, reason, timeout)


def _stop(process: Process, reason: Any, timeout: float | None) -> None:
    if not process.alive:
        raise NoProc(f"{process.pid!r} is dead", reason=NOPROC)
    process.send(StopRequest(reason))
    try:
        final = process.join(timeout)
    except LoopExit as nothing:
        raise dead_end(process.pid) from nothing
    if final is TIMED_OUT:
        raise CallTimeout(f"{process.pid!r} did not stop in {timeout} s", reason="timeout", sent=True)
    if not is_same(final, reason):
        raise exit_error(final, None, f"{process.pid!r} did not end with {describe(reason)}")


def process_of(target: Any) -> Process:
    """The local process that is meant by a pid, a name, a Via or a client, which means its own.

    raises: NoProc  there is none; a client has one from its start on.
    """
    found = resolve(target)
    pid: Pid | None = found if isinstance(found, Pid) else getattr(found, "pid", None)
    if pid is None:
        raise NoProc(f"{target!r} has no process yet", reason=NOPROC)
    return pid.process


def resolve(target: Any, request: Any = None) -> Any:
    """What `call` and `cast` go to: a pid, the pid of a name or a Via, or a client as it is.

    raises: NoProc  nothing has that name, or the target is None.
    """
    named = isinstance(target, Via) or (isinstance(target, str) and target)
    found = whereis(target) if named else target
    if found is None:
        raise NoProc(f"there is no process {target!r}", reason=NOPROC, request=request)
    if not (hasattr(found, "call") and hasattr(found, "cast")):
        raise TypeError(f"call and cast take a pid, a name or a client, not {target!r}")
    return found


def call(target: Any, request: Any, timeout: float | None = 5.0) -> Any:
    """Ask a process and return its reply, as `GenServer.call/3`.

    target:  a Pid, a local name, a Via, or a Client; a client, and its pid and name, mean the server at the other end.
    timeout: seconds for the whole call; 0 gives up at once, None waits for ever.
    raises:  ErrorReply, and every CallExit.
    switch:  parks.
    """
    return resolve(target, request).call(request, timeout)


def cast(target: Any, request: Any) -> None:
    """Tell a process and do not wait, as `GenServer.cast/2`. A dead or unknown local process is no error."""
    try:
        found = resolve(target, request)
    except NoProc:
        return
    found.cast(request)
