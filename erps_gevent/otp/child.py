"""One child of a supervisor: its record, its start, and its stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from typing import Any

from gevent import GreenletExit
from gevent.event import Event

from erps_gevent.errors import AlreadyStarted, BadReturn, ConfigError, Exit, StartError, StartIgnored
from erps_gevent.otp.child_spec import spec_of, validated
from erps_gevent.otp.gen import describe
from erps_gevent.otp.mailbox import Timer
from erps_gevent.otp.messages import Ignore
from erps_gevent.otp.process import ExitSignal, Pid, Process
from erps_gevent.otp.reasons import brief, cause_of, is_quiet
from erps_gevent.otp.restarts import Backoff
from erps_gevent.otp.waiting import SHORTEST
from erps_gevent.otp.words import KILLED, NOPROC, SHUTDOWN, Word

logger = logging.getLogger("erps_gevent")


class Child:
    """What a supervisor keeps of a child.

    pid:     its process; None if there is none, RESTARTING between two attempts to start it.
    last:    the pid of its last process: what a DynamicSupervisor knows it by, also while it is restarting.
    start:   (function, args, kwargs); None when it is never to be started again.
    callers: the callers of who asked for it; None if that was the supervisor's own init.
    pending: the message that will start it again; anything else that was meant to is out of date.
    """

    __slots__ = (
        *("backoff", "callers", "id", "last", "modules", "pending", "pid", "restart", "shutdown", "significant"),
        *("start", "timer", "type"),
    )

    def __init__(self, spec: dict[str, Any]) -> None:
        self.id = spec["id"]
        self.start: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = spec["start"]
        self.restart: str = spec["restart"]
        self.shutdown: float | str = spec["shutdown"]
        self.type: str = spec["type"]
        self.modules: Any = spec["modules"]
        self.significant: bool = spec["significant"]
        self.backoff = Backoff(*spec["backoff"]) if spec["backoff"] else None
        self.callers: tuple[Pid, ...] | None = None
        self.pid: Pid | Word | None = None
        self.last: Pid | None = None
        self.pending: object = None
        self.timer: Timer | None = None

    def __repr__(self) -> str:
        return f"{brief(self.id)} ({self.pid or self.last}, {self.restart}, {self.type})"

    @property
    def temporary(self) -> bool:
        return self.restart == "temporary"

    @property
    def alive(self) -> bool:
        return isinstance(self.pid, Pid) and self.pid.process.alive

    def cancel(self) -> None:
        """It will not be started again by itself."""
        self.pending = None
        if self.timer is not None:
            self.timer.stop()
            self.timer = None


def child_of(entry: Any, required: Iterable[str] = ("id", "start")) -> Child:
    """The child that an entry in a list of children describes.

    raises: ConfigError  it is no child, or its spec is wrong.
    """
    return Child(validated(spec_of(entry), required))


def launch(child: Child, supervisor: Process, extra: Sequence[Any] = (), taken: Container[Pid] = ()) -> Any:
    """Run the start function of `child` and set its pid; return what the function did: a Pid, (Pid, info) or None.

    supervisor: the running process.
    extra:      arguments that come before the child's own.
    taken:      the pids of other children.
    raises:     StartError      it did not start; the child is as it was.
                AlreadyStarted  its name is taken; likewise.
    switch:     parks until the function has returned.
    """
    given = _called(child, supervisor, extra)
    pid = given[0] if isinstance(given, tuple) and len(given) == 2 else given
    if isinstance(pid, _Failed):
        raise start_error(child, pid.reason)
    if isinstance(given, Ignore):
        given = pid = None
    elif not isinstance(pid, Pid):
        text = f"the start function returned {brief(given)}; it returns a Pid, (Pid, info) or Ignore()"
        raise start_error(child, BadReturn(text, reason=given))
    elif pid.process.hub is not supervisor.hub:
        text = f"{pid!r} belongs to the hub of another thread, where {supervisor.pid!r} cannot supervise it"
        raise start_error(child, ConfigError(text))
    elif pid in taken:
        text = f"{pid!r} is a child of this supervisor already; a start function starts a process of its own"
        raise start_error(child, ConfigError(text))
    elif pid.process.alive and pid.process not in supervisor.links:
        text = "child %r: %r is not linked to its supervisor, which will not hear of its end; start it with start_link"
        logger.warning(text, child.id, pid)
    child.cancel()
    child.pid = child.last = pid
    if child.temporary:
        # It is never started again, and its arguments may be large.
        child.start = None
    return given


class _Failed:
    """A start that failed; as a value, so that no error holds the frames of the start function."""

    def __init__(self, reason: Any) -> None:
        self.reason = reason


def _called(child: Child, supervisor: Process, extra: Sequence[Any]) -> Any:
    assert child.start is not None  # only a temporary child has lost it, and that is not started twice
    function, args, kwargs = child.start
    own = supervisor.callers
    if child.callers is not None:
        supervisor.callers = child.callers
    try:
        return function(*extra, *args, **kwargs)
    except StartIgnored:
        return Ignore()
    except StartError as error:
        return _Failed(error.reason)
    except Exit as exit_:
        if supervisor.dying:
            raise
        return _Failed(exit_.reason)
    except (GreenletExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  whatever it is, it is why the child did not start
        return _Failed(error)
    finally:
        supervisor.callers = own


def start_error(child: Child, reason: Any) -> StartError | AlreadyStarted:
    """What the caller of start_child is told when the child did not start because of `reason`."""
    if isinstance(reason, AlreadyStarted):
        return reason
    error = StartError(f"child {child.id!r} did not start: {describe(reason)}", reason=reason)
    error.__cause__ = cause_of(reason)
    return error


class Ends:
    """What processes ended with, as the ExitSignals say that a supervisor has not read yet, because it is busy.

    It alone takes messages out of its mailbox, so each is looked at once as long as it does not.
    """

    def __init__(self, supervisor: Process) -> None:
        self.mailbox = supervisor.inbox.mailbox
        self.seen = 0
        self.reasons: dict[Pid | None, Any] = {}

    def of(self, pid: Pid) -> Any:
        """What the dead process `pid` ended with; NOPROC if it was not linked any more."""
        if self.seen < len(self.mailbox):
            # A copy, because a `__del__` may put a message into the mailbox at any time.
            messages = list(self.mailbox)
            for message in messages[self.seen :]:
                if isinstance(message, ExitSignal) and message.ended:
                    self.reasons[message.pid] = message.reason
            self.seen = len(messages)
        return self.reasons.get(pid, NOPROC)


def halt(children: Sequence[Child], supervisor: Process, ends: Ends | None = None) -> dict[Child, Any]:
    """End the processes of `children` at the same time, each by its `shutdown`; return what each ended with.

    A child that had ended before is in it too, with NOPROC if it was not linked any more.
    supervisor: the running process, which no child is linked to after this.
    ends:       those of this supervisor, for who halts several times without reading a message in between.
    switch:     parks until all of them are dead.
    source:     supervisor:shutdown, Elixir's DynamicSupervisor.terminate_children
    """
    ends = Ends(supervisor) if ends is None else ends
    ended = {child: ends.of(_process(child).pid) for child in children if not child.alive}
    running = [child for child in children if child not in ended]
    if not running:
        return ended
    done = Event()

    def down(child: Child, reason: Any) -> None:
        ended[child] = reason
        if len(ended) == len(children):
            done.set()

    monitors = [(_process(child), _process(child).monitor(partial(down, child))) for child in running]
    timers = _ask_to_stop(running, supervisor)
    try:
        done.wait()
    finally:
        for timer in timers:
            timer.close()
        for process, monitor in monitors:
            process.demonitor(monitor)
    return ended


def _process(child: Child) -> Process:
    assert isinstance(child.pid, Pid)  # nobody stops or asks for what is not running
    return child.pid.process


def _ask_to_stop(children: Sequence[Child], supervisor: Process) -> list[Any]:
    """Unlink them and tell them to stop; return the timers that will kill those which do not."""
    limits: dict[float, list[Process]] = {}
    for child in children:
        process = _process(child)
        # From here on its end is no ExitSignal, so the mailbox does not have to be searched for one.
        supervisor.unlink(process)
        if child.shutdown == "brutal_kill":
            process.die(KILLED)
            continue
        process.signal(supervisor.pid, SHUTDOWN)
        if not isinstance(child.shutdown, str):
            limits.setdefault(child.shutdown, []).append(process)
    return [_kill_after(seconds, processes) for seconds, processes in limits.items()]


def _kill_after(seconds: float, processes: list[Process]) -> Any:
    def kill() -> None:
        for process in processes:
            process.die(KILLED)

    timer = processes[0].hub.loop.timer(max(seconds, SHORTEST))
    timer.start(kill)
    return timer


def is_expected(child: Child, reason: Any) -> bool:
    """True if a child that was stopped ended as it should."""
    return is_quiet(reason) or (reason is KILLED and child.shutdown == "brutal_kill")


def described(child: Child) -> tuple[Any, Pid | Word | None, str, Any]:
    """A child as which_children shows it: (id, pid, type, modules)."""
    return child.id, child.pid, child.type, child.modules
