"""What the tests of supervisors share: workers that note their starts and stops, and trees that end with the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.event import Event
from otp.kernel import PATIENCE, ended

from erps_gevent.errors import CallExit
from erps_gevent.otp import gen
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.messages import Reply, Stop
from erps_gevent.otp.primitives import exit_
from erps_gevent.otp.process import Pid
from erps_gevent.otp.supervisor import Supervisor
from erps_gevent.otp.words import KILL, NORMAL, SHUTDOWN


class Worker(GenServer):
    """Notes ("start", name) and ("stop", name, reason) in `log`; a cast is the reason to end with.

    begin: called in init; what it returns or raises is what init does.
    """

    def init(self, name: Any, log: Any, begin: Callable[[], Any] | None = None, trap: bool = True) -> Any:
        self.trap_exit = trap
        self.name, self.log = name, log
        answer = begin() if begin else None
        log.append(("start", name))
        return answer

    def handle_call(self, request: Any, from_: Any) -> Any:
        return Reply(request(self))

    def handle_cast(self, reason: Any) -> Any:
        return Stop(reason)

    def terminate(self, reason: Any) -> Any:
        self.log.append(("stop", self.name, reason))


class Fate:
    """A `begin` that does what it is told at the moment, and counts its calls."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)  # of the next calls
        self.always: Any = None  # of those after them
        self.calls = 0
        self.called = Event()

    def __call__(self) -> Any:
        self.calls += 1
        self.called.set()
        outcome = self.outcomes.pop(0) if self.outcomes else self.always
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome() if callable(outcome) else outcome

    def wait(self) -> None:
        self.called.clear()
        assert self.called.wait(PATIENCE), "nobody starts it"


def spec(id_: Any, log: Any, begin: Any = None, trap: bool = True, **keys: Any) -> dict[str, Any]:
    """The spec of a Worker that is called like its id."""
    return {"id": id_, "start": (Worker.start_link, (id_, log, begin, trap)), **keys}


def end(pid: Pid, reason: Any = "crash") -> None:
    """Let a worker end by itself, or kill it; when this returns it is dead, and its supervisor has been told."""
    if reason is KILL:
        exit_(pid, KILL)
    else:
        pid.cast(reason)
    ended(pid)


def pids(supervisor: Any) -> dict[Any, Any]:
    """The pids by id; once they are known, the supervisor has seen to every end before."""
    return {id_: pid for id_, pid, _, _ in Supervisor.which_children(supervisor)}


def drop(supervisor: Pid) -> None:
    """End a tree, whatever has become of it."""
    try:
        gen.stop(supervisor, SHUTDOWN, PATIENCE)
    except CallExit:
        exit_(supervisor, KILL)
        ended(supervisor)


ENDINGS = [NORMAL, SHUTDOWN, "crash", KILL]
