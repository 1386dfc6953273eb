"""Messages from process to process: send, receive, timers, and addresses for one reply."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Literal

from gevent._hub_local import get_hub_if_exists  # get_hub() would make one in every thread that calls
from gevent.exceptions import LoopExit
from gevent.hub import Hub, get_hub

from erps_gevent.errors import CallTimeout, ConfigError, Exit, NoProc
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.gen import dead_end, resolve
from erps_gevent.otp.messages import Info, StopRequest
from erps_gevent.otp.plain import record
from erps_gevent.otp.process import Pid, Process
from erps_gevent.otp.waiting import SHORTEST

_check_timeout = behaviour.number(0, none=True)
_check_delay = behaviour.number(0)


def send(target: Any, message: Any) -> None:
    """Put `message` into the mailbox of a process, from any thread. Messages of one sender arrive in order.

    target: a Pid, a name, an Alias, or a Client, which means its own process. A dead pid drops the message.
    raises: NoProc  nothing has that name.
    switch: does not park.
    source: send/2
    """
    if isinstance(target, Alias):
        target.deliver(message)
        return
    found = target if isinstance(target, Pid) else _resolved(target, "send")
    (found if isinstance(found, Pid) else found.pid).send(message)


def _resolved(target: Any, what: str) -> Any:
    try:
        return resolve(target)
    except TypeError:
        raise _no_target(target, what) from None


def _no_target(target: Any, what: str) -> TypeError:
    return TypeError(f"{what} takes a Pid, a name, a Via, an Alias or a Client, not {target!r}")


def receive(match: type | tuple[type, ...] | Callable[[Any], bool] | None = None, timeout: float | None = None) -> Any:
    """Return the oldest message in the mailbox that matches; the others stay.

    match:   a class or a tuple of classes, or a function of a message that returns whether it is wanted and does not
             park. None takes any.
    timeout: seconds to wait for one; 0 looks at what is there, None waits for ever.
    raises:  CallTimeout  none came in time.
             CallExit     in the main greenlet, when nothing is left that could ever send one.
    switch:  parks.
    source:  receive ... after
    """
    wanted = _matcher(match)
    deadline = None if timeout is None else monotonic() + (_check_timeout("timeout", timeout) or 0.0)
    process = record()
    try:
        message = process.inbox.select(wanted, deadline)
    except LoopExit as nothing:
        raise dead_end(process.pid) from nothing
    if message is None:
        raise CallTimeout(f"no message that matches came in {timeout} s", reason="timeout")
    if isinstance(message, StopRequest):
        # A process without callbacks stops where it looks for messages.
        raise Exit(message.reason)
    return _plain(message)


def _matcher(match: Any) -> Callable[[Any], bool] | None:
    if match is None:
        return None
    if isinstance(match, (type, tuple)):
        return lambda message: isinstance(message, StopRequest) or isinstance(_plain(message), match)
    if callable(match):
        return lambda message: isinstance(message, StopRequest) or match(_plain(message))
    raise TypeError(f"match is a class, a tuple of classes or a function of a message, not {match!r}")


def _plain(message: Any) -> Any:
    return message.message if isinstance(message, Info) else message


class Timer:
    """A message on its way; see send_after. Opaque.

    hub: where its watcher is, and where alone that may be touched.
    """

    __slots__ = ("deadline", "hub", "pending", "target", "watcher")

    def __init__(self, hub: Hub, target: Any, message: Any, seconds: float) -> None:
        self.hub = hub
        self.deadline = monotonic() + seconds
        self.target = target
        self.pending = True
        self.watcher: Any = None
        self._in_hub(self._arm, message)

    def __repr__(self) -> str:
        return f"<Timer for {self.target!r}>"

    def remaining(self) -> float | Literal[False]:
        return max(0.0, self.deadline - monotonic()) if self.pending else False

    def stop(self) -> None:
        self.pending = False
        self._in_hub(self._close)

    def _in_hub(self, function: Callable[..., object], *args: Any) -> None:
        if bridge.is_foreign(self.hub):
            bridge.hand_over(self.hub, function, *args)
        else:
            function(*args)

    def _arm(self, message: Any) -> None:
        self.watcher = self.hub.loop.timer(max(self.deadline - monotonic(), SHORTEST))
        self.watcher.start(self._fire, message)

    def _close(self) -> None:
        if self.watcher is not None:
            self.watcher.close()
            self.watcher = None

    def _fire(self, message: Any) -> None:
        self.stop()
        try:
            send(self.target, message)
        except NoProc:
            # Nobody has the name any more, and nobody waits here to be told.
            return


def send_after(target: Any, message: Any, seconds: float) -> Timer:
    """`send(target, message)` after `seconds`; a name is looked up then. Return what cancel_timer takes.

    The time passes in the hub of the target if that is a Pid or an Alias, from any thread; for a name or a Client in
    the hub of this thread, which has to run.

    raises: TypeError    it is no target, or None.
            ConfigError  `seconds` is no number of at least 0; or it is a name, and this thread has no hub.
    source: Process.send_after/3
    """
    seconds = _check_delay("seconds", seconds) or 0.0
    return Timer(_hub_for(target), target, message, seconds)


def _hub_for(target: Any) -> Hub:
    """Where a timer for `target` waits. A bad target is refused here, because later nobody would be told."""
    process = target.process if isinstance(target, (Pid, Alias)) else None
    if process is not None:
        return process.hub
    if not isinstance(target, Alias):
        _check_target(target)
    if get_hub_if_exists() is None and threading.current_thread() is not threading.main_thread():
        text = "this thread runs no hub, where a timer for a name would wait; give the Pid, whose own does"
        raise ConfigError(f"send_after({target!r}): {text}")
    return get_hub()


def _check_target(target: Any) -> None:
    try:
        _resolved(target, "send_after")
    except NoProc:
        # Somebody may have the name when it is time; nobody is ever None.
        if target is None:
            raise _no_target(target, "send_after") from None


def cancel_timer(timer: Timer) -> float | Literal[False]:
    """Keep the message from being sent; return the seconds that were left, or False: it has been sent, or cancelled.

    It may be in the mailbox already if False; and, of another thread's process, also if there were seconds left.
    source: Process.cancel_timer/1
    """
    remaining = timer.remaining()
    timer.stop()
    return remaining


def read_timer(timer: Timer) -> float | Literal[False]:
    """The seconds until the message is sent, or False: it has been, or is cancelled. source: Process.read_timer/1"""
    return timer.remaining()


class Alias:
    """An address of a process that can be taken back; see alias. Opaque."""

    __slots__ = ("once", "process")

    def __init__(self, process: Process, once: bool) -> None:
        self.process: Process | None = process
        self.once = once

    def deliver(self, message: Any) -> None:
        process = self.process
        if process is None:
            return
        if self.once:
            self.process = None
        process.pid.send(message)


def alias(option: str = "explicit_unalias") -> Alias:
    """An address of the running process for `send`. What comes after it is taken back is dropped.

    option: "explicit_unalias", until unalias; "reply", for one message.
    raises: ConfigError  it is another word.
    source: Process.alias/1
    """
    once = behaviour.one_of("explicit_unalias", "reply")("option", option) == "reply"
    return Alias(record(), once)


def unalias(address: Alias) -> bool:
    """Take the address back; False if it was no more. source: Process.unalias/1"""
    active, address.process = address.process is not None, None
    return active
