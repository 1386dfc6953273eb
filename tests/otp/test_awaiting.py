"""The owner's half of jobs: who may wait, for how long, and for which."""

from __future__ import annotations

import pytest
from gevent.event import Event
from gevent.exceptions import LoopExit
from otp.kernel import PATIENCE, as_process, ended, spawn
from support import MS

from erps_gevent.errors import CallExit, ConfigError, Exit, ServerExit, TaskTimeout
from erps_gevent.otp.awaiting import Landing, check_owner, check_waitable, outcomes_of, values_of, wait
from erps_gevent.otp.job import Job, TaskExit, TaskResult
from erps_gevent.otp.plain import record


@pytest.fixture
def gate():
    made = Event()
    yield made
    made.set()


@pytest.fixture
def slow(gate):
    """A job that runs until the gate opens, and returns True."""
    return job_of(gate.wait)


def job_of(function, *args, links=()):
    job = Job(record(), "job")
    job.spawn(function, args, {}, *links)
    return job


def fail(reason):
    raise Exit(reason)


# Who may wait.


def test_only_the_owner_may_ask(slow):
    def stranger(process):
        with pytest.raises(ConfigError) as caught:
            check_owner(slow, "await_")
        return str(caught.value), process.pid

    text, pid = as_process(stranger)
    assert text == f"await_: {slow!r} belongs to {slow.owner!r}, which alone may ask for it, not {pid!r}"
    check_owner(slow, "await_")


def test_what_cannot_be_waited_for_is_named(slow):
    check_waitable([slow], "await_")
    with pytest.raises(TypeError, match="await_ takes tasks, not 7"):
        check_waitable([slow, 7], "await_")
    with pytest.raises(ConfigError, match="one of these is there twice"):
        check_waitable([slow, slow], "await_")
    slow.posted = True
    with pytest.raises(ConfigError, match="its outcome goes to the mailbox"):
        check_waitable([slow], "await_")
    slow.posted, slow.settled = False, True
    with pytest.raises(ConfigError, match="yield_ can wait again until it gives one"):
        check_waitable([slow], "await_")


# A landing.


def test_jobs_land_in_the_order_in_which_they_end(slow, gate):
    landing = Landing(record())
    quick = job_of(int)
    landing.expect(slow)
    landing.expect(quick)
    assert landing.next(None) is quick
    assert list(landing.expected) == [slow]
    gate.set()
    assert landing.next(None) is slow
    assert landing.next(0.0) is None


def test_a_job_that_had_ended_lands_at_once():
    landing = Landing(record())
    job = job_of(int)
    ended(job.pid)
    landing.expect(job)
    assert landing.next(0.0) is job


def test_a_closed_landing_is_told_nothing(slow, gate):
    landing = Landing(record())
    landing.expect(slow)
    landing.close()
    gate.set()
    ended(slow.pid)
    assert list(landing.inbox.mailbox) == []


def test_an_owner_that_is_dying_of_its_job_sees_no_landing():
    seen = []

    def main(owner):
        landing = Landing(owner)
        landing.expect(job_of(fail, "because", links=(owner,)))
        landing.expect(job_of(int))
        seen.append(landing.next(None))

    assert ended(spawn(main)) == "because"
    assert seen == []


def test_a_wait_that_nothing_can_end_names_what_it_waits_for(slow, monkeypatch):
    def nothing_left(_deadline):
        raise LoopExit

    landing = Landing(record())
    landing.expect(slow)
    monkeypatch.setattr(landing, "inbox", type("Inbox", (), {"next": staticmethod(nothing_left)}))
    with pytest.raises(CallExit, match=r"will never answer: this thread has no greenlet") as caught:
        landing.next(None)
    assert caught.value.reason == "deadlock"
    assert repr(slow) in str(caught.value)
    assert isinstance(caught.value.__cause__, LoopExit)


# Waiting.


def test_a_wait_ends_with_all_or_with_one_that_is_enough_or_in_time(slow):
    quick = [job_of(int), job_of(fail, "because")]
    assert wait(quick, None, lambda _: False) is None
    assert [job.outcome for job in quick] == [TaskResult(0), TaskExit("because")]
    assert wait([slow, *quick], None, lambda job: isinstance(job.outcome, TaskExit)) is quick[1]
    assert wait([slow], 2 * MS, bool) is None
    assert slow.landing is None


def test_values_come_in_the_order_of_the_jobs():
    assert values_of([job_of(int, "1"), job_of(int, "2")], PATIENCE, "await_") == [1, 2]


def test_values_that_do_not_come_in_time_are_given_up(slow):
    quick = job_of(int)
    with pytest.raises(TaskTimeout) as caught:
        values_of([quick, slow], 2 * MS, "await_")
    assert str(caught.value) == f"not finished in 0.002 s, and not waited for any more: [{slow!r}]"
    assert quick.settled
    assert slow.settled


def test_the_first_failure_is_all_that_comes(slow):
    bad = job_of(fail, "because")
    with pytest.raises(ServerExit) as caught:
        values_of([slow, bad], None, "await_")
    assert caught.value.reason == "because"
    assert str(caught.value) == f"{bad!r} ended before it returned: 'because'"
    assert slow.settled


def test_outcomes_that_are_not_there_can_be_waited_for_again(slow, gate):
    quick = job_of(int)
    assert outcomes_of([slow, quick], None, 1, "yield_") == [(slow, None), (quick, TaskResult(0))]
    assert outcomes_of([slow], 0, 1, "yield_") == [(slow, None)]
    gate.set()
    assert outcomes_of([slow], None, 1, "yield_") == [(slow, TaskResult(True))]


@pytest.mark.parametrize("ask", [lambda job: values_of([job], -1, "a"), lambda job: outcomes_of([job], -1, 1, "a")])
def test_a_bad_timeout_is_refused_first(slow, ask):
    with pytest.raises(ConfigError, match="timeout is a number of at least 0 or None for ever, not -1"):
        ask(slow)
    assert not slow.settled
