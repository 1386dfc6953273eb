"""GenServer: a process that answers calls and casts, one message at a time.

    the user's class                     the generic half (loop.py)
    ----------------                     --------------------------
    init(*args)                  ◀────── start, start_link        the starter waits for the outcome
        Ok, Ignore, Stop         ──────▶
    handle_call(request, from_)  ◀────── Call   from the inbox
        Reply, NoReply, Stop     ──────▶ from_.reply, then the next message
    handle_cast(request)         ◀────── Cast
    handle_info(message)         ◀────── anything else, and TIMEOUT
    handle_continue(argument)    ◀────── right after an answer with then=Continue(argument)
    terminate(reason)            ◀────── Stop, an exception, stop(), the parent's exit

The rules are OTP's (1 to 6 and 9 as measured on the BEAM); answers are objects, and state lives on the instance.

gevent is not the BEAM: a callback that computes holds up every other process until it parks, so long work belongs into
`run_blocking`. What escapes from a callback is a crash, whatever it is: an exception, a gevent.Timeout, sys.exit().
Only Ctrl-C goes on to the program. docs/otp.md has the whole list.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar, cast

import gevent
from gevent.hub import get_hub

from erps_gevent.errors import ErrorReply, Exit, NoProc
from erps_gevent.otp import behaviour, universe
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.child_spec import CHILD, child_spec_of
from erps_gevent.otp.gen import exit_error
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.loop import Loop
from erps_gevent.otp.messages import From, NoReply
from erps_gevent.otp.primitives import demonitor, monitor
from erps_gevent.otp.process import Pid, Process, starter
from erps_gevent.otp.reasons import brief
from erps_gevent.otp.words import NOPROC, NORMAL

__all__ = ["GenServer", "Loop"]

logger = logging.getLogger("erps_gevent")


class GenServer:
    """Subclass it, keep state on `self`, and answer in the callbacks.

    Options are class keywords. `init` takes the arguments of `start`; a restart is a new instance, so there is no
    `__init__`.
    """

    OPTIONS: ClassVar[dict[str, Option]] = CHILD
    START_OPTIONS: ClassVar[dict[str, Option]] = {
        "name": Option(None, lambda _, value: value),
        "timeout": Option(None, behaviour.number(0, none=True)),
        "hibernate_after": Option(None, behaviour.number(0, none=True)),
        "forward_callers": CHILD["forward_callers"],
    }
    # The attributes of an instance that are no part of its state.
    OWN_ATTRIBUTES: ClassVar[frozenset[str]] = frozenset({"_process"})
    class_options: ClassVar[dict[str, Any]] = {}
    _process: Process

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__()
        for base in cls.__mro__[:-1]:
            # A face of this library that has an __init__, as Client has, has a table of options too.
            if "__init__" in vars(base) and "OPTIONS" not in vars(base):
                raise TypeError(f"{base.__name__} defines __init__; a process starts in init(self, ...): rename it")
        if taken := sorted({"pid", "trap_exit"} & vars(cls).keys()):
            raise TypeError(f"{cls.__name__}.{taken[0]} would hide the process's own; set it in init, or rename it")
        cls.class_options = {**cls.class_options, **behaviour.checked(keywords, cls.OPTIONS, f"class {cls.__name__}")}

    # The callbacks, with what OTP does when they are not defined.

    def init(self) -> Any:
        """Run first, in the new process, with the arguments of start. None means Ok()."""

    def handle_call(self, request: Any, from_: From) -> Any:
        """Answer a call with Reply, NoReply or Stop."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_call, and was called with {brief(request)}")

    def handle_cast(self, request: Any) -> Any:
        """Take a cast. None means NoReply()."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_cast, and was cast {brief(request)}")

    def handle_info(self, message: Any) -> Any:
        """Take any other message. None means NoReply()."""
        logger.warning("%r has no handle_info; dropped %s", self.pid, brief(message))

    def handle_continue(self, argument: Any) -> Any:
        """Go on after an answer with then=Continue(argument). None means NoReply()."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_continue for {brief(argument)}")

    def terminate(self, reason: Any) -> Any:
        """Tidy up before the process ends with `reason`. Not called for a kill or an untrapped exit signal."""

    def format_state(self, state: dict[str, Any]) -> Any:
        """What crash reports and sys.get_status show of the state; override it to leave out what is secret or large.

        state: the attributes of this instance by name, in a dict of their own.
        source: format_status/1
        """
        return state

    @property
    def pid(self) -> Pid:
        """The process that this instance is the state of. raises: NoProc  it has not been started."""
        process = vars(self).get("_process")
        if process is None:
            text = f"this {type(self).__name__} has no process yet; a client has one after connect() or a first call"
            raise NoProc(text, reason=NOPROC)
        return cast(Process, process).pid

    @property
    def trap_exit(self) -> bool:
        """True: exit signals arrive as `ExitSignal` messages, as after `Process.flag(:trap_exit, true)`."""
        return self._process.trap_exit

    @trap_exit.setter
    def trap_exit(self, on: bool) -> None:
        self._process.trap_exit = behaviour.flag("trap_exit", on)

    def defer(self, from_: From, function: Callable[..., Any], *args: Any) -> NoReply:
        """Answer later: `return self.defer(from_, look_up, sku)`. Meanwhile the process takes its next message.

        function: runs in a greenlet linked to this process. What it returns is the reply, an ErrorReply that it
                  raises is too; any other exception is the caller's ServerExit and ends the process, as a crash of a
                  linked process does.
        """
        if not isinstance(from_, From):
            raise TypeError(f"defer takes the from_ of handle_call, which says whom to answer, not {brief(from_)}")
        task = Process(Inbox(), f"defer {type(self).__name__}", parent=self._process)
        task.link(self._process)

        def run() -> None:
            try:
                _answer(from_, function, args)
            except BaseException as error:
                # A server that traps exits lives on, and so would the caller's wait.
                from_.exited(exit_error(error.reason if isinstance(error, Exit) else error, None))
                raise
            # That it is done is nothing that a trapping server wants to hear of.
            task.unlink(server)

        def over(reason: Any) -> None:
            from_.release()
            if reason is not NORMAL and not from_.done:
                # It was killed before it began. Not in here: a remote answer may park.
                gevent.spawn(from_.exited, exit_error(reason, None))

        server = self._process
        from_.hold()
        task.monitor(over)
        task.spawn(run)
        return NoReply()

    def run_blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` in gevent's thread pool and return its value; other processes run meanwhile.

        switch: parks this process until the function has returned.
        """
        return get_hub().threadpool.apply(function, args)

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> Pid:
        """Start a process without a link. The arguments are those of `init`, and the options below.

        name:    a local name for it, or a Via.
        timeout: seconds that `init` may take; None, the default, is for ever.
        hibernate_after: seconds without a message after which it hibernates, as after HIBERNATE; None never does.
        forward_callers: True has it live in the universe of its starter, and know its callers.
        raises:  StartError      init raised, stopped or took too long; `reason` is what it ended with, or "timeout", or
                                 "deadlock" in the main greenlet: init waits, and nothing else is left that runs.
                 StartIgnored    init returned Ignore().
                 AlreadyStarted  the name is taken.
                 TypeError       the arguments do not fit init.
        switch:  parks until init has returned.
        source:  GenServer.start/3
        """
        return cls._start(args, kwargs, None)

    @classmethod
    def start_link(cls, *args: Any, **kwargs: Any) -> Pid:
        """`start`, linked to the calling process, which is its parent. A failed start raises and does not kill.

        A greenlet that is no process is not linked, unless it traps exits.

        raises:  as start.
        switch:  parks until init has returned.
        source:  GenServer.start_link/3
        """
        return cls._start(args, kwargs, starter())

    @classmethod
    def start_monitor(cls, *args: Any, **kwargs: Any) -> tuple[Pid, int]:
        """`start`, and the reference of a monitor that the running process has on it from its very beginning.

        A start that fails leaves no Down.

        raises: as start.
        switch: parks until init has returned.
        source: gen_server:start_monitor/3
        """
        refs: list[int] = []
        try:
            pid = cls._start(args, kwargs, None, lambda process: refs.append(monitor(process.pid)))
        except BaseException:
            for ref in refs:
                demonitor(ref, flush=True)
            raise
        return pid, refs[0]

    @classmethod
    def child_spec(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The child of a supervisor that is started with these arguments of start_link.

        The class keywords id (the class itself if there is none), restart and shutdown are in it.
        source: GenServer's child_spec/1
        """
        return child_spec_of(cls, cls.start_link, args, kwargs, cls.class_options)

    @classmethod
    def _start(
        cls,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parent: Process | None,
        prepare: Callable[[Process], object] | None = None,
    ) -> Pid:
        """Start a process; `prepare` is called with it before it runs."""
        given, arguments = behaviour.split(kwargs, cls.START_OPTIONS)
        options = {**cls.class_options, **behaviour.checked(given, cls.START_OPTIONS, f"{cls.__name__}.start")}
        behaviour.bind(cls, args, arguments, cls.START_OPTIONS)
        server = cls.__new__(cls)
        server._configure(options)
        process = Process(Inbox(), cls.__name__, parent)
        if options.get("forward_callers"):
            process.callers = universe.link()
        loop = Loop(process, server, args, arguments)
        loop.hibernate_after = options.get("hibernate_after")
        if prepare is not None:
            prepare(process)
        return loop.start(options.get("name"), options.get("timeout"))

    def _configure(self, options: dict[str, Any]) -> None:
        """Take the options of class and start, in the caller, before there is a process.

        raises: ConfigError  one that must be there is missing.
        """

    def _begin(self, *args: Any, **kwargs: Any) -> Any:
        """What the loop runs first. A behaviour that builds on this one does here what its users' `init` asks for."""
        return self.init(*args, **kwargs)


def _answer(from_: From, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        value = function(*args)
    except ErrorReply as refusal:
        from_.fail(refusal)
    else:
        from_.reply(value)
