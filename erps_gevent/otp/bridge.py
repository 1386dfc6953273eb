"""From one native thread into the hub of another.

A hub's objects belong to its thread. `run_in` starts a greenlet over there and waits here: natively if this thread has
no hub, or parking only this greenlet if it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import gevent
from gevent._hub_local import get_hub_if_exists  # get_hub() would make one in every thread that calls
from gevent.hub import MAIN_THREAD_IDENT, Hub, Waiter  # type: ignore[attr-defined]
from gevent.monkey import get_original

from erps_gevent.errors import CallExit, CallTimeout, NoProc
from erps_gevent.otp.waiting import answer
from erps_gevent.otp.words import NOPROC

T = TypeVar("T")

# The native ones: under monkey.patch_all() the plain names are greenlets' and would wait in the wrong hub.
get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_allocate_lock = get_original("_thread", "allocate_lock")

standing_still: list[Hub] = []  # those of threads that were stopped for the end of the program

LOOK_EVERY = 0.5  # seconds between looks whether the other thread lives, of who waits for ever
FORKED = "forked"  # the reason of what a fork has ended in the child

_away: dict[Job[Any], tuple[Hub, _Greenlet]] = {}  # what greenlets wait for that other threads do

GRACE = 0.05  # seconds beyond the patience, in which the function over there says itself that its time is up


def is_foreign(hub: Hub) -> bool:
    """True if `hub` is not the one of the running native thread."""
    # Not by the threads' idents: a new thread is given that of one that has ended.
    return get_hub_if_exists() is not hub


def hand_over(hub: Hub, function: Callable[..., object], *args: Any) -> None:
    """Have `hub`, which another thread runs, call `function(*args)` soon, and do not wait.

    function: must not park. Nothing calls it if the thread of that hub has ended.
    """
    if not hub.dead:
        hub.loop.run_callback_threadsafe(function, *args)


def run_in(hub: Hub, function: Callable[..., T], *args: Any, patience: float | None = None) -> T:
    """Run `function(*args)` in a greenlet of `hub`, which another thread runs, and return what it returns.

    patience, raises, switch: as for `run_job`; an interrupt kills the greenlet over there.
    """
    return run_job(hub, Job(function, args), patience)


def run_job(hub: Hub, job: Job[T], patience: float | None) -> T:
    """Have `job` started in `hub`, which another thread runs, and return its outcome.

    patience: seconds, for a job that gives up by itself after as many: the time covers a hub that does not turn.
    raises:   the error of the job.
              NoProc       the thread of that hub has ended, before or meanwhile; `.sent` tells which.
              CallTimeout  that hub has not turned for as long as the patience; `.sent` False: nothing was begun.
    switch:   parks this greenlet if its thread has a hub, so that the other greenlets run; else the thread. An
              interrupt here (KeyboardInterrupt, kill, gevent.Timeout) abandons the job over there.
    """
    if hub.dead:
        raise NoProc("the thread that this process belonged to has ended", reason=NOPROC)
    if hub in standing_still and get_ident() == MAIN_THREAD_IDENT:
        # Other threads are daemons by now, and are frozen any moment: to fail would only make them print that.
        text = "the program ends, and its hub thread has; register atexit handlers after the import of erps_gevent"
        raise NoProc(text, reason=NOPROC)
    mine = get_hub_if_exists()
    place = _Thread() if mine is None else _Greenlet(mine)
    job.wake = place.wake
    if isinstance(place, _Greenlet):
        _away[job] = hub, place
    try:
        hub.loop.run_callback_threadsafe(job.begin)
        # It parks once in any case, so that the greenlets of this thread have their turn.
        place.wait(LOOK_EVERY if patience is None else patience + GRACE)
        # Nobody tells when a thread ends, and whoever waits for ever would.
        while patience is None and not job.done and not hub.dead:
            place.wait(LOOK_EVERY)
    except BaseException:
        if not job.claim():
            hand_over(hub, job.abandon)
        raise
    finally:
        _away.pop(job, None)
        place.end()
    if not job.done:
        raise _given_up(hub, job, patience)
    return job.outcome()


def after_fork() -> None:
    """In a forked child: the threads are gone that this thread's greenlets wait for, and nothing else would say so."""
    standing_still.clear()
    away = list(_away.items())
    _away.clear()
    for job, (hub, place) in away:
        if is_foreign(hub) and not job.done and not is_foreign(place.waiter.hub):
            text = "this process was forked meanwhile, and the thread that the process belonged to is the parent's"
            job.error = NoProc(text, reason=FORKED, sent=True)
            job.done = True
            place.waiter.hub.loop.run_callback(place.waiter.switch, None)


