"""Supervisor: order, strategies, restart types, administration, and trees of them."""

from __future__ import annotations

import collections
from time import perf_counter

import gevent
import pytest
from gevent.event import Event
from otp.kernel import as_process, ended, idle
from otp.trees import ENDINGS, Fate, Worker, end, pids, spec
from support import MS

from erps_gevent.errors import (
    AlreadyStarted,
    BadReturn,
    ConfigError,
    ErrorReply,
    NoProc,
    NotFound,
    StartError,
    StartIgnored,
)
from erps_gevent.otp import primitives as erps
from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.gen import call, stop
from erps_gevent.otp.messages import Ignore, Stop, StopRequest
from erps_gevent.otp.process import whereis
from erps_gevent.otp.reasons import Shutdown
from erps_gevent.otp.supervisor import Supervisor
from erps_gevent.otp.words import KILL, KILLED, NORMAL, RESTARTING, SHUTDOWN

NO_MORE_THAN = 20  # times that a bigger tree may take as long as its size says; 3 times what was measured, and more


def starts(log):
    return [entry[1] for entry in log if entry[0] == "start"]


def stops(log):
    return [entry[1] for entry in log if entry[0] == "stop"]


# Start and stop of the tree.


def test_start_stop_order(supervise, log):
    """Case 100, PR S01, S21; SS order_of_children: start left to right, stop right to left, one at a time."""
    slow = Event()

    class Slow(Worker):
        def terminate(self, reason):
            log.append(("asked", self.name))
            slow.wait()
            super().terminate(reason)

    supervisor = supervise(spec("a", log), {"id": "b", "start": (Slow.start_link, ("b", log))}, spec("c", log))
    assert starts(log) == ["a", "b", "c"]
    stopping = gevent.spawn(stop, supervisor, SHUTDOWN)
    log.wait_for(("asked", "b"))
    # "a" is not stopped before "b" has ended.
    assert stops(log) == ["c"]
    slow.set()
    stopping.get()
    assert stops(log) == ["c", "b", "a"]


class Asked(Supervisor, strategy="one_for_one"):
    def init(self, answer):
        return answer


def starting(answer):
    """What a trapping process gets from starting a tree whose init answers so, and what is in its mailbox then."""

    def starter(process):
        try:
            Asked.start_link(answer)
        except (StartError, StartIgnored) as error:
            return error, list(process.inbox.mailbox), dict(process.links)
        return None

    error, mailbox, links = as_process(starter, trap=True)
    assert (mailbox, links) == ([], {})
    return error


def test_sup_init_ignore_invalid_fail(log):
    """Case 101, SS sup_start_ignore_init, sup_start_error_return, sup_start_fail."""
    assert isinstance(starting(Ignore()), StartIgnored)
    assert starting(Stop("no")).reason == "no"
    bad = starting(17)
    assert isinstance(bad.reason, BadReturn)
    assert bad.__cause__ is bad.reason
    assert "Asked.init returned 17; it returns a list of children, Ignore() or Stop(reason)" in str(bad)


@pytest.mark.parametrize("answer", [None, "children", b"children", {"id": 1, "start": (print, ())}])
def test_an_init_that_returns_no_list_is_a_bad_return(answer):
    assert isinstance(starting(answer).reason, BadReturn)


def test_an_init_may_be_a_generator(log):
    class Tree(Supervisor, strategy="one_for_one"):
        def init(self, names):
            for name in names:
                yield spec(name, log)

    supervisor = Tree.start_link("ab")
    assert list(pids(supervisor)) == ["a", "b"]
    stop(supervisor)


def test_a_child_that_does_not_start_ends_the_start_of_the_tree(log):
    """Rule 12.1; SS sup_start_fail."""
    failing = spec("c", log, Fate(RuntimeError("init")))
    error = starting([spec("a", log), spec("b", log), failing, spec("d", log)])
    reason = error.reason.detail[2]
    assert error.reason == Shutdown(("failed_to_start_child", "c", reason))
    assert isinstance(reason, RuntimeError)
    assert error.__cause__ is reason
    assert "Asked did not start" in str(error)
    assert log == [("start", "a"), ("start", "b"), ("stop", "b", SHUTDOWN), ("stop", "a", SHUTDOWN)]


