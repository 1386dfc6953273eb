"""DynamicSupervisor: children that come and go, each alone."""

from __future__ import annotations

from time import perf_counter

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, ended, idle
from otp.trees import ENDINGS, Fate, Worker, end, pids, spec
from support import MS

from erps_gevent.errors import (
    AlreadyStarted,
    BadReturn,
    ConfigError,
    Exit,
    MaxChildren,
    NotFound,
    StartError,
    StartIgnored,
)
from erps_gevent.otp import primitives as erps
from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.gen import stop
from erps_gevent.otp.messages import Ignore, Stop
from erps_gevent.otp.names import Via
from erps_gevent.otp.process import ExitSignal, whereis
from erps_gevent.otp.reasons import Shutdown
from erps_gevent.otp.supervisor import Supervisor
from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL, RESTARTING, SHUTDOWN

start_child = DynamicSupervisor.start_child


def children(supervisor):
    """The pids; once they are known, the supervisor has seen to every end before."""
    return [pid for _, pid, _, _ in DynamicSupervisor.which_children(supervisor)]


def counts(supervisor):
    return DynamicSupervisor.count_children(supervisor)


def test_an_end_that_is_told_twice_is_one_restart(dynamic, log):
    supervisor = dynamic(max_restarts=1)
    pid = start_child(supervisor, spec("a", log, backoff=(PATIENCE, PATIENCE), restart="permanent"))
    end(pid)
    assert children(supervisor) == [RESTARTING]
    supervisor.process.send(ExitSignal(pid, NOPROC, ended=True))
    supervisor.process.send(ExitSignal(pid, NOPROC, ended=True))
    assert children(supervisor) == [RESTARTING]


class Registrar:
    """A registry of names that is no process."""

    def __init__(self):
        self.pids = {}

    def whereis_name(self, key):
        return self.pids.get(key)

    def register_name(self, key, pid, _value):
        return self.pids.setdefault(key, pid) is pid

    def unregister_name(self, key):
        del self.pids[key]


def test_dyn_supervised(supervise):
    """Case 142, ED "can be supervised directly", "multiple supervisors ..."."""
    names = ["rooms", Via(Registrar(), "halls"), None]
    supervisor = supervise(*[DynamicSupervisor.child_spec(name=name) for name in names])
    assert list(pids(supervisor)) == ["rooms", "halls", DynamicSupervisor]
    assert Supervisor.count_children(supervisor)["supervisors"] == 3
    assert counts("rooms") == {"specs": 0, "active": 0, "supervisors": 0, "workers": 0}
    assert whereis(names[1]) is pids(supervisor)["halls"]
    with pytest.raises(AlreadyStarted) as info:
        Supervisor.start_child(supervisor, DynamicSupervisor)
    assert info.value.pid is pids(supervisor)[DynamicSupervisor]


BAD = [
    ({"strategy": "one_for_all"}, "strategy is one of 'one_for_one', not 'one_for_all'"),
    ({"max_restarts": -1}, "max_restarts is a whole number of at least 0, not -1"),
    ({"max_seconds": 0}, "max_seconds is seconds, more than 0, not 0"),
    ({"max_children": -1}, "max_children is a whole number of at least 0, or None for no limit, not -1"),
    ({"extra_arguments": "ab"}, "extra_arguments is a list of arguments, not 'ab'"),
    ({"auto_shutdown": "any_significant"}, "auto_shutdown is one of 'never', not 'any_significant'"),
]


@pytest.mark.parametrize(("option", "text"), BAD)
def test_dyn_bad_init(option, text):
    """Case 143, ED "with non-ok init"."""
    with pytest.raises(ConfigError, match=f"DynamicSupervisor.start: {text}"):
        DynamicSupervisor.start_link(**option)
    with pytest.raises(ConfigError, match=f"class Bad: {text}"):
        type("Bad", (DynamicSupervisor,), {}, **option)


def test_an_init_may_refuse():
    """Case 143, ED "with non-ok init"."""

    class Mine(DynamicSupervisor):
        def init(self, answer):
            return answer

    with pytest.raises(StartIgnored):
        Mine.start_link(Ignore())
    with pytest.raises(StartError) as info:
        Mine.start_link(Stop("no"))
    assert info.value.reason == "no"
    supervisor = Mine.start_link(None, max_children=None)
    assert children(supervisor) == []
    stop(supervisor)


def linked():
    return erps.spawn_link(idle, None)


