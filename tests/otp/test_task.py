"""Tasks: starting, waiting once, giving up, ending; what the owner sees and what it does not."""

from __future__ import annotations

import gc
import logging
import pickle
import weakref

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Log, Native, Probe, as_process, ended, idle, spawn
from support import MS, run_python

from erps_gevent.errors import CallExit, ConfigError, Exit, NoProc, ServerExit, TaskTimeout
from erps_gevent.otp import universe
from erps_gevent.otp.gen import call, stop
from erps_gevent.otp.job import TaskExit, TaskReply, TaskResult
from erps_gevent.otp.mailbox import receive
from erps_gevent.otp.messages import Reply
from erps_gevent.otp.primitives import info, kill, monitor, trap_exit
from erps_gevent.otp.process import Down, ExitSignal, Process, current
from erps_gevent.otp.reasons import Shutdown
from erps_gevent.otp.task import Task
from erps_gevent.otp.words import KILLED, NOPROC, NORMAL, SHUTDOWN


class Gate:
    """A function for a task that says that it runs, and returns when it may."""

    def __init__(self):
        self.running = Event()
        self.open = Event()

    def __call__(self, value="done"):
        self.running.set()
        self.open.wait()
        return value


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open.set()


def fail(reason):
    raise reason if isinstance(reason, BaseException) else Exit(reason)


def add(a, b, *, c=0):
    return a + b + c


def stubborn(ready, tell):
    """A task that traps exits, and so outlives a shutdown."""
    trap_exit()
    ready.set()
    while True:
        tell.append(receive())


def mailbox(process):
    return list(process.inbox.mailbox)


# Starting.


def test_task_async_await(gate):
    """Case 172, ET "async/1": linked, monitored, the result, and nothing in the mailbox."""

    def owner(process):
        task = Task.async_(gate, "value")
        about = info(process.pid)
        links, watched = about["links"], about["monitors"]
        parent = info(task.pid)["parent"]
        gate.open.set()
        value = task.await_(PATIENCE)
        return value, links == watched == [task.pid], parent is process.pid, task.owner is process.pid, mailbox(process)

    assert as_process(owner) == ("value", True, True, True, [])


def test_a_task_gets_all_arguments_and_says_what_it_is():
    task = Task.async_(add, 1, 2, c=3)
    assert repr(task) == f"<Task {task.ref} add>"
    assert "add" in repr(task.pid)
    assert task.await_() == 6


def test_await_works_as_a_function_too():
    assert Task.await_(Task.async_(add, 1, 2), 5.0) == 3


def test_a_task_may_be_a_callable_without_a_name_and_return_none():
    class Callable:
        def __call__(self):
            """Return None, which is a result like any other."""

    task = Task.async_(Callable())
    assert repr(task).endswith(" Callable>")
    assert task.yield_() == TaskResult(None)


@pytest.mark.parametrize("start", [Task.async_, Task.start, Task.start_link, Task.child_spec])
def test_a_task_runs_a_function_and_nothing_else(start):
    with pytest.raises(TypeError, match=r"^a task runs a function, not 'look_up'$"):
        start("look_up")


def test_task_callers():
    """Case 173, ET "async with $callers", "start_link with $callers": the chain of owners, the nearest first."""
    seen = {}

    def inner(name):
        seen[name] = current().callers

    def outer():
        Task.async_(inner, "async_").await_(PATIENCE)
        ended(Task.start_link(inner, "start_link"))
        ended(Task.start(inner, "start"))
        list(Task.async_stream(["async_stream"], inner))
        return current().pid

    def owner(process):
        return Task.async_(outer).await_(PATIENCE), process.pid

    chain = as_process(owner)
    assert seen == dict.fromkeys(["async_", "start_link", "start", "async_stream"], chain)


def test_a_greenlet_that_is_no_process_is_a_caller_too():
    def owner():
        task = Task.async_(lambda: current().callers)
        return task.owner, task.await_(PATIENCE)

    me, callers = gevent.spawn(owner).get(timeout=PATIENCE)
    assert callers == (me,)


def test_a_task_lives_in_the_universe_of_its_owner():
    def owner(process):
        return Task.async_(universe.current).await_(PATIENCE) is process.pid

    assert as_process(owner)