def test_a_tree_that_takes_too_long_to_start_is_killed_with_its_children(log):
    stuck = spec("b", log, Event().wait)
    with pytest.raises(StartError, match="took longer than") as info:
        Supervisor.start_link([spec("a", log), stuck], strategy="one_for_one", timeout=5 * MS)
    assert info.value.reason == "timeout"
    log.wait_for(("stop", "a", KILLED))


def test_a_child_whose_name_is_taken_ends_the_start_of_the_tree(log):
    taken = {"id": "a", "start": (Worker.start_link, ("a", log), {"name": "taken"})}
    first = Worker.start("x", log, name="taken")
    reason = starting([taken]).reason.detail[2]
    assert isinstance(reason, AlreadyStarted)
    assert reason.pid is first
    stop(first)


def test_the_reason_of_a_deep_failure_is_in_that_of_the_tree(log):
    inner = Supervisor.child_spec([spec("leaf", log, Fate(KeyError("deep")))], strategy="one_for_one")
    error = starting([{**inner, "id": "inner"}])
    cause = error.__cause__
    assert isinstance(cause, KeyError)
    leaf = Shutdown(("failed_to_start_child", "leaf", cause))
    assert error.reason == Shutdown(("failed_to_start_child", "inner", leaf))


WRONG = [
    ([7], "7 is no child"),
    ([{"id": "a"}], "child 'a': a child spec needs 'start'"),
    ([Worker, Worker], "child <class 'otp.trees.Worker'>: there are two with this id; give one another id"),
    (
        [{"id": "a", "start": (print, ()), "significant": True, "restart": "transient"}],
        "child 'a': significant=True means nothing here; .*'any_significant' or 'all_significant'",
    ),
]


@pytest.mark.parametrize(("children", "text"), WRONG)
def test_wrong_children_are_an_error_of_the_start(log, children, text):
    """Case 106, SS sup_start_map_faulty_specs, child_specs; ES "with invalid child spec": nothing is started."""
    error = starting([spec("first", log), *children])
    assert isinstance(error.reason, ConfigError)
    with pytest.raises(ConfigError, match=text):
        raise error.reason
    assert log == []


def test_a_missing_strategy_is_refused_in_the_caller():
    """Rule 12.10."""
    with pytest.raises(ConfigError, match=r"Supervisor needs a strategy: one of 'one_for_one', .*option of start_link"):
        Supervisor.start_link([])


def test_flags_of_a_start_win_over_those_of_the_class(log):
    class Tree(Supervisor, strategy="one_for_all", max_restarts=0):
        def init(self):
            return [spec("a", log), spec("b", log)]

    supervisor = Tree.start_link(strategy="one_for_one", max_restarts=1)
    before = pids(supervisor)
    end(before["a"])
    assert pids(supervisor)["b"] is before["b"]
    stop(supervisor)


def test_entries_of_every_kind_are_children(supervise, log):
    class Quiet(Worker, restart="temporary"):
        def init(self):
            super().init("quiet", log)

    supervisor = supervise(Quiet, (Worker, "w", log), spec("s", log))
    assert list(pids(supervisor)) == [Quiet, Worker, "s"]
    assert starts(log) == ["quiet", "w", "s"]


def test_child_ignore_kept(supervise, log):
    """Case 102, SS sup_start_ignore_child: no pid, and counted."""
    supervisor = supervise(spec("a", log, Fate(Ignore())), spec("b", log))
    assert pids(supervisor)["a"] is None
    assert Supervisor.count_children(supervisor) == {"specs": 2, "active": 1, "supervisors": 0, "workers": 2}
    assert Supervisor.start_child(supervisor, spec("c", log, Fate(Ignore()))) is None
    assert pids(supervisor)["c"] is None


def test_temporary_ignore_dropped(supervise, log):
    """Case 103, SS sup_start_ignore_temporary_child, ..._start_child."""
    supervisor = supervise(spec("a", log, Fate(Ignore()), restart="temporary"))
    assert pids(supervisor) == {}
    assert Supervisor.start_child(supervisor, spec("b", log, Fate(Ignore()), restart="temporary")) is None
    assert pids(supervisor) == {}


# Administration.


