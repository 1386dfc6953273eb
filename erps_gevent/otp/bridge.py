"""From one native thread into the hub of another.

A hub's objects belong to its thread. `run_in` starts a greenlet over there and waits here: natively if this thread has
no hub, or parking only this greenlet if it has one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar, cast

import gevent
from gevent._hub_local import get_hub_if_exists  # get_hub() would make one in every thread that calls
from gevent.hub import Hub, Waiter
from gevent.monkey import get_original

from erps_gevent.errors import CallExit, CallTimeout, NoProc
from erps_gevent.otp.waiting import answer
from erps_gevent.otp.words import NOPROC

T = TypeVar("T")

# The native ones: under monkey.patch_all() the plain names are greenlets' and would wait in the wrong hub.
get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_allocate_lock = get_original("_thread", "allocate_lock")

LOOK_EVERY = 0.5  # seconds between looks whether the other thread lives, of who waits for ever
FORKED = "forked"  # the reason of what a fork has ended in the child

_away: dict[_Job[Any], tuple[Hub, _Greenlet]] = {}  # what greenlets wait for that other threads do

GRACE = 0.05  # seconds beyond the patience, in which the function over there says itself that its time is up


def is_foreign(hub: Hub) -> bool:
    """True if the running native thread is not the one of `hub`."""
    return bool(hub.thread_ident != get_ident())


def hand_over(hub: Hub, function: Callable[..., object], *args: Any) -> None:
    """Have `hub`, which another thread runs, call `function(*args)` soon, and do not wait.

    function: must not park. Nothing calls it if the thread of that hub has ended.
    """
    if not hub.dead:
        hub.loop.run_callback_threadsafe(function, *args)


def run_in(hub: Hub, function: Callable[..., T], *args: Any, patience: float | None = None) -> T:
    """Run `function(*args)` in a greenlet of `hub`, which another thread runs, and return what it returns.

    patience: seconds, for a function that gives up by itself after as many: the time covers a hub that does not turn.
    raises:   whatever the function raises.
              NoProc       the thread of that hub has ended, before or meanwhile; `.sent` tells which.
              CallTimeout  that hub has not turned for as long as the patience; `.sent` False: nothing was begun.
    switch:   parks this greenlet if its thread has a hub, so that the other greenlets run; else the thread. An
              interrupt here (KeyboardInterrupt, kill, gevent.Timeout) kills the greenlet over there.
    """
    if hub.dead:
        raise NoProc("the thread that this process belonged to has ended", reason=NOPROC)
    mine = get_hub_if_exists()
    place = _Thread() if mine is None else _Greenlet(mine)
    job = _Job(function, args, place.wake)
    hub.loop.run_callback_threadsafe(job.start)
    if isinstance(place, _Greenlet):
        _away[job] = hub, place
    try:
        # It parks once in any case, so that the greenlets of this thread have their turn.
        place.wait(LOOK_EVERY if patience is None else patience + GRACE)
        # Nobody tells when a thread ends, and whoever waits for ever would.
        while patience is None and not job.done and not hub.dead:
            place.wait(LOOK_EVERY)
    except BaseException:
        hand_over(hub, job.abandon)
        raise
    finally:
        _away.pop(job, None)
    if not job.done:
        raise _given_up(hub, job, patience)
    return job.outcome()


def after_fork() -> None:
    """In a forked child: the threads are gone that this thread's greenlets wait for, and nothing else would say so."""
    away = list(_away.items())
    _away.clear()
    for job, (hub, place) in away:
        if is_foreign(hub) and not job.done and not is_foreign(place.waiter.hub):
            text = "this process was forked meanwhile, and the thread that the process belonged to is the parent's"
            job.error = NoProc(text, reason=FORKED, sent=True)
            job.done = True
            place.waiter.hub.loop.run_callback(place.waiter.switch, None)


def _given_up(hub: Hub, job: _Job[Any], patience: float | None) -> CallExit:
    begun = job.greenlet is not None
    if hub.dead:
        return NoProc("the thread that this process belonged to has ended meanwhile", reason=NOPROC, sent=begun)
    hand_over(hub, job.abandon)
    text = f"the thread that this process belongs to has not run its hub for {patience} s; something blocks it"
    if begun:
        text = f"what was begun in the thread of this process has not ended in {patience} s"
    return CallTimeout(text, reason="timeout", sent=begun)


class _Job(Generic[T]):
    """One function on its way into another hub, and its outcome on the way back."""

    def __init__(self, function: Callable[..., T], args: tuple[Any, ...], wake: Callable[[], object]) -> None:
        self.function = function
        self.args = args
        self.wake = wake
        self.greenlet: gevent.Greenlet[..., None] | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.done = False
        self.abandoned = False

    def start(self) -> None:
        if not self.abandoned:
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
        self.abandoned = True
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


class _Greenlet:
    """A greenlet parks in the hub of its thread."""

    def __init__(self, hub: Hub) -> None:
        self.waiter: Waiter[Any] = Waiter(hub)
        self.wake: Callable[[], object] = partial(hub.loop.run_callback_threadsafe, self.waiter.switch, None)

    def wait(self, seconds: float | None) -> None:
        # The hub does not know that another thread will wake it, and with nothing else to do would end with LoopExit.
        forever = self.waiter.hub.loop.async_()
        forever.start(_nothing)
        try:
            answer(self.waiter, seconds)
        finally:
            forever.close()


def _nothing() -> None:
    """What the watcher that never fires would call."""
