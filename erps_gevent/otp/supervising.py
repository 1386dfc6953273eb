"""What Supervisor and DynamicSupervisor have in common.

a child ends          the ExitSignal of its link          _ended: again, or forgotten?      table AGAIN
again                 counted; too many end it all        _restart
                      after a pause, with `backoff`       an Again on a timer
                      clear the way, start                _revive
that fails            a message to itself, so that others are served first, then counted: _restart
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Container, Iterable, Sequence
from itertools import takewhile
from time import monotonic
from typing import Any, ClassVar

from gevent._hub_local import get_hub_if_exists  # get_hub() would make one in every thread that calls

from erps_gevent.errors import AlreadyStarted, ConfigError, ErpsError, ErrorReply, StartError
from erps_gevent.otp import behaviour, universe
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.child import Child, Ends, described, halt, is_expected, launch
from erps_gevent.otp.child_spec import child_spec_of
from erps_gevent.otp.gen import call
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.mailbox import send_after
from erps_gevent.otp.messages import Event, From, Reply, Stop
from erps_gevent.otp.names import Via
from erps_gevent.otp.process import ExitSignal, Pid
from erps_gevent.otp.reasons import brief, cause_of, is_quiet
from erps_gevent.otp.restarts import Restarts
from erps_gevent.otp.words import RESTARTING, SHUTDOWN

logger = logging.getLogger("erps_gevent")

# By restart type, and whether the child ended quietly: is it started again?
AGAIN = {
    ("permanent", True): True,
    ("permanent", False): True,
    ("transient", True): False,
    ("transient", False): True,
    ("temporary", True): False,
    ("temporary", False): False,
}


def _period(name: str, value: Any) -> float:
    seconds = behaviour.number(0)(name, value)
    if not seconds:
        raise ConfigError(f"{name} is seconds, more than 0, not {value!r}")
    return seconds


# What a supervisor is told of the intensity of restarts, as class keywords or when it is started.
INTENSITY = {
    "max_restarts": Option(3, behaviour.count(0)),
    "max_seconds": Option(5.0, _period),
}

_CALLBACKS = frozenset({"handle_call", "handle_cast", "handle_info", "handle_continue", "terminate"})


class Supervising(GenServer):
    """The base of both supervisors: restarts, and how they are asked to do something."""

    FLAGS: ClassVar[dict[str, Option]]
    _flags: dict[str, Any]
    _restarts: Restarts

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for base in takewhile(lambda base: Supervising not in base.__bases__, cls.__mro__):
            if taken := sorted(_CALLBACKS & vars(base).keys()):
                text = "a supervisor only supervises: put it into a child, which is a GenServer"
                raise TypeError(f"{cls.__name__} defines {taken[0]}; {text}")

    @classmethod
    def child_spec(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The child of a supervisor that is started with these arguments of start_link.

        Its id is the class keyword, or else the name that it is given, or else the class.
        source: Supervisor.child_spec/1
        """
        name = kwargs.get("name")
        id_ = cls if name is None else name.key if isinstance(name, Via) else name
        options = {"shutdown": "infinity", **cls.class_options}
        return child_spec_of(id_, cls.start_link, args, kwargs, options, "supervisor")

    def _configure(self, options: dict[str, Any]) -> None:
        self._flags = {name: options.get(name, flag.default) for name, flag in self.FLAGS.items()}
        self._restarts = Restarts(self._flags["max_restarts"], self._flags["max_seconds"])

    def _take_charge(self) -> None:
        """First of all, in the new process."""
        self.trap_exit = True
        # A supervisor that is killed has no other chance to cancel the timers of pauses.
        self._process.monitor(lambda _: self._cancel())

    def _cancel(self) -> None:
        for child in self._all():
            child.cancel()

    # Requests. What cannot be done is an error that is raised where it was asked for.

    def handle_call(self, request: Any, from_: From) -> Any:
        if not isinstance(request, Asked):
            text = f"a supervisor takes no calls; use {type(self).__name__}.start_child, which_children and so on"
            raise ErrorReply("unknown_request", text)
        if not isinstance(self, request.face):
            text = f"{self.pid!r} is no {request.face.__name__}; use {type(self).__name__}.{request.what}"
            return Reply(_Refused(TypeError(text)))
        method: Callable[..., Any] = getattr(self, f"_{request.what}")
        try:
            return Reply(method(*request.args))
        except ErpsError as refusal:
            return Reply(_Refused(refusal.with_traceback(None)))

    def handle_cast(self, request: Any) -> Any:
        logger.warning("%r is a supervisor and takes no casts; dropped %s", self.pid, brief(request))

    def handle_info(self, message: Any) -> Any:
        if not isinstance(message, ExitSignal):
            logger.warning("%r is a supervisor and takes no messages; dropped %s", self.pid, brief(message))
            return None
        if message.pid is None or not message.ended:
            # It is no end: somebody has called exit_ on this supervisor, perhaps one of its children.
            return None
        child = self._of_pid(message.pid)
        # Anybody may link to a supervisor, and end; only the ends of children matter.
        return None if child is None else self._ended(child, message.reason)

    def _which_children(self) -> list[tuple[Any, Any, str, Any]]:
        return [described(child) for child in self._all()]

    def _count_children(self) -> dict[str, int]:
        children = self._all()
        supervisors = sum(child.type == "supervisor" for child in children)
        active = sum(child.alive for child in children)
        specs = len(children)
        return {"specs": specs, "active": active, "supervisors": supervisors, "workers": specs - supervisors}

    # What the two do differently.

    def _all(self) -> Sequence[Child]:
        """Every child."""
        raise NotImplementedError

    def _of_pid(self, pid: Pid) -> Child | None:
        """The child whose process this is."""
        raise NotImplementedError

    def _launch(self, child: Child) -> Any:
        """Start it; return and raise as `launch`."""
        raise NotImplementedError

    def _clear(self, child: Child) -> Iterable[Child]:
        """Stop what must not run on when `child` has died; return all that is to be started again."""
        raise NotImplementedError

    def _finished(self, child: Child) -> Any:
        """It has ended, and is not started again. Return Stop if that is the end of this supervisor."""
        raise NotImplementedError

    # Starts and restarts.

    def _started(self, child: Child, taken: Container[Pid], extra: Sequence[Any] = ()) -> Any:
        given = launch(child, self._process, extra, taken)
        if child.backoff:
            child.backoff.started(monotonic())
        return given

    def _ended(self, child: Child, reason: Any) -> Any:
        again = AGAIN[child.restart, is_quiet(reason)]
        self._report(logging.INFO if is_quiet(reason) else logging.ERROR, "child_terminated", child, reason)
        if child.backoff:
            child.backoff.ended(monotonic())
        return self._restart(child) if again else self._finished(child)

    def _restart(self, child: Child) -> Any:
        if not self._restarts.add(monotonic()):
            allowed = f"{self._restarts.max_restarts} in {self._restarts.max_seconds} s"
            self._report(logging.ERROR, "shutdown", child, f"reached_max_restart_intensity: {allowed}")
            child.pid = None
            return Stop(SHUTDOWN)
        if child.backoff is None:
            return self._revive(child)
        self._clear(child)
        child.pid = RESTARTING
        child.pending = Again(child, counted=True)
        child.timer = send_after(self.pid, child.pending, child.backoff.next())
        return None

    def _again(self, event: Again) -> Any:
        if event.child.pending is not event:
            return None
        event.child.cancel()
        return self._revive(event.child) if event.counted else self._restart(event.child)

    def _revive(self, child: Child) -> Any:
        for each in self._clear(child):
            try:
                self._launch(each)
            except (StartError, AlreadyStarted) as error:
                self._report_start(each, error)
                each.pid = RESTARTING
                each.pending = Again(each, counted=False)
                # Not at once: whoever waits for an answer is served in between.
                self._process.send(each.pending)
                return None
        return None

    # Reports, as OTP's supervisor reports.

    def _stop(self, children: Sequence[Child], ends: Ends | None = None) -> None:
        for child, reason in halt(children, self._process, ends).items():
            if not is_expected(child, reason):
                self._report(logging.ERROR, "shutdown_error", child, reason)

    def _report(self, level: int, what: str, child: Child, reason: Any) -> None:
        logger.log(level, "%r %s: child %r\nreason: %s", self.pid, what, child, brief(reason))

    def _report_start(self, child: Child, error: StartError | AlreadyStarted) -> None:
        cause = cause_of(reason_of(error)) or error
        trace = "".join(traceback.format_exception(cause)).rstrip()
        logger.error("%r start_error: child %r\nreason: %s\n%s", self.pid, child, brief(reason_of(error)), trace)


