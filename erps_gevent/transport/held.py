"""Which sockets this process has, so that a forked child can let go of its copies."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any
from weakref import WeakSet

_held: WeakSet[Any] = WeakSet()
waits: set[Any] = set()  # the watchers with which somebody waits for one of them, but for those of lines


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
            os.close(fileno)


def abandon_all(loop: Any) -> list[Any]:
    """In a forked child: abandon every socket that is held. Returns what is never to be taken apart.

    loop: the one that goes on in the child, after its reinit; None if there is none. A watcher of another loop is not
          touched: in libuv that would stop the parent's.
    """
    for watcher in list(waits):
        if watcher.loop is loop:
            # Now: later it would stop whoever has got the number of its descriptor.
            watcher.stop()
            watcher.close()
    buried = [*waits]
    for sock in list(_held):
        for watcher in (getattr(sock, "_read_event", None), getattr(sock, "_write_event", None)):
            if watcher is not None and watcher.loop is loop:
                watcher.close()
            buried.append(watcher)
        abandon(sock)
    waits.clear()
    _held.clear()
    return buried
