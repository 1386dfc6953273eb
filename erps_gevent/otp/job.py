"""Jobs: a function that runs as a process for an owner, and what became of it. Tasks and streams of them are made so.

    owner                                       the job's process
    -----                                       -----------------
    Job(owner, name).spawn(function, ...)  ──▶  run(function): what it raises is logged once, and is the exit reason
    awaiting.wait([job], seconds)          ◀──  the monitor: TaskResult, or TaskExit with the reason

An outcome lies in a slot of its own, as the reply of a call does. The owner's mailbox is never looked at.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from gevent import GreenletExit

from erps_gevent.errors import Exit
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.process import Down, Pid, Process, new_ref
from erps_gevent.otp.reasons import brief, is_quiet
from erps_gevent.otp.universe import Link, link_of
from erps_gevent.otp.words import ABSENT, KILL

logger = logging.getLogger("erps_gevent")

T = TypeVar("T")


@dataclass(frozen=True)
class TaskResult(Generic[T]):
    """The outcome of a task that returned: `{:ok, value}`."""

    value: T


@dataclass(frozen=True)
class TaskExit:
    """The outcome of a task that did not return: `{:exit, reason}`. A crash is the exception itself."""

    reason: Any


@dataclass(frozen=True)
class TaskReply:
    """What a task that returned sends to its owner, if `to_mailbox` was called: `{ref, value}`."""

    ref: int
    value: Any


def process_for(callers: Link, function: Callable[..., object], links: tuple[Process, ...]) -> Process:
    """A process that has these callers, linked to `links`, of which the first is its parent."""
    process = Process(Inbox(), name_of(function), links[0] if links else None)
    process.callers = callers
    for other in links:
        process.link(other)
    return process


def launch(
    callers: Link, function: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any], *links: Process
) -> Pid:
    """Run `function(*args, **kwargs)` as a process that nobody waits for; the first of `callers` asked for it."""
    process = process_for(callers, function, links)
    process.spawn(partial(run, process, callers[0], function, args, kwargs))
    return process.pid


def run(
    process: Process, owner: Pid, function: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> T:
    """Return what the function does; a crash is logged here, with what was asked and by whom, and nowhere else."""
    try:
        return function(*args, **kwargs)
    except Exit as exit_:
        if not (process.dying or is_quiet(exit_.reason)):
            _report(process.pid, owner, function, args, kwargs, exit_.reason)
        raise
    except (GreenletExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  as for any process, gevent.Timeout and SystemExit are crashes
        _report(process.pid, owner, function, args, kwargs, error)
        raise Exit(error) from None


def _report(pid: Pid, owner: Pid, function: object, args: object, kwargs: Mapping[str, Any], reason: Any) -> None:
    trace = "".join(traceback.format_exception(reason)) if isinstance(reason, BaseException) else ""
    logger.error(
        "task %r started from %r terminating\nreason: %s\nfunction: %s\narguments: %s%s%s",
        pid,
        owner,
        brief(reason),
        name_of(function, getattr(function, "__module__", "")),
        brief(args),
        f" {brief(dict(kwargs))}" if kwargs else "",
        f"\n{trace.rstrip()}" if trace else "",
    )


def name_of(function: object, module: str = "") -> str:
    """What to call a function, for people. raises: TypeError  it is none."""
    if not callable(function):
        raise TypeError(f"a task runs a function, not {function!r}")
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{module}.{name}" if module else name


class Job(Generic[T]):
    """One function that runs for `owner`, which alone learns its outcome.

    name:    what it is called, for people.
    outcome: None until it has ended; and again, with `settled`, when the owner has it or wants it no more.
    landing: where the owner waits for it.
    posted:  True if the outcome goes to the owner's mailbox instead.
    """

    __slots__ = (
        *(
            "__weakref__",
            "_value",
            "landing",
            "name",
            "outcome",
            "owner_process",
            "posted",
            "process",
            "ref",
            "settled",
        ),
    )

    def __init__(self, owner: Process, name: str) -> None:
        self.owner_process = owner
        self._value: Any = ABSENT  # what the function returned, until the process is dead
        self.name = name
        self.ref = new_ref()
        self.process: Process | None = None
        self.outcome: TaskResult[T] | TaskExit | None = None
        self.settled = False
        self.posted = False
        self.landing: Inbox | None = None

    @property
    def owner(self) -> Pid:
        """Who started it."""
        return self.owner_process.pid

    @property
    def pid(self) -> Pid | None:
        """Its process; None if there never was one."""
        return self.process.pid if self.process else None

    def spawn(
        self, function: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any], *links: Process
    ) -> Pid:
        """Run `function(*args, **kwargs)` as a process that the owner monitors.

        links: whom to link it with; the first is its parent.
        """
        # atomic: it begins at the next switch; by then whoever has to know of its end does.
        process = self.process = process_for(link_of(self.owner_process), function, links)
        self.owner_process.monitoring[self.ref] = process
        process.monitor(self._down, self.ref)
        process.spawn(partial(self._main, process, function, args, kwargs))
        return process.pid

    def take(self) -> TaskResult[T] | TaskExit | None:
        """The outcome, if it is there; nobody else gets it. No cycle through a traceback is left with that."""
        outcome = self.outcome
        self.forget()
        return outcome

    def forget(self) -> None:
        """The owner has the outcome, or wants to know no more of it; it may run on. Idempotent."""
        self.settled = True
        self.outcome = self.landing = None
        self.demonitor()

    def demonitor(self) -> None:
        """The end of its process is no outcome any more. Idempotent."""
        self.owner_process.monitoring.pop(self.ref, None)
        if self.process is not None:
            self.process.demonitor(self.ref)

    def end(self) -> None:
        """Kill it; its owner hears nothing of that. Does not park. Idempotent."""
        self.settled = True
        self.demonitor()
        if self.process is not None:
            self.process.unlink(self.owner_process)
            self.process.signal(self.owner, KILL, untrappable=True)

    def _main(
        self, process: Process, function: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        value = run(process, self.owner, function, args, kwargs)
        if not self.settled:
            self._value = value

    def _down(self, reason: Any) -> None:
        """The process is dead. Runs in its greenlet."""
        self.owner_process.monitoring.pop(self.ref, None)
        value, self._value = self._value, ABSENT
        self._land(TaskExit(reason) if value is ABSENT else TaskResult(value))

    def _land(self, outcome: TaskResult[T] | TaskExit) -> None:
        if self.posted:
            self.post(outcome)
            return
        self.outcome = outcome
        if self.landing is not None:
            self.landing.put(self)

    def post(self, outcome: TaskResult[T] | TaskExit) -> None:
        """Send the outcome to the owner."""
        self.forget()
        if isinstance(outcome, TaskResult):
            self.owner_process.send(TaskReply(self.ref, outcome.value))
        else:
            assert self.pid is not None, "a job without a process has its result from the start"
            self.owner_process.send(Down(self.ref, self.pid, outcome.reason))