def reason_of(error: StartError | AlreadyStarted) -> Any:
    """Why a child did not start."""
    return error.reason if isinstance(error, StartError) else error


class Again(Event):
    """A message of a supervisor to itself: start this child again.

    counted: whether it was counted as a restart; one that was not is when its turn comes.
    """

    __slots__ = ("child", "counted")

    def __init__(self, child: Child, *, counted: bool) -> None:
        self.child = child
        self.counted = counted

    def __repr__(self) -> str:
        return f"start {self.child!r} again"

    def deliver(self, server: Any) -> Any:
        return server._again(self)


class Asked:
    """A request to a supervisor: `what` with `args`; `face` is the class whose function asks."""

    __slots__ = ("args", "face", "what")

    def __init__(self, face: type, what: str, args: tuple[Any, ...]) -> None:
        self.face = face
        self.what = what
        self.args = args

    def __repr__(self) -> str:
        return f"<{self.face.__name__}.{self.what}>"


class _Refused:
    """A reply that is raised in the caller."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def ask(supervisor: Any, timeout: float | None, face: type, what: str, *args: Any) -> Any:
    """Have `supervisor` do `what`, and return or raise the outcome.

    supervisor: its Pid, name or Via.
    timeout:    seconds; None waits for ever.
    raises:     every CallExit, as call.
    switch:     parks.
    """
    answer = call(supervisor, Asked(face, what, args), timeout)
    if not isinstance(answer, _Refused):
        return answer
    try:
        raise answer.error
    finally:
        # Its traceback holds this frame, which would hold it in a cycle.
        del answer


def asked_by() -> tuple[Pid, ...]:
    """Who asks: the running process and its callers. A native thread without a hub is nobody."""
    return () if get_hub_if_exists() is None else universe.link()
