"""DynamicSupervisor: starts with no children, and is given them one by one; each stands alone.

rooms = DynamicSupervisor.start_link(max_children=1000)
DynamicSupervisor.start_child(rooms, (Room, "lobby"))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from erps_gevent.errors import ConfigError, MaxChildren, NotFound, StartIgnored
from erps_gevent.otp import behaviour
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.child import Child, child_of, described
from erps_gevent.otp.child_spec import CHILD
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.process import Pid
from erps_gevent.otp.supervising import INTENSITY, Supervising, ask, asked_by


def _max_children(name: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        return behaviour.count(0)(name, value)
    except ConfigError:
        raise ConfigError(f"{name} is a whole number of at least 0, or None for no limit, not {value!r}") from None


def _arguments(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{name} is a list of arguments, not {value!r}")
    return list(value)


FLAGS = {
    "strategy": Option("one_for_one", behaviour.one_of("one_for_one")),
    **INTENSITY,
    "auto_shutdown": Option("never", behaviour.one_of("never")),
    "max_children": Option(None, _max_children),
    "extra_arguments": Option((), _arguments),
}


class DynamicSupervisor(Supervising):
    """A supervisor of any number of children that come and go; it stops them all at the same time.

    Flags are class keywords, and options of start_link, which win; those of Supervisor, and:

    strategy:        "one_for_one", the default and the only one.
    max_children:    how many there may be, with those that are being restarted; None for no limit.
    extra_arguments: a list of arguments that the start function of each child gets before its own.

    A subclass may have an `init`, which returns None, Ignore() or Stop(reason).
    source: Elixir's DynamicSupervisor
    """

    FLAGS: ClassVar[dict[str, Option]] = FLAGS
    OPTIONS: ClassVar[dict[str, Option]] = {**CHILD, **FLAGS}
    START_OPTIONS: ClassVar[dict[str, Option]] = {**GenServer.START_OPTIONS, **FLAGS}
    _children: dict[Pid, Child]  # by pid; a child that is restarting by its last one

    @staticmethod
    def start_child(supervisor: Any, entry: Any, timeout: float | None = None) -> Any:
        """Start a child; return its Pid, or (Pid, info) if its start function did.

        supervisor: its Pid, name or Via.
        entry:      a spec, whose id means nothing here; a class with child_spec; or a tuple (class, *arguments).
        timeout:    seconds; None waits for ever.
        raises:     StartError      it did not start, because of `reason`.
                    StartIgnored    its init returned Ignore().
                    AlreadyStarted  its name belongs to `pid`.
                    MaxChildren     there are max_children.
                    ConfigError     it is no child; the supervisor was not asked.
                    CallTimeout     no answer in time; the child may start all the same.
                    CallExit        as call; "deadlock" in the main greenlet, when nothing else is left that runs.
        switch:     parks; the supervisor does nothing else until the child's init has returned.
        source:     DynamicSupervisor.start_child/2
        """
        new = child_of(entry, required=("start",))
        if new.significant:
            text = "significant=True is for a child of a Supervisor; a DynamicSupervisor never stops itself"
            raise ConfigError(f"child {new.id!r}: {text}")
        new.callers = asked_by()
        return ask(supervisor, timeout, DynamicSupervisor, "start_child", new)

    @staticmethod
    def terminate_child(supervisor: Any, pid: Pid, timeout: float | None = None) -> None:
        """Stop a child, and forget it. One that is restarting is known by its last pid.

        raises: NotFound  there is no such child.
                CallExit  as call.
        switch: parks until the child is dead.
        source: DynamicSupervisor.terminate_child/2
        """
        if not isinstance(pid, Pid):
            raise TypeError(f"a child of a DynamicSupervisor is known by its Pid, not by {pid!r}")
        ask(supervisor, timeout, DynamicSupervisor, "terminate_child", pid)

    @staticmethod
    def which_children(supervisor: Any, timeout: float | None = None) -> list[tuple[Any, Any, str, Any]]:
        """Every child as (None, pid, type, modules); the pid is RESTARTING between two attempts to start it.

        raises: CallExit  as call.
        switch: parks.
        source: DynamicSupervisor.which_children/1
        """
        children: list[tuple[Any, Any, str, Any]] = ask(supervisor, timeout, Supervising, "which_children")
        return children

    @staticmethod
    def count_children(supervisor: Any, timeout: float | None = None) -> dict[str, int]:
        """As Supervisor.count_children. switch: parks. source: DynamicSupervisor.count_children/1"""
        counts: dict[str, int] = ask(supervisor, timeout, Supervising, "count_children")
        return counts

    def _configure(self, options: dict[str, Any]) -> None:
        super()._configure(options)
        self._children = {}

    def _begin(self, *args: Any, **kwargs: Any) -> Any:
        self._take_charge()
        return self.init(*args, **kwargs)

    def terminate(self, reason: Any) -> Any:
        self._cancel()
        self._stop([child for child in self._all() if isinstance(child.pid, Pid)])

    # Requests.

    def _start_child(self, new: Child) -> Any:
        limit = self._flags["max_children"]
        if limit is not None and len(self._children) >= limit:
            raise MaxChildren(f"{self.pid!r} has {limit} children, which is its max_children")
        given = self._launch(new)
        if given is None:
            raise StartIgnored(f"child {new.id!r}: its init returned Ignore()")
        return given

    def _which_children(self) -> list[tuple[Any, Any, str, Any]]:
        return [(None, *described(child)[1:]) for child in self._all()]

    def _terminate_child(self, pid: Pid) -> None:
        found = self._children.pop(pid, None)
        if found is None:
            raise NotFound(f"{pid!r} is no child of {self.pid!r}")
        found.cancel()
        if isinstance(found.pid, Pid):
            self._stop([found])

    # Children.

    def _all(self) -> Sequence[Child]:
        return list(self._children.values())

    def _of_pid(self, pid: Pid) -> Child | None:
        child = self._children.get(pid)
        # A child that is restarting is kept under its last pid, of which there is nothing more to hear.
        return child if child is not None and child.pid is pid else None

    def _launch(self, child: Child) -> Any:
        known_by = child.last
        given = self._started(child, self._children, self._flags["extra_arguments"])
        if known_by is not None:
            del self._children[known_by]
        if isinstance(child.pid, Pid):
            self._children[child.pid] = child
        return given

    def _clear(self, child: Child) -> Iterable[Child]:
        return [child]

    def _finished(self, child: Child) -> Any:
        assert child.last is not None  # it has run
        del self._children[child.last]
