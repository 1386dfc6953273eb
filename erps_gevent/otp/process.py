"""Processes: a mailbox, links, monitors and exit signals around one greenlet.

A process is a record of our own. Its greenlet can be killed only once by gevent, and an `except BaseException` in user
code swallows that; so signals queue in the record and are thrown again until the process is dead:

    exit_(pid, reason) ──▶ Process.signal ──▶ trapping?  ── yes ─▶ ExitSignal in the mailbox
                                                 │ no
                                                 ▼
                           Process.die ──▶ thrown into the greenlet, at its next switch ──▶ Process.run ends
                                                 ▲                                              │
                                                 └── still alive after RETHROW seconds ◀────────┘ names, links, monitors

Rules 6 to 8 and 17 of OTP as measured on the BEAM; where gevent cannot follow, the docstring says so.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gevent
from gevent import getcurrent

from erps_gevent.errors import AlreadyStarted, ConfigError, Exit, NoProc
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.reasons import KILL, KILLED, NOPROC, NORMAL

logger = logging.getLogger("erps_gevent")

RETHROW = 0.5  # seconds. Time enough for a `finally:` that tidies up; a swallowed exit is thrown again after it.


@dataclass(frozen=True)
class ExitSignal:
    """What a trapping process finds in its mailbox when a linked process ends, or when `exit_` was called on it."""

    pid: Pid
    reason: Any


@dataclass(frozen=True)
class Down:
    """What a monitoring process finds in its mailbox when the monitored one has ended; once per monitor."""

    ref: int
    pid: Pid | str | None
    reason: Any


class Gateway(Protocol):
    """What a pid passes `call` and `cast` on to: the mailbox of a gen_server, or the line of a client."""

    def call(self, request: Any, timeout: float | None = 5.0) -> Any: ...
    def cast(self, request: Any) -> None: ...


class Pid:
    """The address of a process. Opaque, hashable, printable; valid, and harmless, after the process is dead."""

    __slots__ = ("__weakref__", "process", "serial")
    _serials = itertools.count(1)

    def __init__(self, process: Process) -> None:
        self.process = process
        self.serial = next(self._serials)

    def __repr__(self) -> str:
        label = f" {self.process.label}" if self.process.label else ""
        return f"<Pid {self.serial}{label}>"

    def call(self, request: Any, timeout: float | None = 5.0) -> Any:
        """`erps_gevent.call(self, request, timeout)`."""
        if self.process.gateway is None:
            raise NoProc(f"{self!r} takes no calls: it is not a gen_server", reason=NOPROC, request=request)
        return self.process.gateway.call(request, timeout)

    def cast(self, request: Any) -> None:
        """`erps_gevent.cast(self, request)`."""
        if self.process.gateway is not None:
            self.process.gateway.cast(request)

    def send(self, message: Any) -> None:
        """Put `message` into the process's mailbox; a dead process drops it."""
        self.process.send(message)

    def is_alive(self) -> bool:
        return self.process.alive


