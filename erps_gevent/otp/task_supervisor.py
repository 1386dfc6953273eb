"""Task.Supervisor: tasks that belong to a supervisor, and may crash without their owner.

Task.Supervisor.start_link(name="tasks", max_children=100)
task = Task.Supervisor.async_nolink("tasks", look_up, sku)
match task.yield_(timeout=1.0):
    case TaskResult(price): ...
    case TaskExit(reason): ...          # it crashed, and this process did not
    case None: task.shutdown()          # time is up
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from erps_gevent.errors import ConfigError, NoProc
from erps_gevent.otp import async_stream, bridge
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.gen import resolve
from erps_gevent.otp.job import Job, TaskExit, TaskResult, launch, name_of
from erps_gevent.otp.plain import record
from erps_gevent.otp.process import Pid
from erps_gevent.otp.task import Task
from erps_gevent.otp.words import NOPROC

T = TypeVar("T")


def _without_extra_arguments(options: Mapping[str, Option]) -> dict[str, Option]:
    return {name: option for name, option in options.items() if name != "extra_arguments"}


class TaskSupervisor(DynamicSupervisor):
    """A DynamicSupervisor of tasks; known to users as Task.Supervisor.

    Its flags are those of DynamicSupervisor, without extra_arguments. Its functions take the supervisor first: a Pid, a
    name or a Via. `restart` and `shutdown` are theirs; a function that has such arguments itself is given them with
    functools.partial. A task's parent is the supervisor, and its first caller is who asked for it.

    raises: MaxChildren  there are max_children tasks.
            ConfigError  a task for which somebody waits would run in another thread than its owner.
            and every CallExit, as call.
    source: Elixir's Task.Supervisor
    """

    OPTIONS: ClassVar[dict[str, Option]] = _without_extra_arguments(DynamicSupervisor.OPTIONS)
    START_OPTIONS: ClassVar[dict[str, Option]] = _without_extra_arguments(DynamicSupervisor.START_OPTIONS)

    @staticmethod
    def async_(
        supervisor: Any, function: Callable[..., T], /, *args: Any, shutdown: float | str = 5.0, **kwargs: Any
    ) -> Task[T]:
        """Task.async_, under `supervisor`; linked to the running process as well.

        shutdown: what it gets when the supervisor ends: seconds, "brutal_kill" or "infinity".
        switch:   parks until the supervisor has started it.
        source:   Task.Supervisor.async/3
        """
        return _async(supervisor, function, args, kwargs, shutdown, linked=True)

    @staticmethod
    def async_nolink(
        supervisor: Any, function: Callable[..., T], /, *args: Any, shutdown: float | str = 5.0, **kwargs: Any
    ) -> Task[T]:
        """`async_` without the link: the running process only monitors it, and neither ends with the other.

        A crash is an outcome, or after `to_mailbox` a Down; it is nothing else.
        source: Task.Supervisor.async_nolink/3
        """
        return _async(supervisor, function, args, kwargs, shutdown, linked=False)

    @staticmethod
    def start_child(  # type: ignore[override]  # Elixir's too takes a function here, and nobody calls it on an instance
        supervisor: Any,
        function: Callable[..., object],
        /,
        *args: Any,
        restart: str = "temporary",
        shutdown: float | str = 5.0,
        **kwargs: Any,
    ) -> Pid:
        """Run `function(*args, **kwargs)` under `supervisor`, for nobody to wait for. From any thread.

        restart:  "temporary" runs it once, "transient" until it does not crash, "permanent" again and again.
        shutdown: as async_.
        switch:   parks until the supervisor has started it.
        source:   Task.Supervisor.start_child/3
        """
        return _child(supervisor, function, (_launch, (function, args, kwargs)), restart, shutdown)

    @staticmethod
    def children(supervisor: Any) -> list[Pid]:
        """The tasks that run. switch: parks. source: Task.Supervisor.children/1"""
        return [pid for _, pid, _, _ in DynamicSupervisor.which_children(supervisor) if isinstance(pid, Pid)]

    @staticmethod
    def async_stream(
        supervisor: Any,
        iterable: Iterable[Any],
        function: Callable[[Any], T],
        *,
        max_concurrency: int | None = None,
        timeout: float | None = 5.0,
        ordered: bool = True,
        on_timeout: str = "exit",
        shutdown: float | str = 5.0,
    ) -> Iterator[TaskResult[T] | TaskExit]:
        """Task.async_stream, under `supervisor`. switch: parks when iterated. source: Task.Supervisor.async_stream/4"""
        start = _starter(supervisor, function, shutdown, linked=True)
        return async_stream.outcomes(start, iterable, function, max_concurrency, timeout, ordered, on_timeout)

    @staticmethod
    def async_stream_nolink(
        supervisor: Any,
        iterable: Iterable[Any],
        function: Callable[[Any], T],
        *,
        max_concurrency: int | None = None,
        timeout: float | None = 5.0,
        ordered: bool = True,
        on_timeout: str = "exit",
        shutdown: float | str = 5.0,
    ) -> Iterator[TaskResult[T] | TaskExit]:
        """`async_stream` without links: a crash is a TaskExit among the outcomes.

        The tasks end with the iterator and with who iterates all the same.
        source: Task.Supervisor.async_stream_nolink/4
        """
        start = _starter(supervisor, function, shutdown, linked=False)
        return async_stream.outcomes(start, iterable, function, max_concurrency, timeout, ordered, on_timeout)


def _async(
    supervisor: Any, function: Callable[..., T], args: Any, kwargs: Any, shutdown: float | str, *, linked: bool
) -> Task[T]:
    task: Task[T] = Task(record(), name_of(function))
    _begin(supervisor, task, function, args, kwargs, shutdown, linked)
    return task


def _starter(supervisor: Any, function: Callable[[Any], T], shutdown: Any, *, linked: bool) -> Callable[..., None]:
    def start(job: Job[T], element: Any) -> None:
        _begin(supervisor, job, function, (element,), {}, shutdown, linked)

    return start


def _begin(
    supervisor: Any, job: Job[T], function: Callable[..., T], args: Any, kwargs: Any, shutdown: Any, linked: bool
) -> None:
    """Have the supervisor start the job."""
    found = resolve(supervisor)
    if isinstance(found, Pid) and bridge.is_foreign(found.process.hub):
        text = "it belongs to the hub of another thread, where its tasks would run; start_child works"
        raise ConfigError(f"{supervisor!r} cannot run a task for this thread to wait for: {text}")
    try:
        _child(supervisor, function, (_spawn, (job, function, args, kwargs, linked)), "temporary", shutdown)
    except BaseException:
        # Also when the owner is interrupted while the supervisor is at it: nobody could reach that task.
        job.end()
        raise


def _child(supervisor: Any, function: object, start: tuple[Any, ...], restart: str, shutdown: Any) -> Pid:
    spec = {"id": name_of(function), "start": start, "restart": restart, "shutdown": shutdown}
    pid: Pid = DynamicSupervisor.start_child(supervisor, spec)
    return pid


# In the supervisor's process.


def _spawn(job: Job[T], function: Callable[..., T], args: Any, kwargs: Any, linked: bool) -> Pid:
    owner = job.owner_process
    if job.settled or not owner.alive:
        raise NoProc(f"{owner.pid!r} does not wait for {job!r} any more", reason=NOPROC)
    supervisor = record()
    links = (supervisor, owner) if linked and owner.linkable else (supervisor,)
    return job.spawn(function, args, kwargs, *links)


def _launch(function: Callable[..., object], args: Any, kwargs: Any) -> Pid:
    supervisor = record()
    # Those of who asked, also when it starts again; a native thread without a hub is nobody.
    callers = supervisor.callers or (supervisor.pid,)
    return launch(callers, function, args, kwargs, supervisor)


Task.Supervisor = TaskSupervisor
