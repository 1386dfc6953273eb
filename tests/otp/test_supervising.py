"""What both supervisors have in common: flags, requests, restarts and their intensity, pauses, reports."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Native, as_process, ended, idle, settle, spawn
from otp.trees import Fate, Worker, end, pids, spec
from support import MS

from erps_gevent.errors import CallingSelf, CallTimeout, ConfigError, ErrorReply, Exit, NoProc, StartError
from erps_gevent.otp import primitives as erps
from erps_gevent.otp import supervising
from erps_gevent.otp.child import child_of
from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.gen import call, cast, stop
from erps_gevent.otp.mailbox import Timer, send
from erps_gevent.otp.messages import Ignore
from erps_gevent.otp.plain import record
from erps_gevent.otp.supervising import Again, Asked, Supervising, asked_by
from erps_gevent.otp.supervisor import Supervisor
from erps_gevent.otp.words import KILL, KILLED, NORMAL, RESTARTING, SHUTDOWN


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock of supervisors, which moves when it is told to."""
    clock = Clock()
    monkeypatch.setattr(supervising, "monotonic", clock)
    return clock


# Flags.

FLAGS = [
    ({"strategy": "all"}, "strategy is one of 'one_for_one', 'one_for_all', 'rest_for_one', not 'all'"),
    ({"max_restarts": -1}, "max_restarts is a whole number of at least 0, not -1"),
    ({"max_seconds": 0}, "max_seconds is seconds, more than 0, not 0"),
    ({"max_seconds": "5"}, "max_seconds is a number of at least 0, not '5'"),
    ({"auto_shutdown": "always"}, "auto_shutdown is one of 'never', 'any_significant', 'all_significant', not"),
]


@pytest.mark.parametrize(("flag", "text"), FLAGS)
def test_flags_errors(flag, text):
    """Case 107, SS sup_flags."""
    with pytest.raises(ConfigError, match=f"Supervisor.start: {text}"):
        Supervisor.start_link([], **{"strategy": "one_for_one", **flag})
    with pytest.raises(ConfigError, match=f"class Bad: {text}"):
        type("Bad", (Supervisor,), {}, **flag)


def test_a_flag_that_there_is_not_is_named_with_the_nearest():
    """Case 107, SS sup_flags; OTP ignores unknown flags, a class statement or a start does not."""
    with pytest.raises(TypeError, match=r"did you mean 'max_restarts'\?"):
        Supervisor.start_link([], strategy="one_for_one", max_restart=1)
    with pytest.raises(TypeError, match=r"class Bad has no option 'max_restart'; did you mean 'max_restarts'\?"):
        type("Bad", (Supervisor,), {}, max_restart=1)


@pytest.mark.parametrize("name", ["handle_call", "handle_cast", "handle_info", "handle_continue", "terminate"])
@pytest.mark.parametrize("base", [Supervisor, DynamicSupervisor])
def test_a_supervisor_with_callbacks_is_refused_at_the_class_statement(base, name):
    with pytest.raises(TypeError, match=f"Wrong defines {name}; a supervisor only supervises: put it into a child"):
        type("Wrong", (base,), {name: print})


def test_a_mixin_with_callbacks_is_refused_too():
    mixin = type("Mixin", (), {"handle_info": print})
    with pytest.raises(TypeError, match="Wrong defines handle_info"):
        type("Wrong", (mixin, Supervisor), {})


def test_what_the_two_do_differently_is_not_here():
    bare = Supervising.__new__(Supervising)
    for method, args in (("_all", ()), ("_of_pid", (1,)), ("_launch", (1,)), ("_clear", (1,)), ("_finished", (1,))):
        with pytest.raises(NotImplementedError):
            getattr(bare, method)(*args)


# Requests.


def test_a_call_that_is_no_request_is_answered_with_an_error(supervise):
    supervisor = supervise()
    with pytest.raises(ErrorReply, match=r"a supervisor takes no calls; use Supervisor\.start_child") as info:
        call(supervisor, "which_children")
    assert info.value.kind == "unknown_request"
    assert supervisor.is_alive()


def test_a_request_to_the_other_kind_of_supervisor_says_which_it_is(supervise, dynamic, log):
    with pytest.raises(TypeError, match=r"is no DynamicSupervisor; use Supervisor\.start_child"):
        DynamicSupervisor.start_child(supervise(), (Worker, 1, log))
    with pytest.raises(TypeError, match=r"is no Supervisor; use DynamicSupervisor\.delete_child"):
        Supervisor.delete_child(dynamic(), 1)