@pytest.mark.parametrize(("start", "linked"), [(Task.start, False), (Task.start_link, True)])
def test_task_start_kinds(start, linked, gate):
    """Case 174, ET start/1, start_link/1: a link, or not; the parent is who is linked."""

    def owner(process):
        pid = start(gate)
        return list(process.links) == [pid.process], pid.process.parent is process

    assert as_process(owner) == (linked, linked)


def test_a_crash_of_a_linked_task_that_nobody_waits_for_ends_its_starter():
    starter = spawn(lambda _: (Task.start_link(fail, "because"), idle(_)))
    assert ended(starter) == "because"


def test_task_child_spec():
    """Case 182, ET "generates child_spec/1": temporary by default; the start function gives a linked Pid."""
    spec = Task.child_spec(add, 1, 2, c=3)
    assert (spec["id"], spec["restart"], spec["type"]) == (Task, "temporary", "worker")
    assert spec["start"] == (Task.start_link, (add, 1, 2), {"c": 3})

    def starter(process):
        function, args, kwargs = spec["start"]
        pid = function(*args, **kwargs)
        return list(process.links) == [pid.process], ended(pid)

    assert as_process(starter) == (True, NORMAL)


def test_task_completed():
    """Optional, ET "completed/1": the result, without a process."""
    assert Task.completed(7).await_(0) == 7
    assert Task.completed(7).yield_(0) == TaskResult(7)
    assert Task.completed(7).shutdown() == TaskResult(7)
    assert Task.completed(7).ignore() == TaskResult(7)
    assert Task.completed(7).pid is None


# Links with the owner.


@pytest.mark.parametrize("reason", ["because", ValueError("x"), SHUTDOWN])
def test_the_crash_of_a_task_ends_its_owner_before_it_sees_an_outcome(reason):
    """Rules 15 and 7: the owner dies by the signal. What a dead owner would do with the failure does not happen."""
    seen = []

    def main(_process):
        try:
            Task.async_(fail, reason).await_(PATIENCE)
        except CallExit as error:
            seen.append(error)

    owner = spawn(main)
    assert ended(owner) is reason
    assert seen == []


def test_a_task_that_ended_with_normal_does_not_end_its_owner():
    """ET yield/2 "return exit on normal exit"."""
    assert as_process(lambda _: Task.async_(fail, NORMAL).yield_(PATIENCE)) == TaskExit(NORMAL)


def test_an_owner_that_traps_exits_has_the_error_and_the_signals():
    """Rules 7: a link is a link, also with what returned."""

    def owner(process):
        fine, bad = Task.async_(add, 1, 2), Task.async_(fail, "because")
        assert fine.await_(PATIENCE) == 3
        with pytest.raises(ServerExit):
            bad.await_(PATIENCE)
        return mailbox(process) == [ExitSignal(fine.pid, NORMAL), ExitSignal(bad.pid, "because")]

    assert as_process(owner, trap=True)


@pytest.mark.parametrize(("reason", "of_task"), [("because", "because"), (KILLED, KILLED)])
def test_the_death_of_the_owner_ends_the_task(gate, reason, of_task):
    pids = []

    def main(process):
        pids.append(Task.async_(gate).pid)
        idle(process)

    owner = spawn(main)
    gate.running.wait(PATIENCE)
    seen = []
    pids[0].process.monitor(seen.append)
    owner.die(reason)
    ended(pids[0])
    assert seen == [of_task]


def test_a_normal_end_of_the_owner_leaves_the_task_alone(gate):
    log = Log()

    def main(_process):
        Task.async_(lambda: log.append(gate()))

    ended(spawn(main))
    gate.running.wait(PATIENCE)
    gate.open.set()
    log.wait_for("done")


def test_a_task_of_a_greenlet_that_is_no_process_is_not_linked(gate):
    task = Task.async_(gate)
    assert task.pid.process.links == {}
    assert task.pid.process.parent is None
    assert task.shutdown() is None


def test_a_task_of_a_main_greenlet_that_traps_exits_is_linked(gate):
    trap_exit()
    try:
        task = Task.async_(gate)
        assert info(task.pid)["links"] == [task.owner]
        gate.open.set()
        assert task.await_(PATIENCE) == "done"
        assert receive(ExitSignal, PATIENCE) == ExitSignal(task.pid, NORMAL)
    finally:
        trap_exit(False)


