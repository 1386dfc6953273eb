"""Which sockets this process has, so that a forked child can let go of its copies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from gevent.hub import Hub
from gevent.monkey import get_original

# The native one: that of monkey.patch_all() waits for the hub to turn, and a child may never run it.
_close: Callable[[int], None] = get_original("os", "close")

_held: WeakSet[Any] = WeakSet()
waits: dict[Any, Hub] = {}  # the watchers with which greenlets wait for one of them, but for those of lines


def hold(sock: Any) -> Any:
    """Note `sock`, plain or gevent's, as one that a forked child has to let go of; returns it."""
    _held.add(sock)
    return sock


def abandon(sock: Any) -> None:
    """Close this process's copy of the descriptor and nothing else: for a forked child, whose parent lives on."""
    # Around gevent's socket, whose close() waits for its hub.
    inner = getattr(sock, "_sock", sock)
    with suppress(OSError):
        fileno = inner.detach()
        if fileno >= 0:
            _close(fileno)


def abandon_all(hub: Hub | None) -> list[Any]:
    """In a forked child: abandon every socket that is held. Returns what is never to be taken apart.

    hub: the one that goes on in the child, after its reinit; None if there is none. A watcher of another hub is not
         touched: in libuv that would stop the parent's.
    """
    watchers = list(waits.items())
    for sock in list(_held):
        # gevent's sockets have theirs.
        own = (getattr(sock, "_read_event", None), getattr(sock, "_write_event", None))
        watchers += [(watcher, sock.hub) for watcher in own if watcher is not None]
    for watcher, its in watchers:
        if its is hub:
            # Now: later it would stop whoever has got the number of its descriptor.
            watcher.stop()
            watcher.close()
    for sock in list(_held):
        abandon(sock)
    waits.clear()
    _held.clear()
    return watchers