def test_children_of_either_kind_can_be_listed_and_counted(dynamic, log):
    supervisor = dynamic()
    pid = DynamicSupervisor.start_child(supervisor, (Worker, 1, log))
    assert Supervisor.which_children(supervisor) == [(None, pid, "worker", [Worker])]
    assert Supervisor.count_children(supervisor) == {"specs": 1, "active": 1, "supervisors": 0, "workers": 1}


def test_a_request_can_be_made_by_name_and_from_any_thread(supervise, log):
    supervise(spec("a", log), name="tree")
    listed = Native(Supervisor.which_children, "tree").result()
    assert listed == Supervisor.which_children("tree")
    started = Native(Supervisor.start_child, "tree", spec("b", log)).result()
    assert pids("tree")["b"] is started


def test_a_refusal_is_raised_in_any_thread(supervise, log):
    supervisor = supervise(spec("a", log))
    with pytest.raises(ErrorReply, match="running"):
        Native(Supervisor.delete_child, supervisor, "a").result()


def test_a_request_to_a_dead_supervisor_is_noproc(supervise):
    supervisor = supervise()
    stop(supervisor)
    with pytest.raises(NoProc):
        Supervisor.which_children(supervisor)


def test_a_supervisor_cannot_ask_itself(supervise):
    def start():
        return Supervisor.which_children("tree")

    with pytest.raises(StartError) as info:
        supervise({"id": "a", "start": (start, ())}, name="tree")
    assert isinstance(info.value.__cause__, CallingSelf)


def test_a_refusal_holds_no_frames_of_the_supervisor(supervise, log):
    supervisor = supervise(spec("a", log))
    with pytest.raises(ErrorReply) as info:
        Supervisor.delete_child(supervisor, "a")
    frames = []
    step = info.value.__traceback__
    while step is not None:
        frames.append(step.tb_frame.f_code.co_name)
        step = step.tb_next
    assert frames[1:] == ["delete_child", "ask"]


def test_requests_and_messages_to_itself_can_be_read_in_a_log(log):
    assert repr(Asked(Supervisor, "start_child", ())) == "<Supervisor.start_child>"
    assert repr(Again(child_of(spec("a", log)), counted=True)) == "start 'a' (None, permanent, worker) again"


# Strangers.


def test_stray_message_and_signal(supervise, log, caplog):
    """Case 139, PR S17: a supervisor survives both."""
    supervisor = supervise(spec("a", log))
    before = pids(supervisor)
    send(supervisor, "stray")
    cast(supervisor, "stray")
    erps.exit_(supervisor, "stray")

    def stranger(process):
        process.link(supervisor.process)
        raise Exit("stranger")

    ended(spawn(stranger))
    assert pids(supervisor) == before
    assert [record.message for record in caplog.records] == [
        f"{supervisor!r} is a supervisor and takes no messages; dropped 'stray'",
        f"{supervisor!r} is a supervisor and takes no casts; dropped 'stray'",
    ]


def test_a_child_that_sends_its_supervisor_an_exit_signal_has_not_ended(supervise, log):
    supervisor = supervise(spec("a", log))
    child = pids(supervisor)["a"]
    child.call(lambda _: erps.exit_(supervisor, "you"))
    assert pids(supervisor) == {"a": child}
    assert log == [("start", "a")]


@pytest.mark.parametrize(("said", "reason", "starts"), [("you", NORMAL, 1), (NORMAL, "crash", 2)])
def test_a_child_that_sends_its_supervisor_an_exit_signal_and_ends_at_once_has_ended_as_it_did(
    supervise, said, reason, starts
):
    def main():
        started.append(erps.current())
        if len(started) == 1:
            go.wait()
            erps.exit_(supervisor, said)
            raise Exit(reason)
        idle(None)

    started, go = [], Event()
    supervisor = supervise({"id": "a", "start": (erps.spawn_link, (main,)), "restart": "transient"})
    pid = pids(supervisor)["a"]
    go.set()
    ended(pid)
    assert (pids(supervisor)["a"] is None) is (starts == 1)
    settle()
    assert len(started) == starts