# await_.


def test_await_timeout(gate):
    """Case 175, ET "exits on timeout", "demonitors and unalias on timeout": the late result never arrives."""

    def owner(process):
        task = Task.async_(gate)
        with pytest.raises(TaskTimeout) as caught:
            task.await_(2 * MS)
        monitors = dict(process.monitoring), dict(task.pid.process.monitors)
        ref = monitor(task.pid)
        gate.open.set()
        down = receive(Down, PATIENCE)
        return str(caught.value), task, monitors, down == Down(ref, task.pid, NORMAL), mailbox(process), task.outcome

    text, task, monitors, down, left, outcome = as_process(owner)
    assert text == f"not finished in 0.002 s, and not waited for any more: [{task!r}]"
    assert (monitors, down, left, outcome) == (({}, {}), True, [], None)
    assert isinstance(TaskTimeout("x"), TimeoutError)


def test_zero_seconds_take_what_is_there():
    """ET "exits on timeout" with 0."""
    with pytest.raises(TaskTimeout):
        Task.async_(add, 1, 2).await_(0)
    task = Task.async_(add, 1, 2)
    ended(task.pid)
    assert task.await_(0) == 3


@pytest.mark.parametrize("timeout", [-1, "5", float("inf"), True])
def test_a_bad_timeout_is_refused_and_the_task_can_still_be_waited_for(timeout):
    task = Task.async_(add, 1, 2)
    for wait in (task.await_, task.yield_):
        with pytest.raises(ConfigError, match="timeout is a number of at least 0 or None for ever"):
            wait(timeout)
    assert task.await_(None) == 3


BOOM = ValueError("boom")
CASES = [
    (BOOM, ServerExit, "ValueError", "boom"),
    (SystemExit(3), ServerExit, "SystemExit", "3"),
    (NORMAL, ServerExit, "normal", ""),
    (SHUTDOWN, ServerExit, "shutdown", ""),
    (Shutdown("later"), ServerExit, "shutdown", "later"),
    (("r", 1), ServerExit, "exit", "('r', 1)"),
    (NOPROC, NoProc, None, None),
]


@pytest.mark.parametrize(("reason", "error", "kind", "message"), CASES)
def test_await_failures(reason, error, kind, message):
    """Case 176, ET normal exit, throw, error, exit: it fails with the task's reason; a crash is the cause."""
    task = Task.async_(fail, reason)
    with pytest.raises(CallExit) as caught:
        task.await_(PATIENCE)
    assert type(caught.value) is error
    assert caught.value.reason is reason or caught.value.reason == ("r", 1)
    assert caught.value.__cause__ is (reason if isinstance(reason, BaseException) else None)
    if kind is not None:
        assert (caught.value.kind, caught.value.message) == (kind, message)
        assert str(caught.value).startswith(f"{task!r} ended before it returned: ")
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_killed_task_fails_with_killed(gate):
    task = Task.async_(gate)
    kill(task.pid)
    with pytest.raises(ServerExit, match="killed"):
        task.await_(PATIENCE)


def test_a_result_is_a_result_although_an_exit_was_on_its_way():
    """ET yield/2 "returns {:ok, result} when reply and :DOWN in message queue" with an abnormal one."""

    def returns_before_the_exit_lands():
        current().hub.loop.run_callback(current().die, "late")
        gevent.sleep(0)
        return "value"

    def swallows_it():
        try:
            return returns_before_the_exit_lands()
        except Exit:
            return "value"

    task = Task.async_(swallows_it)
    assert task.yield_(PATIENCE) == TaskResult("value")


def test_an_outcome_is_given_once(gate):
    task = Task.async_(add, 1, 2)
    assert task.yield_(PATIENCE) == TaskResult(3)
    for ask in (task.await_, task.yield_, task.ignore, task.to_mailbox):
        with pytest.raises(ConfigError, match=r"was given, or discarded, before; yield_ can wait again until it gives"):
            ask()
    assert task.shutdown() == TaskExit(NOPROC)