def _given_up(hub: Hub, job: Job[Any], patience: float | None) -> CallExit:
    begun = not job.claim()
    if hub.dead:
        return NoProc("the thread that this process belonged to has ended meanwhile", reason=NOPROC, sent=begun)
    text = f"the thread that this process belongs to has not run its hub for {patience} s; something blocks it"
    if begun:
        hand_over(hub, job.abandon)
        text = f"what was begun in the thread of this process has not ended in {patience} s"
    return CallTimeout(text, reason="timeout", sent=begun)


class Job(Generic[T]):
    """One function on its way into another hub, and its outcome on the way back.

    wake: called once it is done; whoever waits for it sets it.
    """

    wake: Callable[[], object]

    def __init__(self, function: Callable[..., T], args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args
        self.greenlet: gevent.Greenlet[..., None] | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = False
        self._unclaimed = [True]

    def claim(self) -> bool:
        """True once: for the hub that begins it, or for the thread that gives it up before that."""
        try:
            # Two threads may come at once, and this is one step.
            return self._unclaimed.pop()
        except IndexError:
            return False

    def begin(self) -> None:
        """Called in the hub."""
        if self.claim():
            self.start()

    def start(self) -> None:
        """Begin it. May not park."""
        self.greenlet = gevent.spawn(self.run)

    def run(self) -> None:
        try:
            self.value = self.function(*self.args)
        except KeyboardInterrupt:
            self.error = CallExit("interrupted by Ctrl-C in the thread of the process", reason="interrupted", sent=True)
            raise  # It landed in this greenlet by chance, and is meant for the program.
        except BaseException as error:  # noqa: BLE001  it is raised again where the caller waits
            self.error = error
        finally:
            self.done = True
            self.wake()

    def abandon(self) -> None:
        """Called in the hub, after it was begun: nobody waits for it any more."""
        if self.greenlet is not None:
            self.greenlet.kill(block=False)

    def outcome(self) -> T:
        if self.error is None:
            return cast(T, self.value)
        try:
            raise self.error
        finally:
            # Its traceback has this frame, which would hold it in a cycle.
            self.error = None


class _Thread:
    """A thread without a hub waits natively."""

    def __init__(self) -> None:
        self.lock = _allocate_lock()
        self.lock.acquire()
        self.wake: Callable[[], object] = self.lock.release

    def wait(self, seconds: float | None) -> None:
        self.lock.acquire(True, -1 if seconds is None else seconds)

    def end(self) -> None:
        """Nobody waits here any more."""


class _Greenlet:
    """A greenlet parks in the hub of its thread."""

    def __init__(self, hub: Hub) -> None:
        self.waiter: Waiter[Any] = Waiter(hub)
        # It also keeps a hub with nothing else to do from ending with LoopExit. Not by run_callback_threadsafe: under
        # load hubs that were woken by it did end so, with an active watcher; its count of references seems to race.
        self.signal: Any = hub.loop.async_()
        # From now on: what is sent to a watcher that has not been started is lost.
        self.signal.start(self.waiter.switch, None)
        self.over = False

    def wake(self) -> None:
        if not self.over:
            self.signal.send()

    def wait(self, seconds: float | None) -> None:
        answer(self.waiter, seconds)

    def end(self) -> None:
        """Nobody waits here any more. libuv crashes when a thread ends and a watcher in its loop is not closed."""
        self.over = True
        self.signal.close()
