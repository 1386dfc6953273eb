"""The hub thread: one native thread per Python process that runs a gevent hub for clients of unpatched programs."""

from __future__ import annotations

import atexit
from typing import Any

from gevent.event import Event
from gevent.exceptions import LoopExit
from gevent.hub import Hub, get_hub
from gevent.monkey import get_original

from erps_gevent.errors import StartError
from erps_gevent.integrations import forks
from erps_gevent.otp import bridge

# The native ones, also under monkey.patch_all(): this thread is to be a thread.
_start_thread = get_original("_thread", "start_new_thread")
_allocate_lock = get_original("_thread", "allocate_lock")

EXIT_PATIENCE = 1.0  # seconds that the end of the program waits for the thread to stand still

_lock = _allocate_lock()
_hub: Hub | None = None
_running: list[tuple[Hub, Any]] = []  # each hub thread's hub, and a lock that it holds until it stands still
_for_ever = _allocate_lock()
_for_ever.acquire()


def hub_thread() -> Hub:
    """The hub of this process's hub thread, which is started at the first use. Waits natively while it starts.

    raises: StartError  there are no threads or descriptors left to start it; the cause is chained. It is tried again
                        at the next use.
    """
    global _hub
    with _lock:
        if _hub is None:
            _hub = _started()
        return _hub


def _started() -> Hub:
    ready = _allocate_lock()
    ready.acquire()
    found: list[Hub | Exception] = []
    try:
        _start_thread(_run, (found, ready))
        ready.acquire()
        if isinstance(found[0], Exception):
            raise found[0]
    except Exception as exc:
        raise StartError(f"the hub thread cannot start: {exc}", reason="hub_thread") from exc
    return found[0]


def _run(found: list[Hub | Exception], ready: Any) -> None:
    try:
        hub = get_hub()
        hub.name = "erps_gevent"
        # A watcher that never fires keeps the loop from ending when no client has anything to wait for.
        forever = hub.loop.async_()
        forever.start(_nothing)
        moving = _allocate_lock()
        moving.acquire()
        _running.append((hub, moving))
        found.append(hub)
    except Exception as error:  # noqa: BLE001  it is raised where the hub was asked for
        found.append(error)
        return
    finally:
        ready.release()
    watchers = [forever]
    while True:
        try:
            Event().wait()
        except SystemExit:
            # From a greenlet in here: it ends neither the program nor the lines of others. gevent has printed it.
            continue
        except LoopExit:
            # Seen under load, although `forever` is active: what other threads post seems to upset the loop's count.
            forever = hub.loop.async_()
            forever.start(_nothing)
            watchers.append(forever)


def _end() -> None:
    """At the program's end: an interpreter that goes away under gevent's C code, or beside it, crashes.

    So the thread is not ended, which takes its hub apart meanwhile, but stands still outside of Python. Handlers that
    were registered after this module's, which is imported with the package, have run by now and had their hub.
    """
    for hub, moving in _running:
        bridge.standing_still.append(hub)
        hub.loop.run_callback_threadsafe(_stand_still, moving)
    for _, moving in _running:
        moving.acquire(timeout=EXIT_PATIENCE)


def _stand_still(moving: Any) -> None:
    moving.release()
    _for_ever.acquire()


atexit.register(_end)


def _nothing() -> None:
    """What the watcher that never fires would call."""


def _after_fork() -> None:
    """Only the forking thread lives on in a child: this one is gone, and the lock may have been held."""
    global _hub, _lock
    _lock = _allocate_lock()
    _running.clear()
    if _hub is not None:
        forks.bury(_hub)
        _hub = None


forks.in_child(_after_fork)