@pytest.mark.parametrize("what", ["await_", "yield_", "shutdown", "ignore", "to_mailbox"])
def test_only_the_owner_may_ask(what):
    """ET "raises when invoked from a non-owner process" (5 times); it names the owner and who asked."""
    task = Task.async_(add, 1, 2)

    def stranger(process):
        with pytest.raises(ConfigError) as caught:
            getattr(task, what)()
        return str(caught.value), process.pid

    text, pid = as_process(stranger)
    assert text == f"{what}: {task!r} belongs to {task.owner!r}, which alone may ask for it, not {pid!r}"
    with pytest.raises(ConfigError, match="which alone may ask"):
        Native(getattr(task, what)).result()
    assert task.await_() == 3


def test_waiting_for_what_is_no_task_is_refused():
    with pytest.raises(TypeError, match="await_many takes tasks, not <function add"):
        Task.await_many([add])


def test_an_interrupted_wait_can_be_repeated(gate):
    task = Task.async_(gate)
    with pytest.raises(gevent.Timeout):
        with gevent.Timeout(2 * MS):
            task.await_(None)
    gate.open.set()
    assert task.await_(PATIENCE) == "done"


def test_a_full_mailbox_is_neither_looked_at_nor_changed():
    def owner(process):
        for number in range(1000):
            process.send(number)
        value = Task.async_(add, 1, 2).await_(PATIENCE)
        return value, mailbox(process) == list(range(1000))

    assert as_process(owner) == (3, True)


DEAD_END = """
import erps_gevent as erps
from gevent.event import Event
task = erps.Task.async_(Event().wait)
try:
    task.await_(None)
except erps.CallExit as error:
    print(type(error).__name__, error.reason, error)
"""


def test_a_wait_that_nothing_can_end_says_so():
    """Rules 17: gevent's LoopExit."""
    said = run_python("-c", DEAD_END)
    assert said.stdout.startswith("CallExit deadlock <Task 1 Event.wait> will never answer"), said.stderr


# await_many.


def test_await_many():
    """Case 178, ET await_many/2: the order of the input, whatever the order of the ends."""
    gates = [Gate() for _ in range(3)]
    tasks = [Task.async_(gate, number) for number, gate in enumerate(gates)]
    tasks.append(Task.completed("there"))

    def in_reverse():
        for task, gate in reversed(list(zip(tasks, gates, strict=False))):
            gate.open.set()
            ended(task.pid)

    gevent.spawn(in_reverse)
    assert Task.await_many(tasks, PATIENCE) == [0, 1, 2, "there"]
    assert Task.await_many([]) == []


def test_await_many_has_one_deadline_for_all(gate):
    """Case 178, ET "exits on timeout": who is late is named, and nobody is waited for any more."""
    tasks = [Task.async_(gate), Task.async_(add, 1, 2), Task.async_(gate)]
    with pytest.raises(TaskTimeout) as caught:
        Task.await_many(tasks, 2 * MS)
    assert str(caught.value).endswith(f"[{tasks[0]!r}, {tasks[2]!r}]")
    for task in tasks:
        assert task.shutdown("brutal_kill") == TaskExit(NOPROC)
        assert task.pid.process.monitors == {}


def test_await_many_fails_with_the_first_failure(gate):
    """Case 178, ET "exits with same reason when task exits": the first in time; it does not wait for the rest."""
    later = Event()
    tasks = [Task.async_(gate), Task.async_(lambda: later.wait() and fail("second")), Task.async_(fail, "first")]
    tasks[2].pid.process.monitor(lambda _: later.set())
    with pytest.raises(ServerExit) as caught:
        Task.await_many(tasks, None)
    assert caught.value.reason == "first"
    assert str(caught.value).startswith(repr(tasks[2]))


def test_a_task_that_is_waited_for_twice_at_once_is_refused():
    task = Task.async_(add, 1, 2)
    for many in (Task.await_many, Task.yield_many):
        with pytest.raises(ConfigError, match="one of these is there twice"):
            many([task, task])
    assert task.await_() == 3


# yield_.


def test_yield(gate):
    """Case 179, ET yield/2: the value, None when time is up, the exit; after None it can be asked again."""
    task, bad = Task.async_(gate), Task.async_(fail, "because")
    assert task.yield_(0) is None
    assert task.yield_(2 * MS) is None
    gate.open.set()
    assert task.yield_(PATIENCE) == TaskResult("done")
    assert bad.yield_(PATIENCE) == TaskExit("because")