def test_life_cycle(supervise, log):
    """Case 109, ES "child life cycle"."""
    supervisor = supervise()
    first = Supervisor.start_child(supervisor, spec("a", log))
    assert Supervisor.which_children(supervisor) == [("a", first, "worker", [Worker])]
    assert Supervisor.count_children(supervisor) == {"specs": 1, "active": 1, "supervisors": 0, "workers": 1}
    with pytest.raises(ErrorReply, match="child 'a' is running; terminate_child first") as info:
        Supervisor.delete_child(supervisor, "a")
    assert info.value.kind == "running"
    assert Supervisor.terminate_child(supervisor, "a") is None
    assert Supervisor.which_children(supervisor) == [("a", None, "worker", [Worker])]
    assert Supervisor.count_children(supervisor) == {"specs": 1, "active": 0, "supervisors": 0, "workers": 1}
    again = Supervisor.restart_child(supervisor, "a")
    assert pids(supervisor) == {"a": again}
    assert again is not first
    Supervisor.terminate_child(supervisor, "a")
    assert Supervisor.delete_child(supervisor, "a") is None
    assert pids(supervisor) == {}
    assert log == [("start", "a"), ("stop", "a", SHUTDOWN)] * 2


def test_child_adm(supervise, log):
    """Case 110, SS child_adm."""
    supervisor = supervise()
    child = Supervisor.start_child(supervisor, spec("a", log))
    with pytest.raises(AlreadyStarted, match="there is a child 'a', ") as started:
        Supervisor.start_child(supervisor, spec("a", log))
    assert started.value.pid is child
    with pytest.raises(ErrorReply) as running:
        Supervisor.restart_child(supervisor, "a")
    assert running.value.kind == "running"
    Supervisor.terminate_child(supervisor, "a")
    Supervisor.terminate_child(supervisor, "a")
    with pytest.raises(ErrorReply, match="restart_child or delete_child it") as present:
        Supervisor.start_child(supervisor, spec("a", log))
    assert present.value.kind == "already_present"
    for ask in (Supervisor.terminate_child, Supervisor.restart_child, Supervisor.delete_child):
        with pytest.raises(NotFound, match="there is no child 'nobody'"):
            ask(supervisor, "nobody")
        with pytest.raises(NotFound):
            ask(supervisor, child)
        with pytest.raises(ConfigError, match=r"the id of a child can be a key of a dict, which \[\] cannot"):
            ask(supervisor, [])
    stop(supervisor)
    with pytest.raises(NoProc):
        Supervisor.terminate_child(supervisor, "a")


def test_a_child_that_does_not_start_is_not_kept(supervise, log):
    """Rule 12.8."""
    supervisor = supervise()
    with pytest.raises(StartError, match="child 'a' did not start: RuntimeError: init") as info:
        Supervisor.start_child(supervisor, spec("a", log, Fate(RuntimeError("init"))))
    assert isinstance(info.value.reason, RuntimeError)
    assert info.value.__cause__ is info.value.reason
    assert pids(supervisor) == {}


def test_a_child_whose_name_is_taken_is_told_with_the_holder(supervise, log):
    supervisor = supervise()
    named = {"id": "a", "start": (Worker.start_link, ("a", log), {"name": "the one"})}
    child = Supervisor.start_child(supervisor, named)
    with pytest.raises(AlreadyStarted) as info:
        Supervisor.start_child(supervisor, {**named, "id": "b"})
    assert info.value.pid is child
    assert list(pids(supervisor)) == ["a"]


def test_a_restart_child_that_fails_leaves_the_child_as_it_is(supervise, log):
    supervisor = supervise(spec("a", log, Fate(None, RuntimeError("init"))))
    Supervisor.terminate_child(supervisor, "a")
    with pytest.raises(StartError):
        Supervisor.restart_child(supervisor, "a")
    assert pids(supervisor) == {"a": None}


def test_a_temporary_child_that_is_terminated_is_forgotten(supervise, log):
    """Rule 12.8."""
    supervisor = supervise(spec("a", log, restart="temporary"))
    Supervisor.terminate_child(supervisor, "a")
    assert pids(supervisor) == {}


def test_extra_return(supervise):
    """Optional, SS extra_return."""
    supervisor = supervise()
    pid, info = Supervisor.start_child(
        supervisor, {"id": "a", "start": (lambda: (erps.spawn_link(idle, None), "info"), ())}
    )
    assert info == "info"
    assert pids(supervisor) == {"a": pid}


def test_a_wrong_child_is_refused_in_the_caller():
    with pytest.raises(ConfigError, match="child 'a': a child spec needs 'start'"):
        Supervisor.start_child("nobody there", {"id": "a"})


