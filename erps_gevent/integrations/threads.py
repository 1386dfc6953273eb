"""The hub thread: one native thread per Python process that runs a gevent hub for clients of unpatched programs."""

from __future__ import annotations

import os
from typing import Any

from gevent.event import Event
from gevent.hub import Hub, get_hub
from gevent.monkey import get_original

# The native ones, also under monkey.patch_all(): this thread is to be a thread.
_start_thread = get_original("_thread", "start_new_thread")
_allocate_lock = get_original("_thread", "allocate_lock")

_lock = _allocate_lock()
_hub: Hub | None = None
_owner = 0


def hub_thread() -> Hub:
    """The hub of this process's hub thread, which is started at the first use. Waits natively while it starts."""
    global _hub, _owner
    with _lock:
        if _hub is None or _owner != os.getpid():
            started = _allocate_lock()
            started.acquire()
            found: list[Hub] = []
            _start_thread(_run, (found, started))
            started.acquire()
            _hub, _owner = found[0], os.getpid()
        return _hub


def _run(found: list[Hub], started: Any) -> None:
    hub = get_hub()
    hub.name = "erps_gevent"
    # A watcher that never fires keeps the loop from ending when no client has anything to wait for.
    forever = hub.loop.async_()
    forever.start(_nothing)
    found.append(hub)
    started.release()
    Event().wait()


def _nothing() -> None:
    """What the watcher that never fires would call."""
