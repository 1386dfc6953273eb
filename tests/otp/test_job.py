"""Jobs: what they are made of, their report, and the one place of their outcome."""

from __future__ import annotations

import logging

import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, ended, idle, spawn

from erps_gevent.errors import Exit
from erps_gevent.otp import universe
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.job import Job, TaskExit, TaskReply, TaskResult, launch, name_of, process_for
from erps_gevent.otp.plain import record
from erps_gevent.otp.primitives import exit_
from erps_gevent.otp.process import Down, current
from erps_gevent.otp.reasons import Shutdown
from erps_gevent.otp.words import KILLED, NORMAL, SHUTDOWN

BOOM = ValueError("boom")


class Gate:
    """A function for a job that says that it runs, and returns when it may."""

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


@pytest.fixture
def owner():
    process = spawn(idle, label="Owner")
    yield process
    process.die(KILLED)


@pytest.fixture
def job(owner):
    return Job(owner, "job")


def fail(reason):
    raise reason if isinstance(reason, BaseException) else Exit(reason)


# What it is made of.


def test_its_process_has_the_owner_for_caller_and_the_first_link_for_parent(owner):
    other = spawn(idle)
    process = process_for((owner.pid,), fail, (other, owner))
    assert process.callers == (owner.pid,)
    assert process.parent is other
    assert list(process.links) == [other, owner]
    assert process_for((owner.pid,), fail, ()).parent is None
    other.die(KILLED)


@pytest.mark.parametrize(
    ("function", "name"), [(fail, "fail"), (Gate(), "Gate"), (Gate.__call__, "Gate.__call__"), (len, "len")]
)
def test_a_function_has_a_name_for_people(function, name):
    assert name_of(function) == name
    assert name_of(function, "shop") == f"shop.{name}"


def test_what_is_no_function_has_none():
    with pytest.raises(TypeError, match="a task runs a function, not 7"):
        name_of(7)


# The outcome.


@pytest.mark.parametrize(
    ("function", "args", "outcome"),
    [(len, ("abc",), TaskResult(3)), (fail, ("because",), TaskExit("because")), (fail, (BOOM,), TaskExit(BOOM))],
)
def test_the_owner_monitors_it_and_has_its_outcome(job, owner, function, args, outcome):
    pid = job.spawn(function, args, {})
    assert (job.pid, job.owner) == (pid, owner.pid)
    assert owner.monitoring == {job.ref: pid.process}
    assert job.outcome is None
    ended(pid)
    assert job.outcome == outcome
    assert owner.monitoring == {}


def test_an_outcome_is_taken_once(job):
    ended(job.spawn(int, ("7",), {}))
    assert job.take() == TaskResult(7)
    assert job.take() is None
    assert job.settled


def test_who_waits_is_told(job):
    job.landing = Inbox()
    job.spawn(int, (), {})
    assert job.landing.next() is job


def test_a_forgotten_job_runs_on_and_keeps_nothing(job, owner, gate):
    pid = job.spawn(gate, (), {})
    job.forget()
    job.forget()
    assert (owner.monitoring, pid.process.monitors) == ({}, {})
    gate.open.set()
    ended(pid)
    assert (job.outcome, job._value) == (None, Job(owner, "")._value)


def test_a_job_that_never_began_can_be_forgotten_and_ended(job):
    job.end()
    job.forget()
    assert job.pid is None


def test_an_ended_job_is_dead_and_its_owner_hears_nothing(job, owner, gate):
    owner.trap_exit = True
    pid = job.spawn(gate, (), {}, owner)
    gate.running.wait(PATIENCE)
    reasons = []
    pid.process.monitor(reasons.append)
    job.end()
    ended(pid)
    assert reasons == [KILLED]
    assert (owner.links, owner.monitoring, list(owner.inbox.mailbox)) == ({}, {}, [])


@pytest.mark.parametrize(
    ("function", "message"),
    [(int, lambda job: TaskReply(job.ref, 0)), (lambda: fail(NORMAL), lambda job: Down(job.ref, job.pid, NORMAL))],
)
def test_a_posted_outcome_is_one_message_and_nothing_else(job, owner, function, message):
    job.posted = True
    ended(job.spawn(function, (), {}))
    assert list(owner.inbox.mailbox) == [message(job)]
    assert job.take() is None


def test_launched_is_run_for_nobody():
    seen = []
    ended(
        launch(universe.link(), lambda *args, **kwargs: seen.append((args, kwargs, current().callers)), (1,), {"a": 2})
    )
    assert seen == [((1,), {"a": 2}, (record().pid,))]


# The report.


def test_task_crash_logged(caplog):
    """Case 186, ET "logs a terminated task": function, arguments, owner and reason, once."""
    pid = launch(universe.link(), fail, (BOOM,), {})
    ended(pid)
    (entry,) = caplog.records
    assert (entry.name, entry.levelno) == ("erps_gevent", logging.ERROR)
    lines = entry.getMessage().splitlines()
    assert lines[:4] == [
        f"task {pid!r} started from {record().pid!r} terminating",
        "reason: ValueError('boom')",
        f"function: {__name__}.fail",
        "arguments: (ValueError('boom'),)",
    ]
    assert lines[-1] == "ValueError: boom"


def test_an_exit_of_the_task_itself_is_logged_without_a_traceback(caplog):
    ended(launch(universe.link(), lambda *, why: fail(why), (), {"why": "because"}))
    (entry,) = caplog.records
    lines = entry.getMessage().splitlines()
    assert lines[1] == "reason: 'because'"
    assert lines[3:] == ["arguments: () {'why': 'because'}"]


def test_long_arguments_are_cut_in_the_report(caplog):
    ended(launch(universe.link(), lambda text: fail(BOOM), ("x" * 100_000,), {}))
    assert len(caplog.records[0].getMessage()) < 5000


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, Shutdown("x")])
def test_a_quiet_end_is_not_logged(caplog, reason):
    ended(launch(universe.link(), fail, (reason,), {}))
    assert caplog.records == []


def test_a_signal_from_outside_is_not_logged(caplog, job, gate):
    pid = job.spawn(gate, (), {})
    gate.running.wait(PATIENCE)
    exit_(pid, "because")
    ended(pid)
    assert job.outcome == TaskExit("because")
    assert caplog.records == []


def test_a_greenlet_that_is_killed_is_a_killed_job(caplog, job, gate):
    pid = job.spawn(gate, (), {})
    gate.running.wait(PATIENCE)
    pid.process.greenlet.kill(block=False)
    ended(pid)
    assert job.outcome == TaskExit(KILLED)
    assert caplog.records == []


def test_ctrl_c_in_a_job_reaches_the_program(job):
    pid = job.spawn(fail, (KeyboardInterrupt(),), {})
    with pytest.raises(KeyboardInterrupt):
        ended(pid)
    assert type(job.outcome.reason) is KeyboardInterrupt
