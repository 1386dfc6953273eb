"""Tasks: a function that runs as a process of its own, and its owner waits for what it returns.

    task = Task.async_(look_up, sku)
    ...
    price = task.await_(timeout=1.0)

As in Elixir, with these differences. An outcome waits in the task and not in the owner's mailbox; a GenServer that
cannot wait asks for a message, with `to_mailbox`. `await_` raises where Elixir's caller exits. An owner that is no
process, such as the main greenlet, is not linked unless it traps exits: a crash is what `await_` raises, and the task
outlives its owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeVar

from erps_gevent.otp import async_stream, behaviour, child_spec, universe
from erps_gevent.otp.awaiting import check_owner, check_waitable, outcomes_of, values_of, wait
from erps_gevent.otp.job import Job, TaskExit, TaskResult, launch, name_of
from erps_gevent.otp.plain import record
from erps_gevent.otp.process import Pid, Process
from erps_gevent.otp.waiting import SHORTEST
from erps_gevent.otp.words import KILL, KILLED, NOPROC, SHUTDOWN

T = TypeVar("T")

_check_limit = behaviour.count(1)
_check_on_timeout = behaviour.one_of("nothing", "ignore", "kill_task")


class Task(Job[T]):
    """A running function, for the process that started it: its owner, which alone may wait for it, and once.

    pid:   its process; None for a completed one.
    owner: who started it, and is the only one that may use the methods.
    ref:   the reference of the owner's monitor, for TaskReply and Down.

    The owner and the task are linked: the crash of a task ends an owner that does not trap exits, and an owner that
    ends abnormally ends its tasks. An owner that traps exits has an ExitSignal of each task, as of any linked process.
    A task lives in its owner's universe.
    """

    __slots__ = ()

    Supervisor: ClassVar[Any]  # TaskSupervisor, which knows tasks, puts itself here.

    def __repr__(self) -> str:
        return f"<Task {self.ref} {self.name}>"

    # Starting.

    @classmethod
    def async_(cls, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Task[T]:
        """Run `function(*args, **kwargs)` as a process linked to this one, and return its task at once.

        What it raises is its exit reason, and is logged once.
        source: Task.async/1
        """
        owner = record()
        task: Task[T] = Task(owner, name_of(function))
        task.spawn(function, args, kwargs, *_linkable(owner))
        return task

    @staticmethod
    def start(function: Callable[..., object], /, *args: Any, **kwargs: Any) -> Pid:
        """Run `function(*args, **kwargs)` as a process of its own, whose outcome nobody waits for.

        source: Task.start/1
        """
        return launch(universe.link(), function, args, kwargs)

    @staticmethod
    def start_link(function: Callable[..., object], /, *args: Any, **kwargs: Any) -> Pid:
        """`start`, linked to the running process; for a supervisor's child. source: Task.start_link/1"""
        return launch(universe.link(), function, args, kwargs, *_linkable(record()))

    @classmethod
    def child_spec(cls, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The child of a supervisor that runs `function(*args, **kwargs)` once: restart is "temporary", id is Task.

        source: Task.child_spec/1
        """
        name_of(function)
        return child_spec.child_spec_of(cls, cls.start_link, (function, *args), kwargs, {"restart": "temporary"})

    @classmethod
    def completed(cls, value: T) -> Task[T]:
        """A task that has returned `value` already, without a process. source: Task.completed/1"""
        task: Task[T] = Task(record(), "completed")
        task.outcome = TaskResult(value)
        return task

    # Waiting.

    def await_(self, timeout: float | None = 5.0) -> T:
        """Wait until the task has returned, and return its value.

        timeout: seconds; 0 takes what is there, None waits for ever.
        raises:  TaskTimeout  time is up. The task runs on, and its outcome is discarded.
                 ServerExit   it ended otherwise; `reason` is what with, and the cause if that is an exception.
                 ConfigError  this is not its owner, or it has been waited for already.
                 CallExit     in the main greenlet, when nothing is left that could ever end it.
        switch:  parks.
        source:  Task.await/2
        """
        value: T = values_of([self], timeout, "await_")[0]
        return value

    @staticmethod
    def await_many(tasks: Iterable[Task[Any]], timeout: float | None = 5.0) -> list[Any]:
        """Wait until all tasks have returned, and return their values in the order of `tasks`.

        timeout: seconds for all of them together.
        raises:  as await_, for the first that fails. The others run on, and their outcomes are discarded.
        switch:  parks.
        source:  Task.await_many/2
        """
        return values_of(list(tasks), timeout, "await_many")

    def yield_(self, timeout: float | None = 5.0) -> TaskResult[T] | TaskExit | None:
        """Wait for the outcome: TaskResult(value), or TaskExit(reason). None if time is up; wait again then.

        timeout: seconds; 0 takes what is there, None waits for ever.
        raises:  ConfigError and CallExit as await_.
        switch:  parks.
        source:  Task.yield/2
        """
        outcome: TaskResult[T] | TaskExit | None = outcomes_of([self], timeout, 1, "yield_")[0][1]
        return outcome

    @staticmethod
    def yield_many(
        tasks: Iterable[Task[T]], timeout: float | None = 5.0, *, limit: int | None = None, on_timeout: str = "nothing"
    ) -> list[tuple[Task[T], TaskResult[T] | TaskExit | None]]:
        """Wait for the outcomes of tasks; return each with its own, in the order of `tasks`, or with None.

        timeout:    seconds for all of them together.
        limit:      return as soon as so many have ended; None waits for all.
        on_timeout: what becomes of the others when time is up: "nothing", "ignore", or "kill_task".
        raises:     ConfigError and CallExit as await_.
        switch:     parks.
        source:     Task.yield_many/2
        """
        tasks = list(tasks)
        if limit is not None:
            _check_limit("limit", limit)
        _check_on_timeout("on_timeout", on_timeout)
        limit = len(tasks) if limit is None else min(limit, len(tasks))
        outcomes = outcomes_of(tasks, timeout, limit, "yield_many")
        in_time = sum(outcome is not None for _, outcome in outcomes) >= limit
        if in_time or on_timeout == "nothing":
            return outcomes
        give_up: Callable[[Task[T]], Any] = Task.ignore if on_timeout == "ignore" else _kill
        return [(task, give_up(task) if outcome is None else outcome) for task, outcome in outcomes]

    def to_mailbox(self) -> Task[T]:
        """Have the outcome as a message: one TaskReply(ref, value) or, if it did not return, Down(ref, pid, reason).

        For an owner that must not wait, such as a GenServer, which takes it in handle_info. As after Elixir's
        demonitor(ref, [:flush]), no Down comes after the reply.

        raises: ConfigError  as await_.
        """
        check_waitable([self], "to_mailbox")
        self.posted = True
        if self.outcome is not None:
            self.post(self.outcome)
        return self

    # Ending.

    def shutdown(self, timeout: float | str | None = 5.0) -> TaskResult[T] | TaskExit | None:
        """End the task, and return None; or its outcome, if there was one before that or it ended in another way.

        timeout: seconds that it has to end by itself, before it is killed and the outcome is TaskExit(KILLED);
                 "brutal_kill" kills at once, "infinity" and None wait for ever.
        returns: TaskExit(NOPROC) if the outcome was given, or discarded, before.
        raises:  ConfigError  this is not its owner, or a bad timeout.
        switch:  parks until it has ended.
        source:  Task.shutdown/2
        """
        limit = child_spec.shutdown("timeout", "infinity" if timeout is None else timeout)
        check_owner(self, "shutdown")
        self.posted = False
        if self.settled:
            return TaskExit(NOPROC)
        brutal = limit == "brutal_kill"
        if self.outcome is None:
            self._end(None if brutal or limit == "infinity" else limit, brutal)
        outcome = self.take()
        as_told = isinstance(outcome, TaskExit) and outcome.reason is (KILLED if brutal else SHUTDOWN)
        return None if as_told else outcome

    def ignore(self) -> TaskResult[T] | TaskExit | None:
        """Let the task run on without a link, and discard its outcome; return that, if it is there already.

        raises: ConfigError  as await_.
        source: Task.ignore/1
        """
        check_waitable([self], "ignore")
        if self.process is not None:
            self.process.unlink(self.owner_process)
        return self.take()

    # Many elements.

    @staticmethod
    def async_stream(
        iterable: Iterable[Any],
        function: Callable[[Any], T],
        *,
        max_concurrency: int | None = None,
        timeout: float | None = 5.0,
        ordered: bool = True,
        on_timeout: str = "exit",
    ) -> Iterator[TaskResult[T] | TaskExit]:
        """Run `function(element)` for each element as a task, some at once; iterate over the outcomes.

        Elements are taken when there is room for another task. With `ordered`, outcomes behind a slow one are kept.
        It belongs to the process that asks for the first outcome; its tasks are linked to that, and an owner that
        traps exits has TaskExit instead of a signal. They end, at their next switch, with the iterator: when it is
        closed, dropped, or raises, and when the owner ends. Nothing is left in a mailbox.

        max_concurrency: tasks at once; as many as there are processors if None.
        timeout:         seconds for each task; None is for ever.
        ordered:         False gives outcomes as they come.
        on_timeout:      "exit" raises TaskTimeout; "kill_task" ends that task, and its outcome is TaskExit(TIMEOUT).
        raises:          ConfigError and TypeError at once; TaskTimeout, and what `iterable` raises, when iterating.
        switch:          parks when iterated.
        source:          Task.async_stream/3
        """

        def start(job: Job[T], element: Any) -> None:
            job.spawn(function, (element,), {}, *_linkable(record()))

        return async_stream.outcomes(start, iterable, function, max_concurrency, timeout, ordered, on_timeout)

    def _end(self, seconds: float | None, brutal: bool) -> None:
        """Have it ended, by a kill if `seconds` are not enough, and wait for that."""
        assert self.process is not None, "a completed task has its outcome"
        self.process.unlink(self.owner_process)
        self.process.signal(self.owner, KILL if brutal else SHUTDOWN, untrappable=brutal)
        # A task that parks ends in this turn of the loop; 0 seconds must not have it killed instead.
        if wait([self], None if seconds is None else max(seconds, SHORTEST), bool) is None:
            self.process.signal(self.owner, KILL, untrappable=True)
            wait([self], None, bool)


def _linkable(owner: Process) -> tuple[Process, ...]:
    return (owner,) if owner.linkable else ()


def _kill(task: Task[T]) -> TaskResult[T] | TaskExit | None:
    return task.shutdown("brutal_kill")
