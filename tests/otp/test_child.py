"""One child of a supervisor: starting and stopping its process."""

from __future__ import annotations

import collections
import gc
import weakref

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Native, as_process, ended, idle, spawn
from otp.trees import Worker, spec
from support import MS

from erps_gevent.errors import AlreadyStarted, BadReturn, ConfigError, Exit, StartError, StartIgnored
from erps_gevent.otp import primitives as erps
from erps_gevent.otp.child import Ends, child_of, described, halt, is_expected, launch
from erps_gevent.otp.mailbox import read_timer, receive, send_after
from erps_gevent.otp.messages import Ignore
from erps_gevent.otp.process import ExitSignal
from erps_gevent.otp.reasons import Shutdown
from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL, RESTARTING, SHUTDOWN


def of(function, *args, **keys):
    return child_of({"id": "a", "start": (function, args), **keys})


def launched(function, *args):
    """What launching a child with this start function gives, in a process of its own."""

    def supervisor(process):
        child = of(function, *args)
        given = launch(child, process)
        return child, given

    return as_process(supervisor, trap=True)


def test_a_child_that_starts_has_a_pid():
    child, given = launched(erps.spawn_link, idle, None)
    assert child.pid is child.last is given
    assert described(child) == ("a", given, "worker", [])


def test_extra_return():
    """Optional, SS extra_return: a start function may return (pid, info)."""
    child, given = launched(lambda: (erps.spawn_link(idle, None), "info"))
    assert given == (child.pid, "info")


@pytest.mark.parametrize("how", ["returned", "raised"])
def test_a_child_that_is_ignored_has_no_pid(how):
    def start():
        if how == "raised":
            raise StartIgnored("no")
        return Ignore()

    child, given = launched(start)
    assert (child.pid, given) == (None, None)


def refused(function, *args):
    with pytest.raises(StartError) as info:
        launched(function, *args)
    return info.value


def raising(error):
    raise error


def test_a_start_function_that_raises_is_a_failed_start():
    error = refused(raising, KeyError("k"))
    assert isinstance(error.reason, KeyError)
    assert error.__cause__ is error.reason
    assert str(error) == "child 'a' did not start: KeyError: 'k'"


@pytest.mark.parametrize("error", [StartError("no", reason="full"), Exit("full")])
def test_the_reason_of_a_failed_start_is_the_childs(error):
    assert refused(raising, error).reason == "full"


def test_even_a_timeout_that_leaves_a_start_function_is_a_failed_start():
    timeout = gevent.Timeout()
    assert refused(raising, timeout).reason is timeout


def test_the_cause_of_a_failed_tree_is_that_of_its_child():
    cause = ValueError("deep")
    reason = Shutdown(("failed_to_start_child", "b", Shutdown(("failed_to_start_child", "c", cause))))
    error = refused(raising, StartError("no", reason=reason))
    assert error.reason is reason
    assert error.__cause__ is cause


def test_a_name_that_is_taken_is_told_as_it_is():
    taken = AlreadyStarted("mine", pid="somebody")
    with pytest.raises(AlreadyStarted) as info:
        launched(raising, taken)
    assert info.value is taken


@pytest.mark.parametrize("garbage", [None, 5, (5, 6), ("pid", 1, 2)])
def test_a_start_function_that_returns_garbage_is_a_failed_start(garbage):
    error = refused(lambda: garbage)
    assert isinstance(error.reason, BadReturn)
    assert error.reason.reason == garbage
    assert "it returns a Pid, (Pid, info) or Ignore()" in str(error)


def test_a_child_of_another_thread_is_a_failed_start():
    thread = Native(lambda: erps.spawn(idle, None))
    pid = thread.result()
    error = refused(lambda: pid)
    assert isinstance(error.reason, ConfigError)
    assert "belongs to the hub of another thread" in str(error)


def test_a_process_that_is_a_child_already_is_a_failed_start():
    def main(process):
        pid = erps.spawn_link(idle, None)
        child = of(lambda: pid)
        with pytest.raises(StartError) as info:
            launch(child, process, taken={pid: "another"})
        return child.pid, pid, info.value

    kept, pid, error = as_process(main, trap=True)
    assert kept is None
    assert isinstance(error.reason, ConfigError)
    assert error.__cause__ is error.reason
    assert f"{pid!r} is a child of this supervisor already; a start function starts a process of its own" in str(error)


