"""The owner's half of jobs: who may wait for one, and waiting for the first, all, or as many as come in time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from time import monotonic
from typing import Any

from gevent.exceptions import LoopExit

from erps_gevent.errors import ConfigError, TaskTimeout
from erps_gevent.otp import behaviour
from erps_gevent.otp.gen import dead_end, exit_error
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.job import Job, TaskExit, TaskResult
from erps_gevent.otp.plain import record
from erps_gevent.otp.process import Process
from erps_gevent.otp.reasons import brief

_check_timeout = behaviour.number(0, none=True)


class Landing:
    """Where an owner waits for its jobs: it takes them in the order in which they end."""

    __slots__ = ("expected", "inbox", "owner")

    def __init__(self, owner: Process) -> None:
        self.owner = owner
        self.inbox = Inbox()
        self.expected: dict[Job[Any], None] = {}

    def expect(self, job: Job[Any]) -> None:
        """Wait for this one too."""
        self.expected[job] = None
        job.landing = self.inbox
        if job.outcome is not None:
            self.inbox.put(job)

    def next(self, deadline: float | None) -> Job[Any] | None:
        """Return the next job that has ended, or None when the deadline has passed. Parks.

        raises: CallExit  in the main greenlet, when nothing is left that could ever end one.
        """
        try:
            job: Job[Any] | None = self.inbox.next(deadline)
            while self.owner.dying:
                # A linked job's crash ends its owner, who learns of it by nothing else. The exit lands here.
                self.inbox.park(None)
        except LoopExit as nothing:
            raise dead_end(next(iter(self.expected))) from nothing
        if job is not None:
            del self.expected[job]
        return job

    def close(self) -> None:
        """Wait no more."""
        for job in self.expected:
            job.landing = None


def check_owner(job: Job[Any], what: str) -> None:
    """raises: ConfigError  the running process is not the owner."""
    caller = record().pid
    if caller is not job.owner:
        raise ConfigError(f"{what}: {job!r} belongs to {job.owner!r}, which alone may ask for it, not {caller!r}")


def check_waitable(jobs: list[Any], what: str) -> None:
    """Check that the running process may take these outcomes. raises: TypeError, ConfigError"""
    for job in jobs:
        if not isinstance(job, Job):
            raise TypeError(f"{what} takes tasks, not {job!r}")
        check_owner(job, what)
        if job.posted:
            raise ConfigError(f"{what}: {job!r} cannot be waited for: its outcome goes to the mailbox")
        if job.settled:
            text = "its outcome was given, or discarded, before; yield_ can wait again until it gives one"
            raise ConfigError(f"{what}: {job!r} cannot be waited for: {text}")
    if len(set(jobs)) != len(jobs):
        raise ConfigError(f"{what}: a task is waited for once, and one of these is there twice: {jobs!r}")


def values_of(jobs: list[Job[Any]], timeout: float | None, what: str) -> list[Any]:
    """What all of them return. raises: as Task.await_many."""
    _check_timeout("timeout", timeout)
    check_waitable(jobs, what)
    failed = wait(jobs, timeout, lambda job: isinstance(job.outcome, TaskExit))
    reason = failed.outcome.reason if failed is not None and isinstance(failed.outcome, TaskExit) else None
    outcomes = [job.take() for job in jobs]
    if failed is not None:
        raise exit_error(reason, None, f"{failed!r} ended before it returned")
    late = [job for job, outcome in zip(jobs, outcomes, strict=True) if outcome is None]
    if late:
        raise TaskTimeout(f"not finished in {timeout} s, and not waited for any more: {brief(late)}")
    return [outcome.value for outcome in outcomes if isinstance(outcome, TaskResult)]


def outcomes_of(jobs: list[Any], timeout: float | None, limit: int, what: str) -> list[tuple[Any, Any]]:
    """Each job with its outcome, or with None: time was up, or `limit` others had ended."""
    _check_timeout("timeout", timeout)
    check_waitable(jobs, what)
    ended = itertools.count(1)
    wait(jobs, timeout, lambda _: next(ended) >= limit)
    return [(job, None if job.outcome is None else job.take()) for job in jobs]


def wait(jobs: list[Job[Any]], timeout: float | None, enough: Callable[[Job[Any]], bool]) -> Job[Any] | None:
    """Wait until all have ended, or one that is `enough`, which is returned, or time is up."""
    deadline = None if timeout is None else monotonic() + timeout
    landing = Landing(record())
    for job in jobs:
        landing.expect(job)
    try:
        while landing.expected:
            landed = landing.next(deadline)
            if landed is None or enough(landed):
                return landed
        return None
    finally:
        landing.close()
