"""What sys has been asked to note of a process: counts, the last events, and each event for somebody to see.

A process that nobody watches has no Watch, and pays nothing for it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from erps_gevent.errors import ErrorReply
from erps_gevent.otp.attempt import attempt
from erps_gevent.otp.messages import Call, Continuing, NoReply, Reply, Stop
from erps_gevent.otp.process import Pid, Process
from erps_gevent.otp.reasons import brief
from erps_gevent.otp.words import ABSENT

logger = logging.getLogger("erps_gevent")

Note: TypeAlias = "tuple[Any, ...]"


class Watch:
    """The notes of one process.

    started:  when statistics was switched on, in seconds since the epoch, or None.
    notes:    the last events, or None.
    tracer:   what is called with the pid and each event, or None.
    """

    __slots__ = ("messages_in", "messages_out", "notes", "started", "tracer")

    def __init__(self) -> None:
        self.started: float | None = None
        self.messages_in = 0
        self.messages_out = 0
        self.notes: deque[Note] | None = None
        self.tracer: Callable[[Pid, Note], object] | None = None

    @property
    def is_idle(self) -> bool:
        return self.started is None and self.notes is None and self.tracer is None

    def deliver(self, loop: Any, event: Any) -> Any:
        """`loop.deliver(event)`, noted."""
        process = loop.process
        self._note(process, ("continue", event.argument) if isinstance(event, Continuing) else ("in", event))
        try:
            given = loop.deliver(event)
        except ErrorReply as refusal:
            if isinstance(event, Call):
                self._note(process, ("out", refusal, event.from_))
            raise
        if isinstance(event, Call) and isinstance(given, Reply):
            self._note(process, ("out", given.value, event.from_))
        elif isinstance(event, Call) and isinstance(given, Stop) and given.reply is not ABSENT:
            self._note(process, ("out", given.reply, event.from_))
        elif given is None or isinstance(given, NoReply):
            self._note(process, ("noreply",))
        return given

    def _note(self, process: Process, note: Note) -> None:
        self.messages_in += note[0] == "in"
        self.messages_out += note[0] == "out"
        if self.notes is not None:
            self.notes.append(note)
        if self.tracer is not None:
            _, failure = attempt(process, self.tracer, process.pid, note)
            if failure is not None:
                self.tracer = None
                logger.error("%r: tracing ends, the function for it failed: %s", process.pid, brief(failure))

    def statistics(self, flag: Any) -> dict[str, Any] | None:
        """Switch on, or off, or return the counts; see sys.statistics."""
        if flag == "get":
            return None if self.started is None else self._counts(self.started)
        if flag and self.started is None:
            self.started = time.time()
            self.messages_in = self.messages_out = 0
        elif not flag:
            self.started = None
        return None

    def _counts(self, started: float) -> dict[str, Any]:
        return {
            "start_time": started,
            "current_time": time.time(),
            "messages_in": self.messages_in,
            "messages_out": self.messages_out,
        }

    def log(self, flag: Any) -> list[Note] | None:
        """Keep as many events as `flag` says, none if it is 0, or return them; see sys.log."""
        if flag == "get":
            return None if self.notes is None else list(self.notes)
        self.notes = deque(self.notes or (), maxlen=flag) if flag else None
        return None

    def trace(self, flag: Any) -> None:
        """Show each event to a function, in the log if it is True, or to nobody; see sys.trace."""
        if isinstance(flag, bool):
            self.tracer = _print if flag else None
        else:
            self.tracer = flag


def _print(pid: Pid, note: Note) -> None:
    kind, *what = note
    if kind == "in":
        client = f" from {what[0].from_!r}" if isinstance(what[0], Call) else ""
        logger.info("%r got %s%s", pid, brief(what[0]), client)
    elif kind == "out":
        logger.info("%r sent %s to %r", pid, brief(what[0]), what[1])
    elif kind == "continue":
        logger.info("%r continues with %s", pid, brief(what[0]))
    else:
        logger.info("%r did not reply", pid)