def test_yield_many(gate):
    """Optional, ET yield_many/2: mixed results."""
    tasks = [Task.async_(add, 1, 2), Task.async_(gate), Task.async_(fail, "because")]
    assert Task.yield_many(tasks, 2 * MS) == [
        (tasks[0], TaskResult(3)),
        (tasks[1], None),
        (tasks[2], TaskExit("because")),
    ]
    assert Task.yield_many([]) == []
    gate.open.set()
    assert Task.yield_many([tasks[1]], None) == [(tasks[1], TaskResult("done"))]


def test_yield_many_up_to_a_limit(gate):
    """Optional, ET yield_many/2 (limit): it returns at once, and does nothing to the others."""
    tasks = [Task.async_(gate), Task.async_(add, 1, 2)]
    outcomes = Task.yield_many(tasks, None, limit=1, on_timeout="kill_task")
    assert outcomes == [(tasks[0], None), (tasks[1], TaskResult(3))]
    gate.open.set()
    assert tasks[0].await_(PATIENCE) == "done"
    assert Task.yield_many([Task.completed(1)], 0, limit=2, on_timeout="kill_task")[0][1] == TaskResult(1)


@pytest.mark.parametrize(("on_timeout", "alive"), [("kill_task", False), ("ignore", True)])
def test_yield_many_ends_or_ignores_what_is_late(gate, on_timeout, alive):
    """Optional, ET yield_many/2 (on_timeout)."""
    task = Task.async_(gate)
    assert Task.yield_many([task], 2 * MS, on_timeout=on_timeout) == [(task, None)]
    assert task.pid.is_alive() is alive
    assert task.shutdown() == TaskExit(NOPROC)


def test_yield_many_with_bad_options_is_refused():
    with pytest.raises(ConfigError, match="limit is a whole number of at least 1, not 0"):
        Task.yield_many([], limit=0)
    with pytest.raises(ConfigError, match="on_timeout is one of 'nothing', 'ignore', 'kill_task', not 'exit'"):
        Task.yield_many([], on_timeout="exit")


# Messages instead.


def test_a_server_that_cannot_wait_has_the_outcome_as_a_message(gate):
    log = Log()
    server = Probe.start(log)
    try:
        fine = call(server, lambda *_: Reply(Task.async_(gate).to_mailbox()))
        gate.open.set()
        log.wait_for(("info", TaskReply(fine.ref, "done")))
        quiet = call(server, lambda *_: Reply(Task.async_(fail, NORMAL).to_mailbox()))
        log.wait_for(("info", Down(quiet.ref, quiet.pid, NORMAL)))
        assert len(log) == 2
    finally:
        stop(server)


def test_an_outcome_that_is_there_is_sent_at_once_and_not_given_again():
    def owner(process):
        task = Task.async_(fail, NORMAL)
        ended(task.pid)
        assert task.to_mailbox() is task
        message = receive(timeout=0)
        return message == Down(task.ref, task.pid, NORMAL), task.shutdown(), mailbox(process)

    assert as_process(owner) == (True, TaskExit(NOPROC), [])


def test_a_task_whose_outcome_goes_to_the_mailbox_can_be_ended_but_not_waited_for(gate):
    def owner(process):
        task = Task.async_(gate).to_mailbox()
        with pytest.raises(ConfigError, match="its outcome goes to the mailbox"):
            task.await_()
        return task.shutdown(), mailbox(process)

    assert as_process(owner) == (None, [])


# shutdown and ignore.


def test_task_shutdown(gate):
    """Case 180, ET shutdown/2: the result if it was there, None if it was stopped, the exit if it crashed."""
    done, bad, running = Task.async_(add, 1, 2), Task.async_(fail, "because"), Task.async_(gate)
    for task in (done, bad):
        ended(task.pid)
    assert done.shutdown() == TaskResult(3)
    assert bad.shutdown() == TaskExit("because")
    assert running.shutdown() is None
    assert not running.pid.is_alive()


@pytest.mark.parametrize("timeout", [5.0, 0, None, "infinity", "brutal_kill"])
def test_a_linked_owner_survives_the_shutdown_and_hears_nothing_of_it(gate, timeout):
    """Case 180, ET "returns nil on shutting down task", "returns nil on killing task"."""

    def owner(process):
        task = Task.async_(gate)
        gate.running.wait()
        return task.shutdown(timeout), task.pid.is_alive(), process.links, process.monitoring, mailbox(process)

    assert as_process(owner) == (None, False, {}, {}, [])
    assert as_process(owner, trap=True) == (None, False, {}, {}, [])