def test_dyn_start_child_returns(dynamic, log):
    """Case 144, ED "with different returns": a pid, (pid, extra), ignore, error, garbage."""
    supervisor = dynamic()
    first = start_child(supervisor, spec("a", log))
    second, info = start_child(supervisor, {"start": (lambda: (linked(), "info"), ())})
    assert info == "info"
    with pytest.raises(StartIgnored, match=r"child 'b': its init returned Ignore\(\)"):
        start_child(supervisor, spec("b", log, Fate(Ignore())))
    with pytest.raises(StartError) as error:
        start_child(supervisor, spec("c", log, Fate(Stop("no"))))
    assert error.value.reason == "no"
    with pytest.raises(StartError) as garbage:
        start_child(supervisor, {"id": "d", "start": (lambda: "garbage", ())})
    assert isinstance(garbage.value.__cause__, BadReturn)
    assert garbage.value.reason.reason == "garbage"
    assert children(supervisor) == [first, second]


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), Exit("x"), gevent.Timeout()])
def test_dyn_start_child_raises(dynamic, error):
    """Case 145, ED "with throw/error/exit": it becomes an error, and the supervisor lives."""

    def start():
        raise error

    supervisor = dynamic()
    with pytest.raises(StartError, match="child 'a' did not start") as info:
        start_child(supervisor, {"id": "a", "start": (start, ())})
    assert info.value.reason is (error.reason if isinstance(error, Exit) else error)
    assert children(supervisor) == []


def test_a_child_whose_name_is_taken_is_told_with_the_holder(dynamic, log):
    supervisor = dynamic()
    named = {"start": (Worker.start_link, ("a", log), {"name": "the one"})}
    first = start_child(supervisor, named)
    with pytest.raises(AlreadyStarted) as info:
        start_child(supervisor, named)
    assert info.value.pid is first


def test_ids_are_ignored(dynamic, log):
    """Rule 13: duplicates are fine, and a child is shown without one."""
    supervisor = dynamic()
    pair = [start_child(supervisor, spec("same", log)) for _ in range(2)]
    assert DynamicSupervisor.which_children(supervisor) == [(None, pid, "worker", [Worker]) for pid in pair]


def test_dyn_max_children(dynamic, log):
    """Case 146, ED "with max_children" and both "restarting ... counted"."""
    fate = Fate(None)
    fate.always = RuntimeError("init")
    supervisor = dynamic(max_children=1, max_restarts=1_000_000)
    child = start_child(supervisor, spec("a", log, fate))
    with pytest.raises(MaxChildren, match="has 1 children, which is its max_children"):
        start_child(supervisor, spec("b", log))
    end(child)
    assert children(supervisor) == [RESTARTING]
    assert counts(supervisor) == {"specs": 1, "active": 0, "supervisors": 0, "workers": 1}
    with pytest.raises(MaxChildren):
        start_child(supervisor, spec("b", log))
    DynamicSupervisor.terminate_child(supervisor, child)
    assert start_child(supervisor, spec("b", log)).is_alive()


def test_no_children_may_be_allowed(dynamic, log):
    """ED "with max_children"."""
    with pytest.raises(MaxChildren):
        start_child(dynamic(max_children=0), spec("a", log))


RESTARTED = {"permanent": {NORMAL, SHUTDOWN, "crash", KILL}, "transient": {"crash", KILL}, "temporary": set()}


@pytest.mark.parametrize("reason", [*ENDINGS, Shutdown("x")])
@pytest.mark.parametrize("restart", RESTARTED)
def test_dyn_restart_types(dynamic, log, restart, reason):
    """Case 147, ED temporary/transient/permanent."""
    supervisor = dynamic()
    child = start_child(supervisor, spec("a", log, restart=restart))
    end(child, reason)
    left = children(supervisor)
    assert child not in left
    assert len(left) == (reason in RESTARTED[restart] or restart == "permanent")
    assert counts(supervisor) == {"specs": len(left), "active": len(left), "supervisors": 0, "workers": len(left)}


def test_dyn_try_again(dynamic, log):
    """Case 149, ED "child is restarted when trying again": one failure, then success."""
    fate = Fate(None, RuntimeError("init"))
    supervisor = dynamic(max_restarts=2)
    child = start_child(supervisor, spec("a", log, fate))
    end(child)
    while children(supervisor) == [RESTARTING]:
        assert fate.calls <= 3
    (again,) = children(supervisor)
    assert again.is_alive()
    assert fate.calls == 3
    end(again, KILL)
    ended(supervisor)