def test_a_significant_child_is_refused_where_it_means_nothing(supervise, log):
    """Optional significant_invalid, SS nonsignificant_*, sup_flags; PR S25."""
    with pytest.raises(ConfigError, match="child 'a': significant=True means nothing here"):
        Supervisor.start_child(supervise(), spec("a", log, significant=True, restart="transient"))


# Restart types.


@pytest.mark.parametrize("reason", ENDINGS)
def test_permanent_normal_shutdown_abnormal(supervise, log, reason):
    """Case 111, SS permanent_normal, _shutdown, _abnormal: always."""
    supervisor = supervise(spec("a", log))
    before = pids(supervisor)["a"]
    end(before, reason)
    after = pids(supervisor)["a"]
    assert after.is_alive()
    assert after is not before


@pytest.mark.parametrize("reason", [*ENDINGS, Shutdown("x")])
def test_transient_x3(supervise, log, reason):
    """Case 112, SS transient_normal, _shutdown, _abnormal: only if it ended abnormally; the spec is kept."""
    supervisor = supervise(spec("a", log, restart="transient"))
    before = pids(supervisor)["a"]
    end(before, reason)
    after = pids(supervisor)["a"]
    if reason in ("crash", KILL):
        assert after.is_alive()
        assert after is not before
    else:
        assert after is None


@pytest.mark.parametrize("reason", ENDINGS)
def test_temporary_x3(supervise, log, reason):
    """Case 113, SS temporary_normal, _shutdown, _abnormal: never, and the spec is gone."""
    supervisor = supervise(spec("a", log, restart="temporary"))
    end(pids(supervisor)["a"], reason)
    assert pids(supervisor) == {}


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("how", [*ENDINGS, "terminate", "with the group"])
def test_specs_kept_or_not(supervise, log, strategy, how):
    """Case 138, SS do_not_save_child_specs_for_temporary_children."""
    supervisor = supervise(spec("first", log), spec("a", log, restart="temporary"), strategy=strategy)
    before = pids(supervisor)
    if how == "terminate":
        Supervisor.terminate_child(supervisor, "a")
    elif how == "with the group":
        end(before["first"])
    else:
        end(before["a"], how)
    kept = how == "with the group" and strategy == "one_for_one"
    assert ("a" in pids(supervisor)) is kept
    assert before["a"].is_alive() is kept


# Strategies.


@pytest.fixture
def trio(supervise, log):
    """Start a tree of a, b and c."""

    def start(strategy, b=None, **flags):
        supervisor = supervise(spec("a", log), spec("b", log, b), spec("c", log), strategy=strategy, **flags)
        log.clear()
        return supervisor

    return start


def changed(before, after):
    return [id_ for id_ in before if before[id_] is not after[id_]]


def test_one_for_one(trio, log):
    """Case 116, SS one_for_one: siblings stay; the third crash ends the supervisor, if two are allowed."""
    supervisor = trio("one_for_one", max_restarts=2)
    for _ in range(2):
        before = pids(supervisor)
        end(before["b"])
        assert changed(before, pids(supervisor)) == ["b"]
    pids(supervisor)["b"].cast("crash")
    assert ended(supervisor) is SHUTDOWN
    assert stops(log) == ["b", "b", "b", "c", "a"]


def test_one_for_all(trio, log):
    """Case 118, SS one_for_all: all pids are new, in order."""
    supervisor = trio("one_for_all")
    before = pids(supervisor)
    end(before["b"])
    assert changed(before, pids(supervisor)) == ["a", "b", "c"]
    assert log == [
        ("stop", "b", "crash"),
        ("stop", "c", SHUTDOWN),
        ("stop", "a", SHUTDOWN),
        ("start", "a"),
        ("start", "b"),
        ("start", "c"),
    ]


def test_rest_for_one(trio, log):
    """Case 121, SS rest_for_one: who was started earlier stays, who was later is new."""
    supervisor = trio("rest_for_one")
    before = pids(supervisor)
    end(before["b"])
    assert changed(before, pids(supervisor)) == ["b", "c"]
    assert log == [("stop", "b", "crash"), ("stop", "c", SHUTDOWN), ("start", "b"), ("start", "c")]


