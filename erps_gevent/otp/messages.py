"""What goes into a gen_server and what comes out: the answers of callbacks, reply addresses, and events."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar, Protocol

from gevent.hub import Hub, Waiter

from erps_gevent.errors import CallExit, ConfigError, ErrorReply
from erps_gevent.otp import behaviour, bridge
from erps_gevent.otp.reasons import brief
from erps_gevent.otp.words import ABSENT


@dataclass(frozen=True)
class Continue:
    """`then=Continue(x)`: `handle_continue(x)` runs before any queued message."""

    argument: Any


@dataclass(frozen=True)
class IdleTimeout:
    """`then=IdleTimeout(seconds)`: `handle_info(TIMEOUT)` unless a message comes first.

    raises: ConfigError  `seconds` is no number of at least 0.
    """

    seconds: float

    def __post_init__(self) -> None:
        _idle_seconds("IdleTimeout: seconds", self.seconds)


_idle_seconds = behaviour.number(0)


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a call with `value`."""

    value: Any
    then: Any = None


@dataclass(frozen=True, slots=True)
class NoReply:
    """Answer nothing now; for a call, `from_.reply(value)` comes later."""

    then: Any = None


@dataclass(frozen=True, slots=True)
class Stop:
    """End the process with `reason`; a call gets `reply` if one is given, after `terminate` has run."""

    reason: Any
    reply: Any = ABSENT


@dataclass(frozen=True, slots=True)
class Ok:
    """`init` is done."""

    then: Any = None


@dataclass(frozen=True, slots=True)
class Ignore:
    """From `init`: there is to be no process, and that is no failure."""


class From:
    """The reply address of one call. Opaque; reply once, from any greenlet or thread, later replies are dropped."""

    __slots__ = ("deadline", "done", "hub")
    is_remote: ClassVar[bool] = False

    def __init__(self, hub: Hub, deadline: float | None) -> None:
        self.hub = hub
        self.deadline = deadline
        self.done = False

    def reply(self, value: Any) -> None:
        """Answer the call.

        raises: EncodeError  the value cannot be sent to a remote caller, who gets the same as a ServerExit.
        switch: may park when a remote caller does not read, for 5 s at the most.
        """
        if bridge.is_foreign(self.hub):
            bridge.run_in(self.hub, self.reply, value)
        elif not self.done:
            self.done = True
            self._reply(value)

    def fail(self, error: ErrorReply) -> None:
        """Answer the call with an `ErrorReply`, which is raised in the caller.

        raises: as reply.
        """
        if not isinstance(error, ErrorReply):
            raise ConfigError(f"fail() takes an ErrorReply, not {error!r}")
        # A copy has no traceback, which would hold the frames of the one who raised it, and grow with each caller.
        self._answer(self._fail, copy.copy(error))

    def exited(self, error: Exception) -> None:
        """Tell the caller that nobody will answer any more: `error`, mostly a CallExit, is raised in it."""
        self._answer(self._fail, error)

    def remaining(self) -> float | None:
        """Seconds left of the caller's deadline, 0.0 when nobody waits any more; None if it waits for ever."""
        if self.done:
            return 0.0
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    def hold(self) -> None:
        """A greenlet works on this call from now on, until `release`, whether anybody waits for it or not."""

    def release(self) -> None:
        """It has ended. Idempotent."""

    def _answer(self, how: Callable[[Any], None], what: Any) -> None:
        if bridge.is_foreign(self.hub):
            bridge.run_in(self.hub, self._answer, how, what)
        elif not self.done:
            self.done = True
            how(what)

    def _reply(self, value: Any) -> None:
        raise NotImplementedError

    def _fail(self, error: CallExit | ErrorReply) -> None:
        raise NotImplementedError


class LocalFrom(From):
    """The reply address of a call from this Python process.

    caller: who calls, for the log: a pid, or None for a greenlet that is no process.
    """

    __slots__ = ("caller", "waiter")

    def __init__(self, hub: Hub, deadline: float | None, caller: object = None) -> None:
        super().__init__(hub, deadline)
        self.waiter: Waiter[Any] = Waiter(hub)
        self.caller = caller

    def __repr__(self) -> str:
        return f"<From {self.caller or 'a greenlet that is no process'}>"

    def _reply(self, value: Any) -> None:
        self.hub.loop.run_callback(self.waiter.switch, value)

    def _fail(self, error: CallExit | ErrorReply) -> None:
        self.hub.loop.run_callback(self.waiter.throw, error)


def reply(from_: From, value: Any) -> None:
    """`from_.reply(value)`, as `GenServer.reply/2`."""
    from_.reply(value)


def is_remote(from_: From) -> bool:
    """True if the caller is at the other end of a line."""
    return from_.is_remote


class Gateway(Protocol):
    """What a pid passes `call` and `cast` on to: the mailbox of a gen_server, or the line of a client."""

    def call(self, request: Any, timeout: float | None = 5.0) -> Any: ...
    def cast(self, request: Any) -> None: ...


class Event:
    """A message that a gen_server handles otherwise than by `handle_info`.

    callback: the name of what `deliver` runs.
    """

    __slots__ = ()
    callback: ClassVar[str] = "handle_info"

    def deliver(self, server: Any) -> Any:
        """Run the callback and return its answer."""
        raise NotImplementedError


class Call(Event):
    __slots__ = ("from_", "request")
    callback = "handle_call"

    def __init__(self, request: Any, from_: From) -> None:
        self.request = request
        self.from_ = from_

    def __repr__(self) -> str:
        return f"call {brief(self.request)}"

    def deliver(self, server: Any) -> Any:
        return server.handle_call(self.request, self.from_)


class Cast(Event):
    __slots__ = ("request",)
    callback = "handle_cast"

    def __init__(self, request: Any) -> None:
        self.request = request

    def __repr__(self) -> str:
        return f"cast {brief(self.request)}"

    def deliver(self, server: Any) -> Any:
        return server.handle_cast(self.request)


class Continuing(Event):
    __slots__ = ("argument",)
    callback = "handle_continue"

    def __init__(self, argument: Any) -> None:
        self.argument = argument

    def __repr__(self) -> str:
        return f"continue {brief(self.argument)}"

    def deliver(self, server: Any) -> Any:
        return server.handle_continue(self.argument)


class Info(Event):
    """A message as an event, for the one that no inbox takes as it is: None."""

    __slots__ = ("message",)

    def __init__(self, message: Any) -> None:
        self.message = message

    def __repr__(self) -> str:
        return brief(self.message)

    def deliver(self, server: Any) -> Any:
        return server.handle_info(self.message)


class StopRequest(Event):
    """The process is asked to stop: `stop(pid, reason)`, or its line is gone."""

    __slots__ = ("reason",)

    def __init__(self, reason: Any) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"stop {brief(self.reason)}"

    def deliver(self, server: Any) -> Any:
        return Stop(self.reason)