@pytest.mark.parametrize("error", [gevent.GreenletExit(), KeyboardInterrupt()])
def test_what_ends_the_supervisor_leaves_the_start_function(error):
    process = spawn(lambda _: None)

    def supervise():
        with pytest.raises(type(error)):
            launch(of(raising, error), process)

    gevent.spawn(supervise).get()


def test_an_exit_that_is_meant_for_the_supervisor_is_no_failed_start():
    def main(process):
        launch(of(erps.exit_, process.pid, KILL), process)

    assert ended(spawn(main, trap=True)) is KILLED


def test_a_child_that_is_not_linked_is_warned_of(caplog):
    child, pid = launched(erps.spawn, idle, None)
    assert child.pid is pid
    (record,) = caplog.records
    assert record.message == (
        f"child 'a': {pid!r} is not linked to its supervisor, which will not hear of its end; start it with start_link"
    )
    erps.kill(pid)


def test_a_child_that_is_dead_already_is_not_warned_of(caplog):
    def start():
        pid = erps.spawn_link(lambda: None)
        ended(pid)
        return pid

    launched(start)
    assert caplog.records == []


def test_temporary_args_not_kept():
    """Case 137, SS do_not_save_start_parameters_for_temporary_children."""

    class Large:
        """May be large."""

    large = Large()
    gone = weakref.ref(large)
    child = of(lambda _: erps.spawn_link(idle, None), large, restart="temporary")
    as_process(lambda process: [launch(child, process)], trap=True)
    del large
    gc.collect()
    assert gone() is None


def test_a_child_is_started_with_the_callers_of_who_asked():
    def main(process):
        def start():
            seen.append(process.callers)
            return Ignore()

        process.callers = ("own",)
        child = of(start)
        for callers in (None, ("asker",)):
            child.callers = callers
            launch(child, process)
        return process.callers

    seen = []
    assert as_process(main) == ("own",)
    assert seen == [("own",), ("asker",)]


def test_a_start_cancels_what_was_to_start_the_child():
    def main(process):
        child = of(Ignore)
        child.pending = object()
        child.timer = timer
        launch(child, process)
        return child

    timer = send_after("nobody", "message", PATIENCE)
    child = as_process(main)
    assert (child.pending, child.timer) == (None, None)
    assert read_timer(timer) is False


# Stopping.


def halted(log, *specs, between=lambda children: None):
    """Start these, stop them at the same time; return what each ended with, by id."""

    def main(process):
        children = [child_of(one) for one in specs]
        for child in children:
            launch(child, process)
        between(children)
        result = {child.id: reason for child, reason in halt(children, process).items()}
        return result, list(process.links), list(process.inbox.mailbox)

    return as_process(main, trap=True)


def test_children_are_told_to_shut_down_and_waited_for(log):
    assert halted(log, spec(1, log), spec(2, log)) == ({1: SHUTDOWN, 2: SHUTDOWN}, [], [])
    assert [entry for entry in log if entry[0] == "stop"] == [("stop", 1, SHUTDOWN), ("stop", 2, SHUTDOWN)]


def test_shutdown_timeout(log):
    """Case 130, SS sup_stop_timeout: the stubborn one is killed, the others shut down."""

    class Stubborn(Worker):
        def terminate(self, reason):
            idle(None)

    stubborn = {"id": 1, "start": (Stubborn.start_link, (1, log)), "shutdown": 5 * MS}
    reasons, _, _ = halted(log, stubborn, spec(2, log, shutdown=5 * MS), spec(3, log, shutdown=PATIENCE))
    assert reasons == {1: KILLED, 2: SHUTDOWN, 3: SHUTDOWN}


def test_shutdown_brutal_kill(log):
    """Case 131, SS sup_stop_brutal_kill, sup_stop_brutal_kill_dynamic."""
    reasons, _, _ = halted(log, spec(1, log, shutdown="brutal_kill"))
    assert reasons == {1: KILLED}
    assert log == [("start", 1)]


def test_shutdown_infinity(log):
    """Case 129, SS sup_stop_infinity."""
    slow = Event()

    class Slow(Worker):
        def terminate(self, reason):
            log.append("asked")
            slow.wait()

    def let_go():
        log.wait_for("asked")
        slow.set()

    gevent.spawn(let_go)
    for type_ in ("worker", "supervisor"):
        one = {"id": 1, "start": (Slow.start_link, (1, log)), "shutdown": "infinity", "type": type_}
        assert halted(log, one)[0] == {1: SHUTDOWN}