def escalated(trio, log, strategy):
    """The stops of a tree whose b cannot be started again, after which all are dead."""
    fate = Fate(None)
    fate.always = RuntimeError("init")
    supervisor = trio(strategy, fate)
    before = pids(supervisor)
    before["b"].cast("crash")
    assert ended(supervisor) is SHUTDOWN
    assert not any(pid.is_alive() for pid in before.values())
    assert fate.calls == 1 + 3
    return stops(log)


def test_one_for_one_escalation(trio, log):
    """Case 117, SS one_for_one_escalation: an unrestartable child takes supervisor and siblings down."""
    assert escalated(trio, log, "one_for_one") == ["b", "c", "a"]


def test_one_for_all_escalation(trio, log):
    """Case 119, SS one_for_all_escalation; "a" is started and stopped with each of the three tries."""
    assert escalated(trio, log, "one_for_all") == ["b", "c", "a", "a", "a", "a"]


def test_rest_for_one_escalation(trio, log):
    """Case 122, SS rest_for_one_escalation."""
    assert escalated(trio, log, "rest_for_one") == ["b", "c", "a"]


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_non_restart_death_leaves_group(supervise, log, strategy):
    """Case 124, PR S08: the normal end of a transient child leaves its siblings alone."""
    children = spec("a", log, restart="transient"), spec("b", log), spec("c", log, restart="temporary")
    supervisor = supervise(*children, strategy=strategy)
    before = pids(supervisor)
    end(before["a"], NORMAL)
    assert pids(supervisor) == {**before, "a": None}
    end(before["c"], "crash")
    assert pids(supervisor) == {"a": None, "b": before["b"]}


def test_a_group_restart_starts_also_those_that_had_ended(supervise, log):
    """supervisor:restart_multiple_children."""
    supervisor = supervise(spec("a", log), spec("b", log), spec("c", log, restart="transient"), strategy="one_for_all")
    Supervisor.terminate_child(supervisor, "a")
    end(pids(supervisor)["c"], NORMAL)
    assert pids(supervisor)["c"] is None
    end(pids(supervisor)["b"])
    assert all(pid.is_alive() for pid in pids(supervisor).values())


def test_only_the_failing_child_and_the_rest_are_tried_again(supervise, log):
    """Rule 12.5, rest_for_one."""
    fate = Fate(None, RuntimeError("init"))
    children = spec("a", log), spec("b", log), spec("c", log, fate), spec("d", log)
    supervisor = supervise(*children, strategy="rest_for_one")
    before = pids(supervisor)
    log.clear()
    end(before["b"])
    while RESTARTING in pids(supervisor).values():
        assert fate.calls <= 3
    assert changed(before, pids(supervisor)) == ["b", "c", "d"]
    assert starts(log) == ["b", "c", "d"]


def test_all_are_tried_again_when_one_fails(supervise, log):
    """Rule 12.5, one_for_all."""
    fate = Fate(None, RuntimeError("init"))
    supervisor = supervise(spec("a", log), spec("b", log, fate), spec("c", log), strategy="one_for_all")
    log.clear()
    end(pids(supervisor)["c"])
    while RESTARTING in pids(supervisor).values():
        assert fate.calls <= 3
    assert starts(log) == ["a", "a", "b", "c"]
    assert stops(log) == ["c", "b", "a", "a"]


# Restarting.


@pytest.fixture(params=["one_for_one", "one_for_all", "rest_for_one"])
def hanging(request, supervise, log):
    """A supervisor that tries to start its child "a" again and again, in vain until `fate.always` is None."""
    fate = Fate(None)
    fate.always = RuntimeError("init")
    children = spec("a", log, fate), spec("b", log)
    supervisor = supervise(*children, strategy=request.param, max_restarts=1_000_000)
    end(pids(supervisor)["a"])
    assert pids(supervisor)["a"] is RESTARTING
    return supervisor, fate


def test_restarting_visible(hanging, log):
    """Case 128, SS hanging_restart_loop, ..._rest_for_one, count_restarting_children."""
    supervisor, fate = hanging
    others = int(pids(supervisor)["b"] is not None)
    assert Supervisor.count_children(supervisor) == {"specs": 2, "active": others, "supervisors": 0, "workers": 2}
    for ask in (Supervisor.restart_child, Supervisor.delete_child):
        with pytest.raises(ErrorReply, match="child 'a' is restarting; terminate_child first") as info:
            ask(supervisor, "a")
        assert info.value.kind == "restarting"
    with pytest.raises(ErrorReply) as present:
        Supervisor.start_child(supervisor, spec("a", log))
    assert present.value.kind == "already_present"
    Supervisor.terminate_child(supervisor, "a")
    assert pids(supervisor)["a"] is None
    with pytest.raises(StartError):
        Supervisor.restart_child(supervisor, "a")
    fate.always = None
    assert Supervisor.restart_child(supervisor, "a") is pids(supervisor)["a"]


