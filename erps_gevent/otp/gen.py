"""The caller's half of a gen_server: call, cast, stop, and what a caller is told when there is no reply.

A call is a monitor, a message and a wait: whatever ends the server ends the wait, at once and with the real reason.
The caller's mailbox is never looked at.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from gevent.hub import Waiter

from erps_gevent.errors import BadReturn, CallExit, CallingSelf, CallTimeout, NoProc, ServerExit
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.messages import Call, Cast, LocalFrom, StopRequest
from erps_gevent.otp.process import Pid, Process, current, whereis
from erps_gevent.otp.reasons import NOPROC, NORMAL, kind_and_message

TIMED_OUT = object()  # what an Alarm switches its waiter with


def describe(reason: Any) -> str:
    """An exit reason in words."""
    if isinstance(reason, BaseException):
        return f"{type(reason).__name__}: {reason}"
    return repr(reason)


def exit_error(reason: Any, request: Any) -> CallExit:
    """What a caller gets when the server ended with `reason` before it answered."""
    if reason is NOPROC:
        return NoProc("the process is dead", reason=NOPROC, request=request)
    kind, message = kind_and_message(reason)
    kinds = BadReturn if isinstance(reason, BadReturn) else ServerExit
    text = f"the server ended before it answered: {describe(reason)}"
    error = kinds(text, reason=reason, request=request, kind=kind, message=message)
    error.__cause__ = reason if isinstance(reason, BaseException) else None
    return error


class Alarm:
    """Switch a waiter with TIMED_OUT after some seconds, unless left before."""

    def __init__(self, waiter: Waiter[Any], seconds: float | None) -> None:
        # libuv has millisecond timers and warns below them.
        self.timer = None if seconds is None else waiter.hub.loop.timer(max(seconds, 0.001))
        self.waiter = waiter

    def __enter__(self) -> None:
        if self.timer is not None:
            self.timer.start(self.waiter.switch, TIMED_OUT)

    def __exit__(self, *_: object) -> None:
        if self.timer is not None:
            self.timer.close()


class LocalGateway:
    """`call` and `cast` into the mailbox of a process of this Python process."""

    __slots__ = ("process",)

    def __init__(self, process: Process) -> None:
        self.process = process

    def call(self, request: Any, timeout: float | None = 5.0) -> Any:
        process = self.process
        behaviour.number(0, none=True)("timeout", timeout)
        if process is current():
            raise CallingSelf(f"{process.pid!r} called itself", reason="calling_self", request=request)
        if bridge.is_foreign(process.hub):
            return bridge.run_in(process.hub, self.call, request, timeout)
        from_ = LocalFrom(process.hub, None if timeout is None else monotonic() + timeout)
        monitor = process.monitor(lambda reason: from_._fail(exit_error(reason, request)))
        process.send(Call(request, from_))
        try:
            with Alarm(from_.waiter, timeout):
                value = from_.waiter.get()
        finally:
            process.demonitor(monitor)
            from_.done = True
        if value is TIMED_OUT:
            text = f"{process.pid!r} did not answer in {timeout} s"
            raise CallTimeout(text, reason="timeout", request=request, sent=True)
        return value

    def cast(self, request: Any) -> None:
        if bridge.is_foreign(self.process.hub):
            self.process.hub.loop.run_callback_threadsafe(self.process.send, Cast(request))
        else:
            self.process.send(Cast(request))


def stop(pid: Pid, reason: Any = NORMAL, timeout: float | None = None) -> None:
    """Ask a local process to stop with `reason`, and wait until it is dead.

    raises: NoProc       it is dead already.
            CallingSelf  a process cannot wait for its own end; return Stop(reason) instead.
            CallTimeout  it is still alive, finishing its terminate.
            ServerExit   it ended with another reason.
    switch: parks.
    source: GenServer.stop/3
    """
    process = pid.process
    if process is current():
        raise CallingSelf(f"{pid!r} cannot stop itself so; return Stop(reason)", reason="calling_self")
    if bridge.is_foreign(process.hub):
        return bridge.run_in(process.hub, stop, pid, reason, timeout)
    if not process.alive:
        raise NoProc(f"{pid!r} is dead", reason=NOPROC)
    waiter: Waiter[Any] = Waiter(process.hub)
    monitor = process.monitor(lambda final: process.hub.loop.run_callback(waiter.switch, final))
    process.send(StopRequest(reason))
    try:
        with Alarm(waiter, timeout):
            final = waiter.get()
    finally:
        process.demonitor(monitor)
    if final is TIMED_OUT:
        raise CallTimeout(f"{pid!r} did not stop in {timeout} s", reason="timeout", sent=True)
    if final is not reason and final != reason:
        raise exit_error(final, None)
    return None


def resolve(target: Any, request: Any = None) -> Any:
    """What `call` and `cast` go to: a pid, the pid of a name, or a client as it is.

    raises: NoProc  nothing has that name, or the target is None.
    """
    found = whereis(target) if isinstance(target, str) and target else target
    if found is None:
        raise NoProc(f"there is no process {target!r}", reason=NOPROC, request=request)
    if not (hasattr(found, "call") and hasattr(found, "cast")):
        raise TypeError(f"call and cast take a pid, a name or a client, not {target!r}")
    return found


def call(target: Any, request: Any, timeout: float | None = 5.0) -> Any:
    """Ask a process and return its reply, as `GenServer.call/3`.

    target:  a Pid, a local name, or a Client; a client, and its pid and name, mean the server at the other end.
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