def test_killed_supervisor(supervise, log):
    """Case 140, PR S16; SS simple_global_supervisor: its children die with it, and its parent starts the tree again."""
    inner = Supervisor.child_spec([spec("a", log), spec("b", log, trap=False)], strategy="one_for_one", name="inner")
    outer = supervise(inner)
    children = pids("inner")
    end(pids(outer)["inner"], KILL)
    assert [ended(pid) for pid in children.values()] != []
    assert not any(pid.is_alive() for pid in children.values())
    assert pids(outer)["inner"].is_alive()
    assert set(pids("inner")) == {"a", "b"}
    assert not set(pids("inner").values()) & set(children.values())
    assert ("stop", "a", KILLED) in log


# Intensity.


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_intensity_window(supervise, clock, log, allowed):
    """Case 125, PR S06, S07: one death more than is allowed within the window ends the supervisor; 0 is the first."""
    supervisor = supervise(spec("a", log), spec("b", log), max_restarts=allowed)
    for _ in range(allowed):
        end(pids(supervisor)["a"])
        clock.now += 5.0 / 4
        assert supervisor.is_alive()
    child = pids(supervisor)["a"]
    child.cast("crash")
    assert ended(supervisor) is SHUTDOWN
    assert log[-1] == ("stop", "b", SHUTDOWN)
    assert log.count(("start", "a")) == allowed + 1


def test_multiple_restarts_below_intensity(supervise, clock, log):
    """Case 115, SS multiple_restarts: slow crashes never trip it."""
    supervisor = supervise(spec("a", log), max_restarts=1, max_seconds=2.0)
    for _ in range(10):
        end(pids(supervisor)["a"])
        clock.now += 2.1
    assert pids(supervisor)["a"].is_alive()


def test_intensity_uses_monotonic_time(supervise, clock, log, monkeypatch):
    """Case 126: jumps of the wall clock do not matter."""
    supervisor = supervise(spec("a", log), max_restarts=1)
    monkeypatch.setattr("time.time", lambda: clock.now * 1e6)
    end(pids(supervisor)["a"])
    clock.now += 1.0
    pids(supervisor)["a"].cast("crash")
    assert ended(supervisor) is SHUTDOWN


def test_restart_retry_counts(supervise, clock, log):
    """Case 127, PR S10, S11: a failing init is tried again, and each try counts."""
    fate = Fate(None)
    fate.always = RuntimeError("init")
    supervisor = supervise(spec("a", log, fate), spec("b", log), max_restarts=3)
    pids(supervisor)["a"].cast("crash")
    assert ended(supervisor) is SHUTDOWN
    assert fate.calls == 1 + 3
    assert log[-1] == ("stop", "b", SHUTDOWN)


def test_a_child_that_starts_at_last_is_there_again(supervise, log):
    fate = Fate(None, RuntimeError("1"), RuntimeError("2"))
    supervisor = supervise(spec("a", log, fate))
    first = pids(supervisor)["a"]
    end(first)
    log.wait_for(("start", "a"))
    while pids(supervisor)["a"] is RESTARTING:
        assert fate.calls <= 4
    assert pids(supervisor)["a"].is_alive()
    assert fate.calls == 4


def test_a_message_that_is_out_of_date_starts_nothing(supervise, log):
    fate = Fate(None)
    fate.always = RuntimeError("init")
    supervisor = supervise(spec("a", log, fate), max_restarts=100_000)
    end(pids(supervisor)["a"])
    assert pids(supervisor) == {"a": RESTARTING}
    # The supervisor has a message to itself in its mailbox now, which comes after this:
    Supervisor.terminate_child(supervisor, "a")
    calls = fate.calls
    assert pids(supervisor) == {"a": None}
    assert pids(supervisor) == {"a": None}
    assert fate.calls == calls


