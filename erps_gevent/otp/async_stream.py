"""One function over many elements, some of them at once: Task.async_stream, and that of Task.Supervisor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar, cast

from erps_gevent.errors import ConfigError, TaskTimeout
from erps_gevent.otp import behaviour
from erps_gevent.otp.awaiting import Landing
from erps_gevent.otp.job import Job, TaskExit, TaskResult, name_of
from erps_gevent.otp.plain import record
from erps_gevent.otp.process import Process
from erps_gevent.otp.reasons import brief
from erps_gevent.otp.waiting import SHORTEST
from erps_gevent.otp.words import TIMEOUT

T = TypeVar("T")

_check_concurrency = behaviour.count(1)
_check_timeout = behaviour.number(0, none=True)
_check_on_timeout = behaviour.one_of("exit", "kill_task")


def outcomes(
    start: Callable[[Job[T], Any], object],
    iterable: Iterable[Any],
    function: Callable[[Any], T],
    max_concurrency: int | None,
    timeout: float | None,
    ordered: bool,
    on_timeout: str,
) -> Iterator[TaskResult[T] | TaskExit]:
    """The iterator of Task.async_stream, whose arguments these are.

    start:  has a job begin with an element.
    raises: ConfigError and TypeError now, and not when the first outcome is asked for.
    """
    name = name_of(function)
    if max_concurrency is None:
        max_concurrency = os.cpu_count() or 1
    _check_concurrency("max_concurrency", max_concurrency)
    _check_timeout("timeout", timeout)
    behaviour.flag("ordered", ordered)
    _check_on_timeout("on_timeout", on_timeout)

    elements = iter(iterable)

    def begin(item: _Item[T]) -> None:
        start(item, item.element)
        item.limit(timeout)

    def stream() -> _Stream[T]:
        return _Stream(record(), name, begin, elements, max_concurrency, ordered, on_timeout)

    return _given(stream)


def _given(make: Callable[[], _Stream[T]]) -> Iterator[Any]:
    stream = make()
    try:
        while (item := stream.next()) is not None:
            yield item.outcome
            stream.check_owner()
    finally:
        stream.close()


class _Item(Job[T]):
    """The job of one element. Its link, if it has one, tells a living owner nothing that the stream does not."""

    __slots__ = ("element", "seconds", "timed_out", "timer")

    def __init__(self, owner: Process, name: str, element: Any) -> None:
        super().__init__(owner, name)
        self.element = element
        self.seconds = 0.0
        self.timer: Any = None
        self.timed_out = False

    def __repr__(self) -> str:
        return f"<Task {self.ref} {self.name} of {brief(self.element)}>"

    def limit(self, seconds: float | None) -> None:
        """Let it run for so long. A timer and no deadline, because it runs on while nobody asks for outcomes."""
        if seconds is not None and self.outcome is None:
            self.seconds = seconds
            self.timer = self.owner_process.hub.loop.timer(max(seconds, SHORTEST))
            self.timer.start(self._expire)

    def end(self) -> None:
        self._stop_timer()
        super().end()

    def _expire(self) -> None:
        """Its time is up. Runs in the hub."""
        self.end()
        self.timed_out = True
        super()._land(TaskExit(TIMEOUT))

    def _land(self, outcome: TaskResult[T] | TaskExit) -> None:
        self._stop_timer()
        if self.owner_process.trap_exit and self.process is not None:
            self.process.unlink(self.owner_process)
        super()._land(outcome)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.close()
            self.timer = None


class _Stream(Generic[T]):
    """The items that have begun and have not been given, and where the rest comes from.

    It has no process of its own: the owner's end is the stream's, whether it is linked or not.
    """

    def __init__(
        self,
        owner: Process,
        name: str,
        begin: Callable[[_Item[T]], None],
        elements: Iterator[Any],
        limit: int,
        ordered: bool,
        on_timeout: str,
    ) -> None:
        self.owner = owner
        self.name = name
        self.begin = begin
        self.elements = elements
        self.limit = limit
        self.ordered = ordered
        self.raises = on_timeout == "exit"
        self.items: dict[_Item[T], None] = {}  # in the order of their elements
        self.landing = Landing(owner)
        self.monitor = owner.monitor(lambda _: self.close())

    def next(self) -> _Item[T] | None:
        """The next one whose outcome is to be given, or None: that was all. Parks."""
        # What is there is given before more is begun: the next element may be long in coming.
        item = self._head()
        while item is None and self._fill():
            landed = self._landed()
            item = self._head() if self.ordered else landed
        if item is not None:
            del self.items[item]
        return item

    def check_owner(self) -> None:
        """raises: ConfigError  another process asks now than the one that began."""
        caller = record()
        if caller is not self.owner:
            text = f"belongs to {self.owner.pid!r}, which began it, not to {caller.pid!r}"
            raise ConfigError(f"the stream of {self.name} {text}")

    def close(self) -> None:
        """End what still runs. Idempotent."""
        self.owner.demonitor(self.monitor)
        items, self.items = self.items, {}
        for item in items:
            item.end()

    def _head(self) -> _Item[T] | None:
        """The oldest, if the order matters and it has ended."""
        head = next(iter(self.items), None) if self.ordered else None
        return head if head is not None and head.outcome is not None else None

    def _fill(self) -> bool:
        """Begin as many as may run at once; False if nothing runs and nothing is left."""
        for element in islice(self.elements, self.limit - len(self.landing.expected)):
            item: _Item[T] = _Item(self.owner, self.name, element)
            self.items[item] = None
            self.begin(item)
            self.landing.expect(item)
        return bool(self.items)

    def _landed(self) -> _Item[T]:
        item = cast(_Item[T], self.landing.next(None))
        if item.timed_out and self.raises:
            raise TaskTimeout(
                f"{self.name} did not finish with {brief(item.element)} in {item.seconds} s; the stream has ended. "
                "on_timeout='kill_task' ends only that one"
            )
        return item