@pytest.mark.parametrize("failing", [False, True])
def test_dyn_max_restarts(dynamic, log, failing):
    """Case 150, ED "child triggers maximum restarts", "...intensity when trying again"."""
    fate = Fate(None)
    fate.always = RuntimeError("init") if failing else None
    supervisor = dynamic(max_restarts=1)
    child = start_child(supervisor, spec("a", log, fate))
    other = start_child(supervisor, spec("b", log))
    end(child)
    if not failing:
        pid = children(supervisor)[-1]
        pid.cast("crash")
    assert ended(supervisor) is SHUTDOWN
    assert fate.calls == 2
    assert not other.is_alive()
    assert log[-1] == ("stop", "b", SHUTDOWN)


def test_dyn_extra_arguments(dynamic, log):
    """Case 151, ED "supports extra arguments", "restarting ... extra_arguments": prepended, also at a restart."""
    supervisor = dynamic(extra_arguments=["name", log])
    child = start_child(supervisor, {"start": (Worker.start_link, (None, False))})
    assert log == [("start", "name")]
    end(child)
    assert children(supervisor)[0].is_alive()
    assert log == [("start", "name"), ("stop", "name", "crash"), ("start", "name")]


class Stubborn(Worker):
    """Its terminate does not return, unless it is given a reason to end with."""

    def init(self, log, reason=None):
        super().init("stubborn", log)
        self.reason = reason

    def terminate(self, reason):
        if self.reason is None:
            idle(None)
        raise Exit(self.reason)


def watched(supervisor, *entries):
    """Start these; what each will have ended with when the supervisor has stopped, in the order of the entries."""
    seen = {}
    for number, entry in enumerate(entries):
        start_child(supervisor, entry).process.monitor(lambda reason, number=number: seen.__setitem__(number, reason))
    stop(supervisor, SHUTDOWN)
    return [seen[number] for number in range(len(entries))]


SHUTDOWNS = [
    ("brutal_kill", False, KILLED),
    ("infinity", False, SHUTDOWN),
    (5.0, False, SHUTDOWN),
    (1 * MS, True, KILLED),
    (0, True, KILLED),
]


@pytest.mark.parametrize(("shutdown", "stubborn", "reason"), SHUTDOWNS)
def test_dyn_shutdowns(dynamic, log, shutdown, stubborn, reason):
    """Case 152, ED terminate/2: brutal kill, infinity, integer, expired."""
    made = {"start": (Stubborn.start_link, (log,))} if stubborn else spec("a", log)
    assert watched(dynamic(), *[{**made, "shutdown": shutdown}] * 2) == [reason, reason]


def test_dyn_shutdowns_mixed(dynamic, log):
    """Case 152, ED terminate/2, mixed."""
    entries = [
        {**({"start": (Stubborn.start_link, (log,))} if stubborn else spec("a", log)), "shutdown": shutdown}
        for shutdown, stubborn, _ in SHUTDOWNS
    ]
    assert watched(dynamic(), *entries) == [reason for _, _, reason in SHUTDOWNS]


def test_dyn_stop_own_reasons(dynamic, log):
    """Case 153, SS sup_stop_non_shutdown_exit_dynamic: reasons are kept, and the supervisor exits as it was told."""
    reasons = [NORMAL, SHUTDOWN, Shutdown("x"), "other"]
    entries = [{"start": (Stubborn.start_link, (log, reason))} for reason in reasons]
    assert watched(dynamic(), *entries) == reasons


def test_dyn_stop_concurrent(dynamic, log):
    """Case 154, PR S20; SS sup_stop_timeout_dynamic: all are asked before one has ended."""
    together = Event()
    count = 5

    class Sociable(Worker):
        def terminate(self, reason):
            super().terminate(reason)
            if len([entry for entry in log if entry[0] == "stop"]) == count:
                together.set()
            together.wait()

    entries = [{"start": (Sociable.start_link, (number, log)), "shutdown": "infinity"} for number in range(count)]
    assert watched(dynamic(), *entries) == [SHUTDOWN] * count


def test_dyn_terminate_child(dynamic, log):
    """Case 155, ED terminate_child/2 (3 tests): by pid; again not_found; while restarting."""
    fate = Fate(None)
    fate.always = RuntimeError("init")
    supervisor = dynamic(max_restarts=1_000_000)
    child = start_child(supervisor, spec("a", log))
    assert DynamicSupervisor.terminate_child(supervisor, child) is None
    assert ended(child) is not None
    assert children(supervisor) == []
    with pytest.raises(NotFound, match="is no child of"):
        DynamicSupervisor.terminate_child(supervisor, child)
    child = start_child(supervisor, spec("b", log, fate))
    end(child)
    assert children(supervisor) == [RESTARTING]
    DynamicSupervisor.terminate_child(supervisor, child)
    assert children(supervisor) == []
    calls = fate.calls
    assert children(supervisor) == []
    assert fate.calls == calls
    with pytest.raises(TypeError, match="is known by its Pid, not by 'a'"):
        DynamicSupervisor.terminate_child(supervisor, "a")


