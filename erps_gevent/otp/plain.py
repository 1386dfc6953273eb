"""Records for greenlets that are no processes: the main one of a thread, and those that gevent.spawn made.

They can send, receive and monitor like a process. What they cannot be is linked, because an exit signal would end code
that knows nothing of it; unless they trap exits, when it is a message.
"""

from __future__ import annotations

import weakref
from typing import Any

import gevent
from gevent import getcurrent

from erps_gevent.errors import Exit
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.process import Process, current
from erps_gevent.otp.words import KILLED, NORMAL


class Plain(Process):
    """The record of a greenlet that is no process; it ends when the greenlet has ended."""

    __slots__ = ()

    @property
    def linkable(self) -> bool:
        return self.trap_exit

    def die(self, reason: Any, now: bool = False) -> None:
        """As Process.die. A main greenlet does not die of an exit, so it is thrown once, and a new record begins."""
        main: Any = self.hub.parent
        if self.greenlet is not None or not self.alive or getattr(main, "erps_process", None) is not self:
            super().die(reason, now)
            return
        self.finish(reason)
        if now:
            raise Exit(reason)
        self.hub.loop.run_callback(main.throw, Exit(reason))

    def _gone(self, greenlet: Any) -> None:
        """The greenlet is dead. Runs in the hub."""
        error = greenlet.exception
        if isinstance(error, Exit):
            self.finish(error.reason)
        elif error is not None:
            self.finish(error)
        else:
            self.finish(KILLED if isinstance(greenlet.value, gevent.GreenletExit) else NORMAL)
        self.let_go()


def record() -> Process:
    """The process that is running; a greenlet that is none has a record of its own from its first use on."""
    process = current()
    return process if process is not None else _adopted(getcurrent())


def _adopted(greenlet: Any) -> Process:
    process = Plain(Inbox(), getattr(greenlet, "name", "") or "main")
    if isinstance(greenlet, gevent.Greenlet):
        process.greenlet = greenlet
        greenlet.rawlink(process._gone)
    elif greenlet is not process.hub.parent:
        process.label = "raw greenlet"
        weakref.finalize(greenlet, process.finish, NORMAL).atexit = False
    greenlet.erps_process = process
    return process