def test_a_supervisor_can_be_stopped_while_it_restarts(hanging):
    """Case 128, SS hanging_restart_loop."""
    supervisor, _ = hanging
    stop(supervisor, SHUTDOWN)
    assert not supervisor.is_alive()


# Trees.


def test_tree(supervise, log):
    """Case 134, SS tree: nested supervisors; inner restarts, escalation, dynamic children are not revived."""
    inner = [spec("x", log), spec("y", log)]
    supervisor = supervise(
        {**Supervisor.child_spec(inner, strategy="one_for_all", max_restarts=1, name="inner"), "id": "static"},
        DynamicSupervisor.child_spec(name="rooms"),
    )
    room = DynamicSupervisor.start_child("rooms", (Worker, "room", log))
    top = pids(supervisor)
    assert Supervisor.count_children(supervisor) == {"specs": 2, "active": 2, "supervisors": 2, "workers": 0}

    before = pids("inner")
    end(before["x"])
    assert changed(before, pids("inner")) == ["x", "y"]
    assert pids(supervisor) == top

    # The inner one gives up, and is one restart of the outer one.
    pids("inner")["y"].cast("crash")
    assert ended(top["static"]) is SHUTDOWN
    assert changed(top, pids(supervisor)) == ["static"]
    assert set(pids("inner")) == {"x", "y"}

    end(top["rooms"], KILL)
    assert ended(room) is not None
    assert changed(top, pids(supervisor)) == ["static", "rooms"]
    assert DynamicSupervisor.which_children("rooms") == []


def test_nested_giveup_counts_once(supervise, log):
    """Case 135, PR S27."""
    inner = {**Supervisor.child_spec([spec("x", log)], strategy="one_for_one", max_restarts=2, name="in"), "id": "in"}
    supervisor = supervise(inner, max_restarts=1)
    for _ in range(2):
        end(pids("in")["x"])
    pid = whereis("in")
    pids("in")["x"].cast("crash")
    ended(pid)
    assert pids(supervisor)["in"] is whereis("in")
    for _ in range(2):
        end(pids("in")["x"])
    pids("in")["x"].cast("crash")
    assert ended(supervisor) is SHUTDOWN


def test_a_tree_ends_with_its_parent(log):
    """Rules 7 and 12.9: the exit of a parent stops the children, in order."""

    def parent(process):
        return Supervisor.start_link([spec("a", log), spec("b", log)], strategy="one_for_one")

    supervisor = as_process(parent)
    ended(supervisor)
    assert [entry[:2] for entry in log[2:]] == [("stop", "b"), ("stop", "a")]


def test_a_supervisor_can_be_stopped_with_any_reason(supervise, log):
    supervisor = supervise(spec("a", log))
    stop(supervisor, "deployed")
    assert log[-1] == ("stop", "a", SHUTDOWN)


def test_count_children(supervise, log):
    """Case 136, SS count_children, count_children_supervisor: 1000 and 2000 children, fast."""

    def idler():
        return erps.spawn_link(idle, None)

    def spent(supervisor):
        begin = perf_counter()
        Supervisor.count_children(supervisor)
        Supervisor.which_children(supervisor)
        return perf_counter() - begin

    supervisor = supervise(*[{"id": n, "start": (idler, ())} for n in range(1000)])
    for n in range(1000, 2000):
        Supervisor.start_child(supervisor, {"id": n, "start": (idler, ()), "type": "supervisor"})
    expected = {"specs": 2000, "active": 2000, "supervisors": 1000, "workers": 1000}
    assert Supervisor.count_children(supervisor) == expected
    assert len(Supervisor.which_children(supervisor)) == 2000
    assert min(spent(supervisor) for _ in range(3)) < 0.5


