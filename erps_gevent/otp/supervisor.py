"""Supervisor: starts children in order, stops them in reverse, and starts again those that end when they should not.

Supervisor.start_link([Counter, (Cache, 100)], strategy="one_for_one")

class Tree(Supervisor, strategy="rest_for_one"):
    def init(self, port):
        return [(Listener, port), Counter]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from erps_gevent.errors import AlreadyStarted, BadReturn, ConfigError, ErrorReply, Exit, NotFound, StartError
from erps_gevent.otp import behaviour
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.child import Child, Ends, child_of
from erps_gevent.otp.child_spec import CHILD
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.messages import Ignore, Stop
from erps_gevent.otp.process import Pid
from erps_gevent.otp.reasons import FAILED_TO_START_CHILD, Shutdown, brief
from erps_gevent.otp.supervising import INTENSITY, Supervising, ask, asked_by, reason_of
from erps_gevent.otp.words import ABSENT, RESTARTING, SHUTDOWN


def _rest(children: Sequence[Child], child: Child) -> Sequence[Child]:
    return children[children.index(child) :]


# Which children are stopped, and started again, when one ended.
GROUPS: dict[str, Callable[[Sequence[Child], Child], Sequence[Child]]] = {
    "one_for_one": lambda _, child: [child],
    "one_for_all": lambda children, _: children,
    "rest_for_one": _rest,
}

# Whether the end of a significant child is the end of the supervisor; `left` says that other significant ones run.
AUTO_SHUTDOWN: dict[str, Callable[[bool], bool]] = {
    "never": lambda left: False,
    "any_significant": lambda left: True,
    "all_significant": lambda left: not left,
}

FLAGS = {
    "strategy": Option(ABSENT, behaviour.one_of(*GROUPS)),
    **INTENSITY,
    "auto_shutdown": Option("never", behaviour.one_of(*AUTO_SHUTDOWN)),
}


class Supervisor(Supervising):
    """Start it with a list of children, or subclass it and return the list from `init`.

    A child is a spec (see otp/child_spec.py), a class with child_spec, or a tuple (class, *arguments).
    Flags are class keywords, and options of start_link, which win:

    strategy:      "one_for_one" starts again the child that ended; "one_for_all" all children; "rest_for_one" that
                   child and those that were started after it. There is no default. A child with `backoff` that
                   pauses keeps those that end with it down, shown as None; if it is terminated meanwhile they stay
                   so until restart_child.
    max_restarts:  how many restarts, within `max_seconds`, are taken for bad luck: 3 within 5.0 s. One more, and the
                   supervisor stops its children and ends with SHUTDOWN.
    auto_shutdown: "any_significant" or "all_significant": end with SHUTDOWN when one of, or all, the significant
                   children have ended and are not started again.

    A failed start is StartError, with the reason Shutdown(("failed_to_start_child", id, reason)).
    source: Elixir's Supervisor, OTP's supervisor
    """

    FLAGS: ClassVar[dict[str, Option]] = FLAGS
    OPTIONS: ClassVar[dict[str, Option]] = {**CHILD, **FLAGS}
    START_OPTIONS: ClassVar[dict[str, Option]] = {**GenServer.START_OPTIONS, **FLAGS}
    _children: dict[Any, Child]  # by id, in the order of their start
    _running: dict[Pid, Child]

    def init(self, children: Iterable[Any]) -> Any:  # type: ignore[override]
        """Return the list of children, or Ignore() or Stop(reason)."""
        return children

    @staticmethod
    def start_child(supervisor: Any, entry: Any, timeout: float | None = None) -> Any:
        """Add a child, and start it; return its Pid, (Pid, info) if its start function did, or None if it is ignored.

        supervisor: its Pid, name or Via.
        entry:      as in the list of children.
        timeout:    seconds; None waits for ever.
        raises:     StartError      it did not start, because of `reason`, and is not kept.
                    AlreadyStarted  its id, or its name, belongs to `pid`.
                    ErrorReply      "already_present": its id belongs to a child that is not running.
                    ConfigError     it is no child; the supervisor was not asked.
                    CallTimeout     no answer in time; the child may start all the same.
                    CallExit        as call; "deadlock" in the main greenlet, when nothing else is left that runs.
        switch:     parks; the supervisor does nothing else until the child's init has returned.
        source:     Supervisor.start_child/2
        """
        new = child_of(entry)
        new.callers = asked_by()
        return ask(supervisor, timeout, Supervisor, "start_child", new)

    @staticmethod
    def terminate_child(supervisor: Any, id_: Any, timeout: float | None = None) -> None:
        """Stop a child. It is kept, for restart_child, unless it is temporary. One that is not running is no error.

        raises: NotFound  there is no such child.
                CallExit  as call.
        switch: parks until the child is dead.
        source: Supervisor.terminate_child/2
        """
        ask(supervisor, timeout, Supervisor, "terminate_child", _key(id_))

    @staticmethod
    def restart_child(supervisor: Any, id_: Any, timeout: float | None = None) -> Any:
        """Start a child that is not running; return as start_child.

        raises: ErrorReply  "running" or "restarting".
                NotFound    there is no such child.
                StartError  it did not start, because of `reason`.
                CallExit    as call.
        switch: parks until the child's init has returned.
        source: Supervisor.restart_child/2
        """
        return ask(supervisor, timeout, Supervisor, "restart_child", _key(id_))

    @staticmethod
    def delete_child(supervisor: Any, id_: Any, timeout: float | None = None) -> None:
        """Forget a child that is not running.

        raises: ErrorReply  "running" or "restarting".
                NotFound    there is no such child.
                CallExit    as call.
        switch: parks.
        source: Supervisor.delete_child/2
        """
        ask(supervisor, timeout, Supervisor, "delete_child", _key(id_))

    @staticmethod
    def which_children(supervisor: Any, timeout: float | None = None) -> list[tuple[Any, Any, str, Any]]:
        """Every child as (id, pid, type, modules), in the order of their start.

        The pid is None if it is not running, RESTARTING between two attempts to start it.
        raises: CallExit  as call.
        switch: parks.
        source: Supervisor.which_children/1
        """
        children: list[tuple[Any, Any, str, Any]] = ask(supervisor, timeout, Supervising, "which_children")
        return children

    @staticmethod
    def count_children(supervisor: Any, timeout: float | None = None) -> dict[str, int]:
        """How many children there are: "specs" is all, "active" those that run, "supervisors" and "workers" by type.

        raises: CallExit  as call.
        switch: parks.
        source: Supervisor.count_children/1
        """
        counts: dict[str, int] = ask(supervisor, timeout, Supervising, "count_children")
        return counts

    # Starting and stopping the tree.

    def _configure(self, options: dict[str, Any]) -> None:
        super()._configure(options)
        if self._flags["strategy"] is ABSENT:
            choices = ", ".join(map(repr, GROUPS))
            text = f"one of {choices}, as a class keyword or an option of start_link"
            raise ConfigError(f"{type(self).__name__} needs a strategy: {text}")
        self._children = {}
        self._running = {}

    def _begin(self, *args: Any, **kwargs: Any) -> Any:
        self._take_charge()
        given = self.init(*args, **kwargs)
        if isinstance(given, Ignore | Stop):
            return given
        if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
            text = "it returns a list of children, Ignore() or Stop(reason)"
            raise BadReturn(f"{type(self).__name__}.init returned {brief(given)}; {text}", reason=given)
        # All of them are checked before the first is started.
        for child in map(child_of, given):
            self._check(child)
            if child.id in self._children:
                raise ConfigError(f"child {child.id!r}: there are two with this id; give one another id")
            self._children[child.id] = child
        self._start_all()
        return None

    def _start_all(self) -> None:
        for child in self._all():
            try:
                self._launch(child)
            except (StartError, AlreadyStarted) as error:
                self._report_start(child, error)
                self._halt(self._all())
                raise Exit(Shutdown((FAILED_TO_START_CHILD, child.id, reason_of(error)))) from None

    def terminate(self, reason: Any) -> Any:
        self._halt(self._all())

    def _check(self, new: Child) -> None:
        if new.significant and self._flags["auto_shutdown"] == "never":
            text = "start the supervisor with auto_shutdown='any_significant' or 'all_significant'"
            raise ConfigError(f"child {new.id!r}: significant=True means nothing here; {text}")

    # Requests.

    def _start_child(self, new: Child) -> Any:
        self._check(new)
        present = self._children.get(new.id)
        if present is not None and isinstance(present.pid, Pid):
            raise AlreadyStarted(f"there is a child {new.id!r}, {present.pid!r}", pid=present.pid)
        if present is not None:
            text = f"there is a child {new.id!r} that is not running; restart_child or delete_child it"
            raise ErrorReply("already_present", text)
        self._children[new.id] = new
        try:
            return self._launch(new)
        except (StartError, AlreadyStarted):
            del self._children[new.id]
            raise

    def _terminate_child(self, id_: Any) -> None:
        self._halt([self._find(id_)])

    def _restart_child(self, id_: Any) -> Any:
        return self._launch(self._find_idle(id_))

    def _delete_child(self, id_: Any) -> None:
        del self._children[self._find_idle(id_).id]

    def _find(self, id_: Any) -> Child:
        try:
            return self._children[id_]
        except KeyError:
            raise NotFound(f"there is no child {id_!r}") from None

    def _find_idle(self, id_: Any) -> Child:
        found = self._find(id_)
        if found.pid is not None:
            word = "restarting" if found.pid is RESTARTING else "running"
            raise ErrorReply(word, f"child {id_!r} is {word}; terminate_child first")
        return found

    # Children.

    def _all(self) -> Sequence[Child]:
        return list(self._children.values())

    def _of_pid(self, pid: Pid) -> Child | None:
        return self._running.pop(pid, None)

    def _launch(self, child: Child) -> Any:
        given = self._started(child, self._running)
        if isinstance(child.pid, Pid):
            self._running[child.pid] = child
        elif child.temporary:
            del self._children[child.id]
        return given

    def _halt(self, children: Sequence[Child]) -> None:
        """Stop these children, the last one first; what is temporary is forgotten."""
        ends = Ends(self._process)
        for child in reversed(children):
            child.cancel()
            if isinstance(child.pid, Pid):
                del self._running[child.pid]
                self._stop([child], ends)
            self._forget(child)

    def _forget(self, child: Child) -> None:
        child.pid = None
        if child.temporary:
            del self._children[child.id]

    def _clear(self, child: Child) -> Iterable[Child]:
        child.pid = None
        group = GROUPS[self._flags["strategy"]](self._all(), child)
        self._halt(group)
        return [each for each in group if each.id in self._children]

    def _finished(self, child: Child) -> Any:
        self._forget(child)
        if not child.significant:
            return None
        left = any(each.significant and each.pid is not None for each in self._children.values())
        return Stop(SHUTDOWN) if AUTO_SHUTDOWN[self._flags["auto_shutdown"]](left) else None


def _key(id_: Any) -> Any:
    try:
        hash(id_)
    except TypeError:
        raise ConfigError(f"the id of a child can be a key of a dict, which {id_!r} cannot") from None
    return id_
