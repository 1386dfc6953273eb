"""What a fork leaves in the child, and how it is let go of.

    os.fork ──▶ child: reinit this thread's hub ──▶ after_fork() of every holder ──▶ close every inherited socket

The child gets a copy of everything, but of one thread only. The sockets are the parent's as well: whatever the child
says on them, or takes from them, the parent loses. So it says nothing and closes its descriptors. Nothing else runs
meanwhile, and nothing here parks.

Why the hub goes first: parent and child share one epoll set. libev asks at each turn whether it was forked, and makes a
set of its own; libuv does not ask. A libuv watcher that is stopped in the child is taken out of the set of the PARENT,
whose line goes deaf, and one whose descriptor was closed makes uv_run abort. After the reinit both loops have a set of
their own. gevent.os.fork does it again, which is harmless.

The hubs of other threads have no thread any more and cannot be given a set of their own. Nothing of theirs is touched:
not stopped, not closed and not collected, for a finalizer would stop it. `bury` keeps such things for ever.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet

from gevent._hub_local import get_hub_if_exists  # get_hub() would make one in every child
from gevent.hub import Hub, reinit
from gevent.monkey import get_original

from erps_gevent.otp import bridge
from erps_gevent.transport import held, memory


class Holder(Protocol):
    """Who holds a line, or what makes one."""

    def after_fork(self) -> None:
        """In the child: let go of what is the parent's. Must not park, log, or run the user's code."""


FORKED_TEXT = "this process was forked, and the line is the parent's; the request was the parent's too"

_holders: WeakSet[Holder] = WeakSet()
_functions: list[Callable[[], object]] = []
_graves: list[Any] = []
_pid = _settled = os.getpid()
_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of Linux 4.14, which the module mmap has no name for
# For who comes back to it meanwhile, by a finalizer, it is open.
_noticing = get_original("_thread", "RLock")()


def _wiped_page() -> Any:
    """A page whose first byte is 1 here, and which the kernel clears in a forked child; or b"\\0" if it cannot."""
    if not sys.platform.startswith("linux"):
        return b"\0"
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except Exception:  # noqa: BLE001  an older kernel, or an imitation of one: then the process id has to be asked for
        return b"\0"
    page[0] = 1
    return page


_unforked = _wiped_page()


def watch(holder: Holder) -> None:
    """Have `holder.after_fork()` called in every forked child, for as long as the holder exists."""
    _holders.add(holder)


def in_child(function: Callable[[], object]) -> None:
    """Have `function()` called in every forked child, before the holders."""
    _functions.append(function)


def bury(*things: Any) -> None:
    """Keep these for ever, beyond the end of the interpreter: what would take them apart reaches into the parent."""
    if not _graves and hasattr(ctypes, "pythonapi"):
        # A module's variables die with the interpreter, and would throw GreenletExit into every greenlet in here.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_graves))
    _graves.append(things)


def is_lost(hub: Hub | None) -> bool:
    """In the child: True if the thread of `hub` was left behind in the parent."""
    return hub is not None and bridge.is_foreign(hub)


def check() -> None:
    """Notice a fork that Python was not told of, as a host written in C may do it: uWSGI does.

    For whatever begins to use a client, each call too. Where the kernel marks the child it costs no system call.
    """
    if not _unforked[0] and os.getpid() != _settled:
        # Several threads of a child that nobody told may come here at once: all wait until one has let go.
        with _noticing:
            after_fork()


def after_fork() -> None:
    """Let go of everything that is the parent's. Python calls it in the child; a second time does nothing."""
    global _pid, _settled
    if _pid == os.getpid():
        return
    _pid = os.getpid()
    hub = get_hub_if_exists()
    try:
        if hub is not None:
            reinit(hub)
        memory.after_fork()
        for function in _functions:
            function()
        for holder in list(_holders):
            holder.after_fork()
        bridge.after_fork()
    finally:
        # Whatever happens: no byte of the parent's.
        bury(*held.abandon_all(hub))
        _settled = _pid
        if not isinstance(_unforked, bytes):
            _unforked[0] = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