def test_child_unlink(log):
    """Case 133, SS child_unlink; PR S26."""

    def unlink(children):
        (child,) = children
        child.pid.call(lambda server: erps.unlink(server._process.parent.pid))

    assert halted(log, spec(1, log), between=unlink)[0] == {1: SHUTDOWN}


def test_a_child_that_is_dead_already_ended_as_its_last_signal_says(log):
    def crash(children):
        for child in children:
            child.pid.cast("crash")
            ended(child.pid)

    reasons, _, mailbox = halted(log, spec(1, log), spec(2, log), between=crash)
    assert reasons == {1: "crash", 2: "crash"}
    assert [signal.reason for signal in mailbox] == ["crash", "crash"]


def test_a_dead_child_that_was_not_linked_ended_with_noproc(log):
    def vanish(children):
        dead, _ = children
        dead.pid.call(lambda server: erps.unlink(server._process.parent.pid))
        dead.pid.cast(NORMAL)
        ended(dead.pid)

    assert halted(log, spec(1, log), spec(2, log), between=vanish)[0] == {1: NOPROC, 2: SHUTDOWN}


class CountedMailbox(collections.deque):
    """A mailbox that counts how often it is gone through, and in which something arrives whenever it is looked at."""

    walks = 0

    def __iter__(self):
        self.walks += 1
        return super().__iter__()


class Arriving:
    """A message at the sight of which another one is put into the mailbox, as by a `__del__`."""

    def __init__(self, mailbox):
        self.mailbox = mailbox

    @property
    def __class__(self):
        self.mailbox.append("another")
        return Arriving


def test_the_mailbox_is_gone_through_once_for_all_children_that_are_dead():
    dead = [spawn(lambda _: None) for _ in range(3)]
    reader = spawn(idle, trap=True)
    reader.inbox.mailbox = CountedMailbox(ExitSignal(process.pid, n, ended=True) for n, process in enumerate(dead))
    ends = Ends(reader)
    assert [ends.of(process.pid) for process in (*dead, reader)] == [0, 1, 2, NOPROC]
    assert reader.inbox.mailbox.walks == 1
    reader.inbox.mailbox.append(ExitSignal(reader.pid, "late", ended=True))
    assert ends.of(reader.pid) == "late"
    reader.die(KILLED)


def test_a_message_that_arrives_while_the_mailbox_is_gone_through_is_no_harm():
    reader = spawn(idle, trap=True)
    mailbox = reader.inbox.mailbox
    mailbox.extend([Arriving(mailbox), ExitSignal(reader.pid, "crash", ended=True)])
    assert Ends(reader).of(reader.pid) == "crash"
    reader.die(KILLED)


def test_a_plain_process_may_shut_down_when_it_likes(log):
    def polite():
        erps.trap_exit()
        assert receive().reason is SHUTDOWN
        raise Exit("later")

    one = {"id": 1, "start": (erps.spawn_link, (polite,))}
    assert halted(log, one, between=lambda _: gevent.sleep(0))[0] == {1: "later"}


def test_a_supervisor_that_is_killed_while_it_stops_children_leaves_no_timer_or_monitor(log):
    class Stubborn(Worker):
        def terminate(self, reason):
            log.append("asked")
            idle(None)

    def main(process):
        child = child_of({"id": 1, "start": (Stubborn.start_link, (1, log))})
        launch(child, process)
        pids.append(child.pid)
        halt([child], process)

    pids = []
    supervisor = spawn(main, trap=True)
    log.wait_for("asked")
    erps.kill(supervisor.pid)
    assert ended(supervisor) is KILLED
    assert pids[0].process.monitors == {}
    erps.kill(pids[0])
    ended(pids[0])


@pytest.mark.parametrize(
    ("shutdown", "reason", "expected"),
    [
        (5.0, SHUTDOWN, True),
        (5.0, NORMAL, True),
        (5.0, Shutdown("x"), True),
        (5.0, KILLED, False),
        ("brutal_kill", KILLED, True),
        ("brutal_kill", "crash", False),
        ("infinity", NOPROC, False),
    ],
)
def test_the_ends_that_are_expected_of_a_stopped_child(shutdown, reason, expected):
    assert is_expected(of(print, shutdown=shutdown), reason) is expected


def test_a_child_shows_its_last_pid_while_it_has_none():
    child, pid = launched(erps.spawn_link, idle, None)
    child.pid = None
    assert repr(child) == f"'a' ({pid!r}, permanent, worker)"
    child.pid = RESTARTING
    assert repr(child) == "'a' (restarting, permanent, worker)"
    assert not child.alive
