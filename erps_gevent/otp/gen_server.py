"""GenServer: a process that answers calls and casts, one message at a time.

    the user's class                     the generic half (class Loop)
    ----------------                     -----------------------------
    init(*args)                  ◀────── start, start_link        the starter waits for the outcome
        Ok, Ignore, Stop         ──────▶
    handle_call(request, from_)  ◀────── Call   from the inbox
        Reply, NoReply, Stop     ──────▶ from_.reply, then the next message
    handle_cast(request)         ◀────── Cast
    handle_info(message)         ◀────── anything else, and TIMEOUT
    handle_continue(argument)    ◀────── right after an answer with then=Continue(argument)
    terminate(reason)            ◀────── Stop, an exception, stop(), the parent's exit

The rules are OTP's (1 to 6 and 9 as measured on the BEAM); answers are objects, and state lives on the instance.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from time import monotonic
from typing import Any, ClassVar

from gevent.hub import Waiter, get_hub

from erps_gevent.errors import (
    BadReturn,
    EncodeError,
    ErrorReply,
    Exit,
    StartError,
    StartIgnored,
)
from erps_gevent.otp import behaviour
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.gen import TIMED_OUT, Alarm, LocalGateway, describe
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.messages import (
    ABSENT,
    HIBERNATE,
    TIMEOUT,
    Call,
    Continue,
    Continuing,
    Event,
    From,
    IdleTimeout,
    Ignore,
    NoReply,
    Ok,
    Reply,
    Stop,
)
from erps_gevent.otp.process import ExitSignal, Pid, Process, current
from erps_gevent.otp.reasons import KILLED, is_quiet

logger = logging.getLogger("erps_gevent")


class GenServer:
    """Subclass it, keep state on `self`, and answer in the callbacks.

    Options are class keywords: `class Counter(GenServer, shutdown=10.0)`. `init` takes the arguments of `start`; a
    restart is a new instance, so there is no `__init__`.
    """

    OPTIONS: ClassVar[dict[str, Option]] = {}
    START_OPTIONS: ClassVar[dict[str, Option]] = {
        "name": Option(None, lambda _, value: value),
        "timeout": Option(None, behaviour.number(0, none=True)),
    }
    class_options: ClassVar[dict[str, Any]] = {}
    _process: Process

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls) and "OPTIONS" not in vars(cls):
            raise TypeError(f"{cls.__name__} defines __init__; a process starts in init(self, ...): rename it")
        cls.class_options = {**cls.class_options, **behaviour.checked(keywords, cls.OPTIONS, f"class {cls.__name__}")}

    # The callbacks, with what OTP does when they are not defined.

    def init(self) -> Any:
        """Run first, in the new process, with the arguments of start. None means Ok()."""

    def handle_call(self, request: Any, from_: From) -> Any:
        """Answer a call with Reply, NoReply or Stop."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_call, and was called with {request!r}")

    def handle_cast(self, request: Any) -> Any:
        """Take a cast. None means NoReply()."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_cast, and was cast {request!r}")

    def handle_info(self, message: Any) -> Any:
        """Take any other message. None means NoReply()."""
        logger.warning("%r has no handle_info; dropped %r", self.pid, message)

    def handle_continue(self, argument: Any) -> Any:
        """Go on after an answer with then=Continue(argument). None means NoReply()."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_continue for {argument!r}")

    def terminate(self, reason: Any) -> Any:
        """Tidy up before the process ends with `reason`. Not called for a kill or an untrapped exit signal."""

    @property
    def pid(self) -> Pid:
        """The process that this instance is the state of."""
        return self._process.pid

    def trap_exit(self, on: bool = True) -> None:
        """Have exit signals arrive as `ExitSignal` messages, as `Process.flag(:trap_exit, true)`."""
        self._process.trap_exit = on

    def defer(self, from_: From, function: Callable[..., Any], *args: Any) -> NoReply:
        """Answer later: `return self.defer(from_, look_up, sku)`. Meanwhile the process takes its next message.

        function: runs in a greenlet linked to this process. What it returns is the reply, an ErrorReply that it
                  raises is too; any other exception ends the process, as a crash of a linked process does.
        """
        task = Process(Inbox(), f"defer {type(self).__name__}", parent=self._process)
        task.link(self._process)

        def run() -> None:
            try:
                value = function(*args)
            except ErrorReply as refusal:
                from_.fail(refusal)
            else:
                from_.reply(value)

        task.spawn(run)
        return NoReply()

    def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in gevent's thread pool and return its value; other processes run meanwhile.

        switch: parks this process until the function has returned.
        """
        return get_hub().threadpool.apply(function, args)

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> Pid:
        """Start a process without a link. The arguments are those of `init`, and the options `name`, `timeout`.

        name:    a local name for it.
        timeout: seconds that `init` may take; None, the default, is for ever.
        raises:  StartError      init raised, stopped or took too long; `reason` is what it ended with.
                 StartIgnored    init returned Ignore().
                 AlreadyStarted  the name is taken.
                 TypeError       the arguments do not fit init.
        switch:  parks until init has returned.
        source:  GenServer.start/3
        """
        return cls._start(args, kwargs, None)

    @classmethod
    def start_link(cls, *args: Any, **kwargs: Any) -> Pid:
        """`start`, linked to the calling process, which is its parent. A failed start raises and does not kill."""
        return cls._start(args, kwargs, current())

    @classmethod
    def _start(cls, args: tuple[Any, ...], kwargs: dict[str, Any], parent: Process | None) -> Pid:
        given, arguments = behaviour.split(kwargs, cls.START_OPTIONS)
        options = behaviour.checked(given, cls.START_OPTIONS, f"{cls.__name__}.start")
        behaviour.bind(cls, args, arguments, cls.START_OPTIONS)
        server = cls.__new__(cls)
        process = Process(Inbox(), cls.__name__, parent)
        loop = Loop(process, server, args, arguments)
        return loop.start(options.get("name"), options.get("timeout"))


class Loop:
    """The generic half: takes events from the inbox of `process`, runs callbacks, does what their answers say.

    server: the instance. A subclass of Loop may hold it weakly; it is asked for anew for each event.
    """

    def __init__(self, process: Process, server: GenServer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.process = process
        self.instance = server
        self.args = args
        self.kwargs = kwargs
        self.starter: Waiter[Any] | None = None
        server._process = process
        process.gateway = LocalGateway(process)

    def server(self) -> GenServer:
        return self.instance

    def start(self, name: str | None, timeout: float | None) -> Pid:
        """Spawn the process and wait for the outcome of init; see GenServer.start."""
        process = self.process
        if name is not None:
            process.register(name)
        if process.parent is not None:
            process.link(process.parent)
        waiter: Waiter[Any] = Waiter()
        self.starter = waiter
        monitor = process.monitor(lambda reason: process.hub.loop.run_callback(waiter.switch, _start_error(process)))
        process.spawn(self.main)
        with Alarm(waiter, timeout):
            try:
                outcome = waiter.get()
            except BaseException:
                process.die(KILLED)
                raise
        process.demonitor(monitor)
        if outcome is None:
            return process.pid
        if outcome is TIMED_OUT:
            outcome = StartError(f"{process.label}.init took longer than {timeout} s", reason="timeout")
        if process.parent is not None:
            process.unlink(process.parent)
        process.die(KILLED)
        raise outcome

    def main(self) -> None:
        then = self.init()
        if self.starter is not None:
            get_hub().loop.run_callback(self.starter.switch, None)
            self.starter = None
        while True:
            then = self.handle(self.following(then))

    def init(self) -> Any:
        try:
            answer = self.server().init(*self.args, **self.kwargs)
        finally:
            del self.args, self.kwargs
        if answer is None:
            return None
        if isinstance(answer, Ok):
            return answer.then
        if isinstance(answer, Ignore):
            raise Exit(_IGNORED)
        if isinstance(answer, Stop):
            raise Exit(answer.reason)
        raise BadReturn(_bad_return("init", answer, "None, Ok, Ignore or Stop"), reason=answer)

    def following(self, then: Any) -> Any:
        """The next event, as the last answer asked for it."""
        inbox = self.process.inbox
        if then is None or then is HIBERNATE:
            return inbox.next()
        if isinstance(then, Continue):
            return Continuing(then.argument)
        if isinstance(then, IdleTimeout):
            message = inbox.next(monotonic() + then.seconds)
            return TIMEOUT if message is None else message
        text = f"then={then!r} is none of Continue, IdleTimeout, HIBERNATE"
        return self.crash(BadReturn(text, reason=then), "the last answer")

    def handle(self, event: Any) -> Any:
        """Run the callback for one event; return what is to come next."""
        server = self.server()
        try:
            if isinstance(event, Event):
                answer = event.deliver(server)
            elif isinstance(event, ExitSignal) and self.process.parent and event.pid is self.process.parent.pid:
                answer = Stop(event.reason)
            else:
                answer = server.handle_info(event)
        except ErrorReply as refusal:
            if not isinstance(event, Call):
                return self.crash(refusal, event)
            event.from_.fail(refusal)
            return None
        except Exit as exit_:
            if self.process.ending is not None:
                raise
            return self.stop(exit_.reason, event)
        except Exception as error:  # noqa: BLE001  a crash, reported once
            return self.crash(error, event)
        return self.obey(answer, event)

    def obey(self, answer: Any, event: Any) -> Any:
        if type(answer) is Reply and isinstance(event, Call):
            try:
                event.from_.reply(answer.value)
            except EncodeError as error:
                return self.crash(error, event)
            return answer.then
        if answer is None and not isinstance(event, Call):
            return None
        if type(answer) is NoReply:
            return answer.then
        if type(answer) is Stop:
            return self.stop(answer.reason, event, answer.reply)
        legal = "Reply, NoReply or Stop" if isinstance(event, Call) else "None, NoReply or Stop"
        return self.crash(BadReturn(_bad_return("a callback", answer, legal), reason=answer), event)

    def stop(self, reason: Any, event: Any, reply: Any = ABSENT) -> Any:
        """End the process as a callback asked: terminate first, then the reply, then the exit."""
        final = self.terminate(reason)
        if reply is not ABSENT and isinstance(event, Call):
            try:
                event.from_.reply(reply)
            except EncodeError as error:
                final = error
        self.report(final, event)
        raise Exit(final)

    def crash(self, error: Exception, event: Any) -> Any:
        """End the process because of `error`; its callers get it as a ServerExit."""
        final = self.terminate(error)
        self.report(final, event)
        raise Exit(final)

    def terminate(self, reason: Any) -> Any:
        """Run the callback; an exception in it replaces the reason."""
        try:
            self.server().terminate(reason)
        except Exit as exit_:
            if self.process.ending is not None:
                raise
            return exit_.reason
        except Exception as error:  # noqa: BLE001  it becomes the reason
            return error
        return reason

    def report(self, reason: Any, event: Any) -> None:
        """Log a crash once, with the last message and the state; quiet reasons leave nothing."""
        if is_quiet(reason):
            return
        server = self.server()
        state = {name: value for name, value in vars(server).items() if not name.startswith("_")}
        trace = "".join(traceback.format_exception(reason)) if isinstance(reason, BaseException) else ""
        logger.error(
            "%r terminating\nreason: %r\nlast message: %r\nstate: %r\n%s",
            self.process.pid,
            reason,
            event,
            state,
            trace.rstrip(),
        )


_IGNORED = object()


def _bad_return(who: str, answer: Any, legal: str) -> str:
    return f"{who} returned {answer!r}; it may return {legal}"


def _start_error(process: Process) -> Exception:
    reason = process.reason
    if reason is _IGNORED:
        return StartIgnored(f"{process.label}.init returned Ignore()")
    error = StartError(f"{process.label} did not start: {describe(reason)}", reason=reason)
    error.__cause__ = reason if isinstance(reason, BaseException) else None
    return error