def test_a_supervisor_can_be_stopped_while_it_restarts(dynamic, log):
    fate = Fate(None)
    fate.always = RuntimeError("init")
    supervisor = dynamic(max_restarts=1_000_000)
    end(start_child(supervisor, spec("a", log, fate)))
    start_child(supervisor, spec("b", log))
    assert RESTARTING in children(supervisor)
    stop(supervisor, SHUTDOWN)
    assert log[-1] == ("stop", "b", SHUTDOWN)


INVALID = [
    ({}, r"child \{\}: a child spec needs 'start'"),
    ({"id": 1}, "child 1: a child spec needs 'start'"),
    ((1, 2, 3), r"\(1, 2, 3\) is no child"),
    ({"id": 1, "start": (print, ()), "restart": 1}, "child 1: restart is one of"),
    ({"id": 1, "start": (print, ()), "shutdown": "never"}, "child 1: shutdown is seconds, 'brutal_kill'"),
    (
        {"id": 1, "start": (print, ()), "restart": "transient", "significant": True},
        "child 1: significant=True is for a child of a Supervisor",
    ),
]


@pytest.mark.parametrize(("entry", "text"), INVALID)
def test_dyn_invalid_spec_local(entry, text):
    """Case 156, ED "with invalid child spec": refused in the caller, no call is made."""
    with pytest.raises(ConfigError, match=text):
        start_child("nobody there", entry)


def test_dyn_scale():
    """Case 157, SS simple_one_for_one_scale_many_temporary_children: 10,000 are no worse than 50 times 1,000."""

    def spent(count):
        begin = perf_counter()
        supervisor = DynamicSupervisor.start_link()
        for _ in range(count):
            start_child(supervisor, {"start": (linked, ()), "restart": "temporary"})
        assert counts(supervisor)["active"] == count
        stop(supervisor)
        return perf_counter() - begin

    assert spent(10_000) < 50 * spent(1_000)


def test_dyn_restart_ignore(dynamic, log):
    """Case 158, SS simple_one_for_one_restart_ignore: ignore at a restart removes the child."""
    supervisor = dynamic()
    end(start_child(supervisor, spec("a", log, Fate(None, Ignore()))))
    assert children(supervisor) == []


def test_a_name_that_is_taken_at_a_restart_is_tried_again(dynamic, log):
    """A start that fails because of its name is one that failed."""
    supervisor = dynamic(max_restarts=1_000_000)
    child = start_child(supervisor, {"start": (Worker.start_link, ("a", log), {"name": "the one"})})
    child.call(lambda server: server._process.unregister())
    other = Worker.start("b", log, name="the one")
    end(child)
    assert children(supervisor) == [RESTARTING]
    stop(other)
    while children(supervisor) == [RESTARTING]:
        gevent.sleep(0)
    assert children(supervisor)[0] is whereis("the one")


def test_children_that_ended_before_they_were_stopped_are_reported_as_they_ended(dynamic, log, caplog):
    """Their exits are in the mailbox behind the request to stop."""
    ready = Event()
    fate = Fate(lambda: ready.wait() and None)
    supervisor = dynamic()
    started = [start_child(supervisor, spec(number, log)) for number in range(3)]
    gevent.spawn(start_child, supervisor, spec("slow", log, fate))
    fate.wait()
    stopping = gevent.spawn(stop, supervisor, SHUTDOWN)
    gevent.sleep(0)
    for number, pid in enumerate(started):
        end(pid, f"crash {number}")
    caplog.clear()
    ready.set()
    stopping.get()
    assert [record.message.rpartition("\n")[2] for record in caplog.records] == [
        f"reason: 'crash {number}'" for number in range(3)
    ]


def test_two_children_cannot_be_one_process(dynamic, log):
    supervisor = dynamic()
    shared = start_child(supervisor, spec("a", log))
    with pytest.raises(StartError, match="is a child of this supervisor already"):
        start_child(supervisor, {"start": (lambda: shared, ())})
    assert children(supervisor) == [shared]