class Process:
    """The record of one process. Others hold its `Pid`.

    inbox:   where it takes its events from.
    label:   a word for people, shown in the pid and the log.
    parent:  the process that started it with a link, if any.
    """

    __slots__ = (
        "alive",
        "ending",
        "gateway",
        "greenlet",
        "hub",
        "inbox",
        "label",
        "links",
        "monitors",
        "name",
        "parent",
        "pid",
        "reason",
        "rethrow",
        "throws",
        "trap_exit",
    )

    def __init__(self, inbox: Inbox, label: str = "", parent: Process | None = None) -> None:
        self.inbox = inbox
        self.hub = inbox.hub
        self.label = label
        self.parent = parent
        self.pid = Pid(self)
        self.name: str | None = None
        self.alive = True
        self.trap_exit = False
        self.ending: Any = None  # the reason of an exit that is on its way into the greenlet
        self.reason: Any = None  # the reason it ended with
        self.throws = 0
        self.rethrow: Any = None  # the timer that throws it again
        self.links: set[Process] = set()
        self.monitors: dict[int, Callable[[Any], object]] = {}
        self.gateway: Gateway | None = None
        self.greenlet: gevent.Greenlet[..., None] | None = None

    def spawn(self, main: Callable[[], None]) -> None:
        """Run `main` as this process. What it raises is the exit reason; returning is NORMAL."""
        self.greenlet = gevent.Greenlet(self._run, main)
        self.greenlet.erps_process = self  # type: ignore[attr-defined]
        self.greenlet.name = repr(self.pid)
        self.greenlet.start()

    def _run(self, main: Callable[[], None]) -> None:
        reason: Any = NORMAL
        try:
            if self.ending is None:
                main()
        except Exit as exit_:
            reason = exit_.reason
        except gevent.GreenletExit:
            reason = KILLED
        except KeyboardInterrupt as interrupt:
            reason = interrupt
            raise  # Ctrl-C lands in whichever greenlet is running, and is meant for the program.
        except BaseException as error:  # noqa: BLE001  sys.exit() in a handler ends the process, not the program
            reason = error
        finally:
            self.finish(reason if self.ending is None else self.ending)

    def finish(self, reason: Any) -> None:
        """The process is dead: free its name, tell its links and monitors. Idempotent."""
        if not self.alive:
            return
        # atomic: nobody may see a dead process that still has its name or an unanswered monitor.
        self.alive = False
        self.reason = reason
        if self.name is not None:
            _names.pop(self.name, None)
        monitors, self.monitors = self.monitors, {}
        links, self.links = self.links, set()
        for down in monitors.values():
            down(reason)
        for linked in links:
            linked.links.discard(self)
            linked.signal(self.pid, reason)
        if self.rethrow is not None:
            self.rethrow.close()
        self.inbox.close()

    def send(self, message: Any) -> None:
        if self.alive:
            self.inbox.put(message)

    def signal(self, sender: Pid, reason: Any, *, untrappable: bool = False) -> None:
        """An exit signal arrives: rules 7 of OTP. `untrappable` is `exit_(pid, KILL)`."""
        if not self.alive:
            return
        if untrappable:
            self.die(KILLED)
        elif self.trap_exit:
            self.inbox.put(ExitSignal(sender, reason))
        elif reason is not NORMAL or sender is self.pid:
            self.die(reason)

    def die(self, reason: Any) -> None:
        """End the process with `reason` at its next switch. The first reason stands, but KILLED overrides it."""
        if not self.alive or (self.ending is not None and reason is not KILLED):
            return
        self.ending = reason
        if self.greenlet is None:
            self.finish(reason)
        elif self.greenlet is getcurrent():
            raise Exit(reason)
        else:
            self.hub.loop.run_callback(self._throw)

    def _throw(self) -> None:
        if not self.alive or self.greenlet is None:
            return
        self.throws += 1
        if self.throws > 1:
            gevent.spawn(logger.warning, "%r swallowed its exit %r; thrown again", self.pid, self.ending)
            self.rethrow.close()
        self.rethrow = self.hub.loop.timer(RETHROW)
        self.rethrow.start(self._throw)
        self.greenlet.throw(Exit(self.ending))

    def link(self, other: Process) -> None:
        """Link both ways; idempotent; linking to oneself does nothing."""
        if other is self:
            return
        if not other.alive:
            self.signal(other.pid, NOPROC)
            return
        self.links.add(other)
        other.links.add(self)

    def unlink(self, other: Process) -> None:
        self.links.discard(other)
        other.links.discard(self)

    def monitor(self, down: Callable[[Any], object]) -> int:
        """Have `down(reason)` called once when this process ends; at once, with NOPROC, if it already has.

        down: runs in the ending process's greenlet; it must not park.
        """
        ref = next(_refs)
        if self.alive:
            self.monitors[ref] = down
        else:
            down(NOPROC)
        return ref

    def demonitor(self, ref: int) -> None:
        self.monitors.pop(ref, None)

    def register(self, name: str) -> None:
        """Give this process a local name, unique in this Python process.

        raises: AlreadyStarted  a living process has the name.
                ConfigError     it is no name.
        """
        check_name(name)
        holder = _names.get(name)
        if holder is not None:
            raise AlreadyStarted(f"the name {name!r} belongs to {holder.pid!r}", pid=holder.pid)
        _names[name] = self
        self.name = name


_refs = itertools.count(1)
_names: dict[str, Process] = {}


def check_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"a process name is a non-empty str, not {name!r}")
    return name


def whereis(name: str) -> Pid | None:
    """The pid of the living process with this local name, or None."""
    process = _names.get(check_name(name))
    return process.pid if process else None


def current() -> Process | None:
    """The process that is running now; None in a greenlet that is no process."""
    return getattr(getcurrent(), "erps_process", None)


def exit_(pid: Pid, reason: Any) -> None:
    """Send `pid` an exit signal, as `Process.exit/2`. KILL cannot be trapped.

    switch: does not park; the signal lands at the target's next switch. A loop that computes is not interrupted.
    """
    sender = current()
    pid.process.signal(sender.pid if sender else pid, reason, untrappable=reason is KILL)
