"""From one native thread into the hub of another.

A hub's objects belong to its thread. `run_in` starts a greenlet over there and waits here: natively if this thread has
nothing else to run, or parking only this greenlet if it has a hub of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import gevent
from gevent._hub_local import get_hub_if_exists  # get_hub() would make one in every thread that calls
from gevent.hub import Hub
from gevent.monkey import get_original

T = TypeVar("T")

# The native ones: under monkey.patch_all() the plain names are greenlets' and would wait in the wrong hub.
get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_allocate_lock = get_original("_thread", "allocate_lock")


def is_foreign(hub: Hub) -> bool:
    """True if the running native thread is not the one of `hub`."""
    return bool(hub.thread_ident != get_ident())


class _Job(Generic[T]):
    """One function on its way into another hub, and its outcome on the way back."""

    def __init__(self, function: Callable[..., T], args: tuple[Any, ...], done: Callable[[], Any]) -> None:
        self.function = function
        self.args = args
        self.done = done
        self.greenlet: gevent.Greenlet[..., None] | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.abandoned = False

    def start(self) -> None:
        if not self.abandoned:
            self.greenlet = gevent.spawn(self.run)

    def run(self) -> None:
        try:
            self.value = self.function(*self.args)
        except BaseException as error:  # noqa: BLE001  it is raised again where the caller waits
            self.error = error
        finally:
            self.done()

    def abandon(self) -> None:
        self.abandoned = True
        if self.greenlet is not None:
            self.greenlet.kill(block=False)


def run_in(hub: Hub, function: Callable[..., T], *args: Any) -> T:
    """Run `function(*args)` in a greenlet of `hub`, which another thread runs, and return what it returns.

    raises: whatever the function raises.
    switch: parks this greenlet if its thread has a hub, so that the other greenlets run; else the thread. An interrupt here
            (KeyboardInterrupt, kill, gevent.Timeout) kills the greenlet over there.
    """
    mine = get_hub_if_exists()
    if mine is None:
        lock = _allocate_lock()
        lock.acquire()
        return _wait(hub, _Job(function, args, lock.release), lock.acquire)
    watcher = mine.loop.async_()
    try:
        return _wait(hub, _Job(function, args, watcher.send), lambda: mine.wait(watcher))
    finally:
        watcher.close()


def _wait(hub: Hub, job: _Job[T], wait: Callable[[], Any]) -> T:
    hub.loop.run_callback_threadsafe(job.start)
    try:
        wait()
    except BaseException:
        hub.loop.run_callback_threadsafe(job.abandon)
        raise
    if job.error is not None:
        raise job.error
    return cast(T, job.value)
