"""Task.Supervisor: whose child a task is, who is linked, and what a crash is."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Log, Native, as_process, ended, idle, spawn
from support import MS

from erps_gevent.errors import ConfigError, Exit, MaxChildren, NoProc, NotFound, ServerExit, StartError, TaskTimeout
from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.gen import stop
from erps_gevent.otp.job import TaskExit, TaskResult
from erps_gevent.otp.mailbox import receive
from erps_gevent.otp.primitives import exit_, info, kill, trap_exit
from erps_gevent.otp.process import Down, current, whereis
from erps_gevent.otp.supervisor import Supervisor
from erps_gevent.otp.task import Task
from erps_gevent.otp.task_supervisor import TaskSupervisor
from erps_gevent.otp.words import KILLED, NORMAL, SHUTDOWN


@pytest.fixture
def tasks():
    pid = Task.Supervisor.start_link()
    yield pid
    if pid.is_alive():
        stop(pid)


@pytest.fixture
def gate():
    made = Event()
    yield made
    made.set()


def wait_for(gate, value="done"):
    gate.wait()
    return value


def fail(reason):
    raise reason if isinstance(reason, BaseException) else Exit(reason)


def stubborn(ready):
    trap_exit()
    ready.set()
    while True:
        receive()


def mailbox(process):
    return list(process.inbox.mailbox)


def test_users_know_it_as_an_attribute_of_task():
    assert Task.Supervisor is TaskSupervisor


def test_it_can_be_supervised_by_its_name():
    """ETS "can be supervised directly", "multiple supervisors can be supervised and identified"."""
    tree = Supervisor.start_link([Task.Supervisor, Task.Supervisor.child_spec(name="tasks")], strategy="one_for_one")
    assert [id_ for id_, _, _, _ in Supervisor.which_children(tree)] == [TaskSupervisor, "tasks"]
    assert Task.Supervisor.children("tasks") == []
    stop(tree)
    assert whereis("tasks") is None


def test_it_prepends_no_arguments():
    with pytest.raises(TypeError, match="extra_arguments"):
        Task.Supervisor.start_link(extra_arguments=[1])


def test_a_task_is_a_child_of_a_supervisor():
    """Case 182, ET "can be supervised directly": temporary, so it runs once."""
    log = Log()
    tree = Supervisor.start_link([(Task, log.append, "ran")], strategy="one_for_one")
    log.wait_for("ran")
    stop(tree)
    assert log == ["ran"]


# async_ and async_nolink.


@pytest.mark.parametrize(("start", "linked"), [("async_", True), ("async_nolink", False)])
def test_task_sup_async(tasks, gate, start, linked):
    """Case 183, ETS async/1 "spawns tasks under the supervisor", async_nolink/1 "... without linking to the caller"."""

    def owner(process):
        task = getattr(Task.Supervisor, start)(tasks, wait_for, gate, value="late")
        about = info(task.pid)
        facts = (
            Task.Supervisor.children(tasks) == [task.pid],
            about["parent"] is tasks,
            about["links"] == [tasks, process.pid][: 1 + linked],
            info(process.pid)["monitors"] == [task.pid],
        )
        gate.set()
        return facts, task.await_(PATIENCE), process.links, process.monitoring, mailbox(process)

    assert as_process(owner) == ((True, True, True, True), "late", {}, {}, [])
    assert Task.Supervisor.children(tasks) == []


def test_a_task_under_a_supervisor_has_its_owner_for_caller(tasks):
    """ETS "with $callers": the chain of owners, and not the supervisor."""

    def inner():
        return current().callers, current().parent.pid

    def outer():
        return current().pid, Task.Supervisor.async_(tasks, inner).await_(PATIENCE)

    def owner(process):
        return process.pid, *Task.Supervisor.async_(tasks, outer).await_(PATIENCE)

    first, second, (callers, parent) = as_process(owner)
    assert callers == (second, first)
    assert parent is tasks
    assert tasks.process.callers == ()


@pytest.mark.parametrize("start", ["async_", "async_nolink", "start_child"])
def test_no_more_than_max_children(start, gate):
    """Case 183, ETS "raises when :max_children is reached"."""
    tasks = Task.Supervisor.start_link(max_children=1)

    def owner(process):
        getattr(Task.Supervisor, start)(tasks, wait_for, gate)
        before = list(process.links), list(process.monitoring)
        with pytest.raises(MaxChildren, match="has 1 children, which is its max_children"):
            getattr(Task.Supervisor, start)(tasks, wait_for, gate)
        assert (list(process.links), list(process.monitoring)) == before
        return True

    assert as_process(owner)
    stop(tasks)


def test_task_sup_nolink(tasks):
    """Case 184, ETS async_nolink/1: a crash is only a Down; or an outcome, for who waits."""

    def owner(process):
        posted = Task.Supervisor.async_nolink(tasks, fail, "because").to_mailbox()
        down = receive(timeout=PATIENCE)
        waited = Task.Supervisor.async_nolink(tasks, fail, "again")
        with pytest.raises(ServerExit) as caught:
            waited.await_(PATIENCE)
        outcome = Task.Supervisor.async_nolink(tasks, fail, "third").yield_(PATIENCE)
        return down == Down(posted.ref, posted.pid, "because"), caught.value.reason, outcome, mailbox(process)

    assert as_process(owner) == (True, "again", TaskExit("third"), [])
    assert tasks.is_alive()


def test_a_crash_ends_a_linked_owner_and_not_the_supervisor(tasks):
    owner = spawn(lambda _: Task.Supervisor.async_(tasks, fail, "because").await_(PATIENCE))
    assert ended(owner) == "because"
    assert tasks.is_alive()


@pytest.mark.parametrize(("start", "survives"), [("async_", False), ("async_nolink", True)])
def test_the_death_of_the_owner_ends_a_linked_task_only(tasks, gate, start, survives):
    kept, log = [], Log()

    def main(process):
        kept.append(getattr(Task.Supervisor, start)(tasks, wait_for, gate))
        log.append("started")
        idle(process)

    owner = spawn(main)
    log.wait_for("started")
    (pid,) = Task.Supervisor.children(tasks)
    owner.die("because")
    ended(owner)
    if not survives:
        ended(pid)
    assert Task.Supervisor.children(tasks) == [pid] * survives


@pytest.mark.parametrize(("shutdown", "reason"), [(5.0, SHUTDOWN), ("brutal_kill", KILLED)])
@pytest.mark.parametrize("start", ["async_nolink", "start_child"])
def test_the_end_of_the_supervisor_ends_its_tasks(start, gate, shutdown, reason):
    """ETS "with custom shutdown" (3 tests)."""
    tasks = Task.Supervisor.start_link()
    started = getattr(Task.Supervisor, start)(tasks, wait_for, gate, shutdown=shutdown)
    pid = getattr(started, "pid", started)
    seen = []
    pid.process.monitor(seen.append)
    stop(tasks, SHUTDOWN)
    assert seen == [reason]


def test_bad_options_are_refused_where_they_are_written(tasks):
    with pytest.raises(ConfigError, match="shutdown is seconds, 'brutal_kill' or 'infinity', not 'soon'"):
        Task.Supervisor.async_(tasks, fail, shutdown="soon")
    with pytest.raises(ConfigError, match="restart is one of 'permanent', 'transient', 'temporary', not 'always'"):
        Task.Supervisor.start_child(tasks, fail, restart="always")
    with pytest.raises(TypeError, match="a task runs a function, not 7"):
        Task.Supervisor.start_child(tasks, 7)
    with pytest.raises(NoProc):
        Task.Supervisor.async_("nobody", fail)


@pytest.fixture
def busy(tasks):
    """What the supervisor waits for, before it comes to anything else."""
    release = Event()

    def blocks_the_supervisor():
        release.wait()
        raise Exit("enough")

    other = gevent.spawn(DynamicSupervisor.start_child, tasks, {"id": "slow", "start": (blocks_the_supervisor, ())})
    gevent.sleep(0)
    yield release
    release.set()
    with pytest.raises(StartError):
        other.get(timeout=PATIENCE)


def test_a_start_that_was_given_up_is_no_start(tasks, busy):
    """Whoever is interrupted has no Task to end it with."""
    ran = []

    def owner(process):
        with pytest.raises(gevent.Timeout):
            with gevent.Timeout(2 * MS):
                Task.Supervisor.async_nolink(tasks, ran.append, 1)
        busy.set()
        return Task.Supervisor.children(tasks), process.monitoring

    assert as_process(owner) == ([], {})
    assert ran == []


def test_a_task_whose_starter_was_interrupted_is_ended(tasks, gate, monkeypatch):
    """It ran already, and the interrupt came before the answer."""
    start_child = DynamicSupervisor.start_child
    pids = []

    def interrupted(*args):
        pids.append(start_child(*args))
        raise gevent.Timeout

    monkeypatch.setattr(DynamicSupervisor, "start_child", staticmethod(interrupted))

    def owner(process):
        with pytest.raises(gevent.Timeout):
            Task.Supervisor.async_(tasks, wait_for, gate)
        ended(pids[0])
        return Task.Supervisor.children(tasks), process.links, process.monitoring

    assert as_process(owner) == ([], {}, {})


def test_an_owner_that_ended_before_the_supervisor_came_to_it_gets_no_task(tasks, busy):
    ran = []
    owner = spawn(lambda _: Task.Supervisor.async_nolink(tasks, ran.append, 1))
    gevent.sleep(0)
    kill(owner.pid)
    ended(owner)
    busy.set()
    assert Task.Supervisor.children(tasks) == []
    assert ran == []


# start_child, children, terminate_child.


def test_task_sup_children(tasks, gate):
    """Case 185, ETS start_child, terminate_child, "counts and returns children"."""
    assert Task.Supervisor.children(tasks) == []
    first, second = (Task.Supervisor.start_child(tasks, wait_for, gate) for _ in range(2))
    assert Task.Supervisor.children(tasks) == [first, second]
    assert DynamicSupervisor.count_children(tasks)["workers"] == 2
    assert info(first)["links"] == [tasks]
    assert Task.Supervisor.terminate_child(tasks, first) is None
    assert Task.Supervisor.children(tasks) == [second]
    with pytest.raises(NotFound):
        Task.Supervisor.terminate_child(tasks, first)


def test_a_permanent_task_runs_again_for_the_same_callers(tasks, gate):
    """Case 185, ETS "start_child/1 with custom restart", "with $callers"."""
    log = Log()

    def work():
        log.append((len(log), current().callers))
        gate.wait()

    def owner(process):
        me = (process.pid,)
        pid = Task.Supervisor.start_child(tasks, work, restart="permanent")
        log.wait_for((0, me))
        exit_(pid, SHUTDOWN)
        log.wait_for((1, me))
        return pid in Task.Supervisor.children(tasks)

    assert as_process(owner) is False


def test_a_task_runs_again_for_the_same_callers_when_who_asked_for_it_has_ended(tasks):
    log = Log()

    def work():
        log.append((len(log), current().callers))
        if len(log) == 1:
            gevent.sleep(MS)
            raise Exit("again")

    def owner(process):
        process.callers = (tasks,)
        Task.Supervisor.start_child(tasks, work, restart="transient")
        return process.pid

    callers = (as_process(owner), tasks)
    log.wait_for((0, callers))
    log.wait_for((1, callers))


@pytest.mark.parametrize(("reason", "times"), [(NORMAL, 1), ("because", 2)])
def test_a_transient_task_runs_until_it_does_not_crash(tasks, reason, times):
    ran = Log()

    def work():
        ran.append(len(ran))
        if len(ran) == 1:
            raise Exit(reason)

    Task.Supervisor.start_child(tasks, work, restart="transient")
    ran.wait_for(times - 1)
    assert Task.Supervisor.children(tasks) == []
    assert len(ran) == times


def test_a_native_thread_may_start_a_child_but_not_wait_for_a_task(tasks):
    log = Log()
    Native(lambda: Task.Supervisor.start_child(tasks, lambda: log.append(current().callers))).result()
    log.wait_for((tasks,))
    with pytest.raises(ConfigError, match=r"it belongs to the hub of another thread, .*; start_child works"):
        Native(Task.Supervisor.async_, tasks, fail, 1).result()


# async_stream.


@pytest.mark.parametrize("stream", ["async_stream", "async_stream_nolink"])
def test_a_stream_runs_under_the_supervisor(tasks, stream):
    """ETS async_stream "streams an enumerable with fun", "with $callers"."""

    def work(element):
        return element, current().parent.pid is tasks, current().callers

    def owner(process):
        return process.pid, list(getattr(Task.Supervisor, stream)(tasks, range(4), work, max_concurrency=2))

    me, outcomes = as_process(owner)
    assert outcomes == [TaskResult((element, True, (me,))) for element in range(4)]


def test_a_crash_in_a_stream_without_links_is_an_outcome(tasks):
    """ETS async_stream_nolink "streams an enumerable with exits", without trapping them."""

    def owner(process):
        outcomes = list(Task.Supervisor.async_stream_nolink(tasks, ["1", NORMAL, "3"], fail))
        return outcomes, mailbox(process)

    assert as_process(owner) == ([TaskExit("1"), TaskExit(NORMAL), TaskExit("3")], [])


def test_a_crash_in_a_linked_stream_ends_its_owner(tasks):
    assert ended(spawn(lambda _: list(Task.Supervisor.async_stream(tasks, ["because"], fail)))) == "because"


@pytest.mark.parametrize("stream", ["async_stream", "async_stream_nolink"])
def test_a_stream_that_finds_no_room_ends_what_it_has_begun(gate, stream):
    """ETS "raises an error if :max_children is reached with clean stream shutdown"."""
    tasks = Task.Supervisor.start_link(max_children=1)

    def owner(process):
        with pytest.raises(MaxChildren):
            list(getattr(Task.Supervisor, stream)(tasks, [gate] * 3, wait_for, max_concurrency=2))
        return process.links, process.monitoring, process.monitors, mailbox(process)

    assert as_process(owner)[:2] == ({}, {})
    gevent.sleep(0)
    assert Task.Supervisor.children(tasks) == []
    stop(tasks)


def test_a_stream_without_links_ends_with_its_owner(tasks, gate):
    began = Log()

    def work(element):
        began.append(element)
        gate.wait()

    owner = spawn(lambda _: list(Task.Supervisor.async_stream_nolink(tasks, [1], work)))
    began.wait_for(1)
    (pid,) = Task.Supervisor.children(tasks)
    owner.die("because")
    assert ended(pid) is KILLED


def test_a_stream_under_a_supervisor_has_its_time(tasks, gate):
    with pytest.raises(TaskTimeout):
        list(Task.Supervisor.async_stream(tasks, [gate], wait_for, timeout=2 * MS))


def test_tasks_under_a_supervisor_leave_nothing(tasks):
    def owner(process):
        for number in range(300):
            assert Task.Supervisor.async_(tasks, int, number).await_(PATIENCE) == number
            Task.Supervisor.async_nolink(tasks, Event().wait).shutdown("brutal_kill")
        return process.links, process.monitoring, mailbox(process)

    assert as_process(owner) == ({}, {}, [])
    assert Task.Supervisor.children(tasks) == []
    assert tasks.process.links == {}