# Pauses.


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that supervisors make, as (seconds, let it pass)."""
    made = []

    def send_after(pid, message, seconds):
        timer = Timer(pid.process.hub, pid, message, 3600)
        made.append((seconds, lambda: timer._fire(message), timer))
        return timer

    monkeypatch.setattr(supervising, "send_after", send_after)
    yield made
    for _, _, timer in made:
        timer.stop()


def test_a_backoff_pauses_before_each_restart_and_is_not_in_the_way_meanwhile(supervise, clock, pauses, log):
    supervisor = supervise(spec("a", log, backoff=(0.1, 0.3)), spec("b", log), max_restarts=100)
    for _ in range(4):
        before = pids(supervisor)
        end(before["a"])
        assert pids(supervisor) == {"a": RESTARTING, "b": before["b"]}
        assert Supervisor.count_children(supervisor)["active"] == 1
        pauses[-1][1]()
        assert pids(supervisor)["a"].is_alive()
    assert [seconds for seconds, *_ in pauses] == pytest.approx([0.1, 0.2, 0.3, 0.3])
    clock.now += 0.4
    end(pids(supervisor)["a"])
    assert pids(supervisor)["a"] is RESTARTING
    assert pauses[-1][0] == 0.1


def test_a_backoff_is_real_time(supervise, log):
    supervisor = supervise(spec("a", log, backoff=(1 * MS, 1 * MS)))
    first = pids(supervisor)["a"]
    end(first)
    with_gone = [("start", "a"), ("stop", "a", "crash")]
    assert log == with_gone
    log.remove(("start", "a"))
    log.wait_for(("start", "a"))
    assert pids(supervisor)["a"].is_alive()


def test_each_try_after_a_pause_counts(supervise, clock, pauses, log):
    fate = Fate(None)
    fate.always = RuntimeError("init")
    supervisor = supervise(spec("a", log, fate, backoff=(0.1, 5.0)), max_restarts=3)
    end(pids(supervisor)["a"])
    for count in range(1, 4):
        assert pids(supervisor) == {"a": RESTARTING}
        assert len(pauses) == count
        pauses[-1][1]()
        if count < 3:
            # What failed is a message to itself, then a pause.
            while len(pauses) == count:
                pids(supervisor)
    assert ended(supervisor) is SHUTDOWN
    assert fate.calls == 1 + 3


@pytest.mark.parametrize("how", ["terminate", "stop", "kill", "start anew"])
def test_a_pause_is_cancelled_with_its_child(supervise, pauses, log, how):
    supervisor = supervise(spec("a", log, backoff=(0.1, 5.0)))
    end(pids(supervisor)["a"])
    assert pids(supervisor) == {"a": RESTARTING}
    if how == "terminate":
        Supervisor.terminate_child(supervisor, "a")
        Supervisor.delete_child(supervisor, "a")
    elif how == "start anew":
        Supervisor.terminate_child(supervisor, "a")
        Supervisor.restart_child(supervisor, "a")
    elif how == "stop":
        stop(supervisor)
    else:
        end(supervisor, KILL)
    ((_, _, timer),) = pauses
    assert timer.remaining() is False


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_what_depends_on_a_pausing_child_does_not_run(supervise, pauses, log, strategy):
    supervisor = supervise(spec("a", log, backoff=(0.1, 5.0)), spec("b", log), strategy=strategy)
    end(pids(supervisor)["a"])
    assert pids(supervisor) == {"a": RESTARTING, "b": None}
    pauses[0][1]()
    assert all(pid.is_alive() for pid in pids(supervisor).values())
    assert log[-3:] == [("stop", "b", SHUTDOWN), ("start", "a"), ("start", "b")]


def test_what_was_stopped_with_a_pausing_child_that_is_terminated_waits_for_restart_child(supervise, pauses, log):
    supervisor = supervise(spec("a", log, backoff=(0.1, 5.0)), spec("b", log), strategy="one_for_all")
    end(pids(supervisor)["a"])
    Supervisor.terminate_child(supervisor, "a")
    assert pids(supervisor) == {"a": None, "b": None}
    assert Supervisor.restart_child(supervisor, "b").is_alive()


# Callers.


class Family(Worker, forward_callers=True):
    """Knows its callers."""


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_child_has_the_callers_of_who_asked_for_it_also_after_a_restart(supervise, dynamic, log, kind):
    supervisor = supervise() if kind == "static" else dynamic()
    face = Supervisor if kind == "static" else DynamicSupervisor

    def asker(process):
        process.callers = ("grandparent",)
        child = face.start_child(supervisor, (Family, "a", log))
        return child, (supervisor, process.pid, "grandparent")

    child, callers = as_process(asker)
    assert child.process.callers == callers
    end(child)
    ((_, again, _, _),) = face.which_children(supervisor)
    assert again is not child
    assert again.process.callers == callers
    assert supervisor.process.callers == ()


def test_a_child_of_the_tree_itself_has_the_callers_of_its_supervisor(supervise, log):
    def asker(process):
        supervisor = supervise({"id": 1, "start": (Family.start_link, (1, log))}, forward_callers=True)
        return supervisor, pids(supervisor)[1].process.callers, process.pid

    supervisor, callers, asker_pid = as_process(asker, trap=True)
    assert callers == (supervisor, asker_pid)


def test_a_greenlet_that_is_no_process_asks_under_its_record():
    assert asked_by() == (record().pid,)


def test_a_thread_without_a_hub_is_nobody():
    assert Native(asked_by).result() == ()


# Reports.


def test_a_crash_is_reported_once_with_the_child_and_the_reason(supervise, log, caplog):
    supervisor = supervise(spec("a", log))
    child = pids(supervisor)["a"]
    end(child)
    pids(supervisor)
    (report,) = [one for one in caplog.records if "child_terminated" in one.message]
    assert report.levelno == logging.ERROR
    assert (
        report.message == f"{supervisor!r} child_terminated: child 'a' ({child!r}, permanent, worker)\nreason: 'crash'"
    )


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN])
def test_a_quiet_end_is_no_error(supervise, log, caplog, reason):
    caplog.set_level(logging.INFO, "erps_gevent")
    supervisor = supervise(spec("a", log))
    end(pids(supervisor)["a"], reason)
    pids(supervisor)
    assert [(one.levelno, one.message.partition(":")[0]) for one in caplog.records] == [
        (logging.INFO, f"{supervisor!r} child_terminated")
    ]


def test_a_failed_restart_is_reported_with_its_traceback(supervise, log, caplog):
    fate = Fate(None, ZeroDivisionError("init"))
    supervisor = supervise(spec("a", log, fate))
    end(pids(supervisor)["a"])
    while pids(supervisor)["a"] is RESTARTING:
        assert fate.calls <= 3
    (report,) = [one for one in caplog.records if "start_error" in one.message]
    assert "child 'a'" in report.message
    assert "reason: ZeroDivisionError('init')" in report.message
    assert "trees.py" in report.message
    assert report.message.endswith("ZeroDivisionError: init")


def test_a_child_that_had_to_be_killed_is_reported(supervise, log, caplog):
    class Stubborn(Worker):
        def terminate(self, reason):
            idle(None)

    supervisor = supervise({"id": "a", "start": (Stubborn.start_link, ("a", log)), "shutdown": 1 * MS})
    stop(supervisor)
    (report,) = caplog.records
    assert report.message.startswith(f"{supervisor!r} shutdown_error: child 'a'")
    assert report.message.endswith("reason: killed")


def test_giving_up_is_reported(supervise, log, caplog):
    supervisor = supervise(spec("a", log), max_restarts=0)
    pids(supervisor)["a"].cast(NORMAL)
    ended(supervisor)
    (report,) = caplog.records
    assert report.levelno == logging.ERROR
    assert report.message.startswith(f"{supervisor!r} shutdown: child 'a'")
    assert "reached_max_restart_intensity: 0 in 5.0 s" in report.message


def test_a_start_that_the_caller_is_told_of_is_not_reported(supervise, log, caplog):
    supervisor = supervise()
    with pytest.raises(StartError):
        Supervisor.start_child(supervisor, spec("a", log, Fate(RuntimeError("init"))))
    assert caplog.records == []


def test_a_failed_start_leaves_nothing_behind(supervise, log):
    class Large:
        """May be large."""

        def __call__(self):
            raise RuntimeError("init")

    large = Large()
    gone = weakref.ref(large)
    supervisor = supervise()
    with pytest.raises(StartError):
        Supervisor.start_child(supervisor, spec("a", log, large))
    del large
    # The hub holds what it has last handed over.
    assert pids(supervisor) == {}
    gc.collect()
    assert gone() is None


def test_slow_child_start_blocks_sup(supervise, log):
    """Optional, PR S30: which_children waits for a slow init."""
    slow = Event()
    fate = Fate(lambda: slow.wait() and None)
    supervisor = supervise()
    asker = spawn(lambda _: Supervisor.start_child(supervisor, spec("a", log, fate)))
    fate.wait()
    with pytest.raises(CallTimeout):
        Supervisor.which_children(supervisor, timeout=5 * MS)
    slow.set()
    assert ended(asker) is NORMAL
    assert set(pids(supervisor)) == {"a"}


def test_a_child_that_is_ignored_at_a_restart_is_kept_without_a_process(supervise, log):
    fate = Fate(None, Ignore())
    supervisor = supervise(spec("a", log, fate))
    end(pids(supervisor)["a"])
    assert pids(supervisor) == {"a": None}
    assert Supervisor.restart_child(supervisor, "a", timeout=PATIENCE).is_alive()