def test_scale_start_stop(log):
    """Optional, SS scale_start_stop_many_children: near linear."""

    def idler():
        return erps.spawn_link(idle, None)

    def spent(count):
        children = [{"id": n, "start": (idler, ())} for n in range(count)]
        begin = perf_counter()
        stop(Supervisor.start_link(children, strategy="rest_for_one"))
        return perf_counter() - begin

    assert spent(2000) < NO_MORE_THAN * 10 * spent(200)


# Auto-shutdown.


def significant(name, log, **keys):
    return spec(name, log, **{"significant": True, "restart": "transient", **keys})


@pytest.mark.parametrize("restart", ["transient", "temporary"])
@pytest.mark.parametrize(("mode", "before"), [("any_significant", []), ("all_significant", ["b"])])
def test_significant_any_all(supervise, log, restart, mode, before):
    """Optional, SS significant_temporary, significant_transient: any, the first end stops all; all, only the last."""
    children = significant("a", log, restart=restart), significant("b", log, restart=restart), spec("c", log)
    supervisor = supervise(*children, auto_shutdown=mode)
    for name in before:
        end(pids(supervisor)[name], NORMAL)
        assert pids(supervisor)["a"].is_alive()
    pids(supervisor)["a"].cast(SHUTDOWN)
    assert ended(supervisor) is SHUTDOWN
    left = [name for name in ("c", "b") if name not in before]
    assert stops(log) == [*before, "a", *left]


def test_the_end_of_others_is_no_auto_shutdown(supervise, log):
    children = significant("a", log), spec("b", log, restart="temporary")
    supervisor = supervise(*children, auto_shutdown="any_significant")
    end(pids(supervisor)["b"], NORMAL)
    assert list(pids(supervisor)) == ["a"]


def test_significant_terminated_or_killed(supervise, log):
    """Optional significant_any_all: terminate_child never triggers it, and a killed transient child is restarted."""
    supervisor = supervise(significant("a", log), significant("b", log), auto_shutdown="any_significant")
    Supervisor.terminate_child(supervisor, "a")
    assert pids(supervisor)["a"] is None
    before = pids(supervisor)["b"]
    end(before, KILL)
    assert pids(supervisor)["b"].is_alive()


@pytest.mark.parametrize("mode", ["any_significant", "all_significant"])
@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_significant_bystander(supervise, log, strategy, mode):
    """Optional, SS significant_bystander: to be stopped with a sibling's death does not trigger it."""
    children = spec("a", log), significant("b", log, restart="temporary"), significant("c", log)
    supervisor = supervise(*children, strategy=strategy, auto_shutdown=mode)
    end(pids(supervisor)["a"])
    left = pids(supervisor)
    assert set(left) == ({"a", "b", "c"} if strategy == "one_for_one" else {"a", "c"})
    assert all(pid.is_alive() for pid in left.values())


def test_a_killed_child_was_killed(supervise, log):
    """Case 130, seen from a monitor: the reason is killed."""

    class Stubborn(Worker):
        def terminate(self, reason):
            idle(None)

    supervisor = supervise({"id": "a", "start": (Stubborn.start_link, ("a", log)), "shutdown": 0})
    child = pids(supervisor)["a"]
    seen = []
    child.process.monitor(seen.append)
    Supervisor.terminate_child(supervisor, "a")
    assert seen == [KILLED]


def test_a_supervisor_answers_no_other_calls(supervise):
    with pytest.raises(ErrorReply):
        call(supervise(), "hello")


def test_stopping_children_that_are_dead_already_goes_through_the_mailbox_once(supervise, log):
    class Counted(collections.deque):
        walks = 0

        def __iter__(self):
            self.walks += 1
            return super().__iter__()

    supervisor = supervise(*(spec(n, log) for n in range(5)))
    inbox = supervisor.process.inbox
    inbox.mailbox = Counted(inbox.mailbox)
    for pid in pids(supervisor).values():
        pid.process.die("crash")
    supervisor.process.inbox.put(StopRequest(SHUTDOWN))
    assert ended(supervisor) is SHUTDOWN
    assert inbox.mailbox.walks == 1


def test_two_children_cannot_be_one_process(supervise, log):
    supervisor = supervise(spec("a", log))
    shared = pids(supervisor)["a"]
    with pytest.raises(StartError, match="is a child of this supervisor already"):
        Supervisor.start_child(supervisor, {"id": "b", "start": (lambda: shared, ())})
    assert pids(supervisor) == {"a": shared}
    stop(supervisor)
    assert stops(log) == ["a"]