@pytest.mark.parametrize(("timeout", "outcome"), [("brutal_kill", None), (2 * MS, TaskExit(KILLED))])
def test_a_task_that_traps_exits_is_killed(timeout, outcome):
    """Case 180, ET "returns exit on killing task after shutdown timeout", "returns nil on killing task"."""
    ready, told = Event(), Log()
    task = Task.async_(stubborn, ready, told)
    ready.wait(PATIENCE)
    assert task.shutdown(timeout) == outcome
    assert told == ([] if outcome is None else [ExitSignal(task.owner, SHUTDOWN)])


@pytest.mark.parametrize(
    ("reason", "timeout", "outcome"),
    [
        (SHUTDOWN, 5.0, None),
        (SHUTDOWN, "brutal_kill", TaskExit(SHUTDOWN)),
        (KILLED, 5.0, TaskExit(KILLED)),
        (KILLED, "brutal_kill", None),
        (NORMAL, 5.0, TaskExit(NORMAL)),
    ],
)
def test_shutdown_of_a_task_that_has_ended_by_itself(reason, timeout, outcome):
    """ET shutdown/2 "returns ... on ... :DOWN in message queue" (8 tests)."""
    task = Task.async_(fail, reason)
    ended(task.pid)
    assert task.shutdown(timeout) == outcome


@pytest.mark.parametrize("timeout", [-1, "soon", True])
def test_a_bad_shutdown_is_refused(timeout, gate):
    task = Task.async_(gate)
    with pytest.raises(ConfigError, match="timeout is seconds, 'brutal_kill' or 'infinity', not"):
        task.shutdown(timeout)
    assert task.shutdown() is None


def test_task_ignore(gate):
    """Optional, ET ignore/1: it runs on without a link; the outcome, if it is there, and nothing later."""

    def owner(process):
        task, done = Task.async_(gate), Task.async_(add, 1, 2)
        ended(done.pid)
        ignored, links = task.ignore(), dict(process.links)
        ref = monitor(task.pid)
        gate.open.set()
        down = receive(Down, PATIENCE)
        return ignored, done.ignore(), links, down == Down(ref, task.pid, NORMAL), mailbox(process)

    assert as_process(owner) == (None, TaskResult(3), {}, True, [])


# Leaks.


def count_of(kind):
    return sum(type(thing) is kind for thing in gc.get_objects())


def test_a_thousand_tasks_leave_nothing():
    """Neither greenlets nor processes, monitors, links or messages."""

    def owner(process):
        tasks = [Task.async_(add, number, 0) for number in range(400)]
        Task.await_many(tasks[:200], PATIENCE)
        for task in tasks[200:]:
            task.yield_(PATIENCE)
        for _ in range(200):
            Task.async_(add, 1, 1)
            Task.async_(Event().wait).shutdown("brutal_kill")
            with pytest.raises(TaskTimeout):
                Task.async_(add, 1, 1).await_(0)
        del tasks, task
        ended(Task.async_(add, 1, 1).pid)
        return dict(process.links), dict(process.monitoring), mailbox(process)

    gevent.sleep(0)
    gc.collect()
    before = count_of(Process), count_of(gevent.Greenlet)
    assert as_process(owner) == ({}, {}, [])
    gevent.sleep(0)
    gc.collect()
    assert (count_of(Process), count_of(gevent.Greenlet)) == before


def test_a_crash_that_was_seen_is_no_garbage(monkeypatch):
    """A traceback holds frames, and they the task; that must not become a cycle that only a collection ends."""
    monkeypatch.setattr(logging.getLogger("erps_gevent"), "disabled", True)  # what captures logs holds tracebacks

    def crash():
        raise ValueError("x")

    def see_one():
        task = Task.async_(crash)
        with pytest.raises(ServerExit):
            task.await_(PATIENCE)
        gevent.sleep(0)
        return weakref.ref(task)

    gc.disable()
    try:
        assert see_one()() is None
    finally:
        gc.enable()
