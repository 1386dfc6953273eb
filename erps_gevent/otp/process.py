"""Processes: a mailbox, links, monitors and exit signals around one greenlet.

A process is a record of our own; its greenlet only runs it. Signals arrive at the record:

    exit_(pid, reason) ──▶ Process.signal ──▶ trapping?  ── yes ─▶ ExitSignal in the mailbox
                                                 │ no
                                                 ▼
                           Process.die ──▶ thrown into the greenlet, at its next switch ──▶ Process.finish
                                                 ▲                                      │          name, monitors, links
                                                 └── still alive after RETHROW seconds ─┘

Rules 6 to 8 and 17 of OTP as measured on the BEAM; where gevent cannot follow, the docstring says so.
"""

from __future__ import annotations

import itertools
import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent import getcurrent
from gevent.hub import Waiter

from erps_gevent.errors import ConfigError, Exit, NoProc
from erps_gevent.otp import bridge, names
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.messages import Gateway, Info
from erps_gevent.otp.thrower import Thrower
from erps_gevent.otp.waiting import answer
from erps_gevent.otp.words import KILLED, NOPROC, NORMAL

logger = logging.getLogger("erps_gevent")


@dataclass(frozen=True)
class ExitSignal:
    """What a trapping process finds in its mailbox when a linked process ends, or when `exit_` was called on it.

    pid:   who ended or called; None if that was a greenlet that is no process.
    ended: True if it had ended; False if it called `exit_`, and may live.
    """

    pid: Pid | None
    reason: Any
    ended: bool = field(default=False, compare=False, repr=False)


@dataclass(frozen=True)
class Down:
    """What a monitoring process finds in its mailbox when the monitored one has ended; once per monitor.

    pid: who ended, as it was named to `monitor`.
    """

    ref: int
    pid: Pid | str | names.Via
    reason: Any


class Pid:
    """The address of a process. Opaque, hashable, printable; valid, and harmless, after the process is dead.

    It belongs to this Python process: it cannot be pickled, and an error that carries one arrives with its text.
    """

    __slots__ = ("__weakref__", "process", "serial")
    _serials = itertools.count(1)

    def __init__(self, process: Process) -> None:
        self.process = process
        self.serial = next(self._serials)

    def __repr__(self) -> str:
        label = f" {self.process.label}" if self.process.label else ""
        return f"<Pid {self.serial}{label}>"

    def __copy__(self) -> Pid:
        return self

    def __deepcopy__(self, _memo: object) -> Pid:
        return self

    def __reduce__(self) -> str:
        raise TypeError(f"{self!r} means nothing outside of its Python process; send a name instead")

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
        """Put `message` into the process's mailbox, from any thread; a dead process drops it."""
        self.process.send(Info(None) if message is None else message)

    def is_alive(self) -> bool:
        """Whether the process has not ended, nor the thread that it belonged to."""
        return self.process.alive and not self.process.hub.dead


class Process:
    """The record of one process. Others hold its `Pid`.

    inbox:   where it takes its events from.
    label:   a word for people, shown in the pid and the log.
    parent:  the process that started it with a link, if any.

    callers:    who asked for it, the nearest first, where that is passed on: `$callers`. See otp/universe.py.
    monitors:   by reference, what to call when it ends; `monitoring` has the processes that it watches itself.

    It belongs to the hub of its inbox. `send` and `signal` may be used from any thread, the rest from that hub's only.
    """

    __slots__ = (
        *("alive", "callers", "gateway", "greenlet", "hibernating", "hub", "inbox", "label", "links", "monitoring"),
        *("monitors", "name", "parent", "pid", "reason", "thrower", "trap_exit"),
    )

    def __init__(self, inbox: Inbox, label: str = "", parent: Process | None = None) -> None:
        self.inbox = inbox
        self.hub = inbox.hub
        self.label = label
        self.parent = parent
        self.pid = Pid(self)
        self.name: str | names.Via | None = None
        self.callers: tuple[Pid, ...] = ()
        self.alive = True
        self.trap_exit = False
        self.hibernating = False
        self.reason: Any = None  # what it ended with, until its greenlet is gone
        self.thrower: Thrower | None = None  # of the exit that is on its way into the greenlet
        self.links: dict[Process, None] = {}
        self.monitors: dict[int, Callable[[Any], object]] = {}
        self.monitoring: dict[int, Process] = {}
        self.gateway: Gateway | None = None
        self.greenlet: gevent.Greenlet[..., None] | None = None

    @property
    def linkable(self) -> bool:
        """True if exit signals of linked processes can reach it: as its end, or as messages."""
        return True

    @property
    def dying(self) -> bool:
        """True if an exit is on its way into the process; it was not the process's own idea to end."""
        return self.thrower is not None

    def spawn(self, main: Callable[[], object]) -> None:
        """Run `main` as this process. What it raises is the exit reason; returning is NORMAL."""
        self.greenlet = gevent.Greenlet(self._run, main)
        self.greenlet.erps_process = self  # type: ignore[attr-defined]
        self.greenlet.name = repr(self.pid)
        self.greenlet.rawlink(self._gone)
        self.greenlet.start()

    def _run(self, main: Callable[[], object]) -> None:
        try:
            # An exception holds this frame, so this frame must not hold it: no local variable.
            self.finish(self._reason_of(main))
        except KeyboardInterrupt as interrupt:
            self.finish(interrupt)
            raise  # Ctrl-C lands in whichever greenlet is running, and is meant for the program.

    def _reason_of(self, main: Callable[[], object]) -> Any:
        try:
            if self.alive and not self.dying:
                main()
        except Exit as exit_:
            return exit_.reason
        except gevent.GreenletExit:
            return KILLED
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  sys.exit() in a handler ends the process, not the program
            logger.error("%r terminating\n%s", self.pid, traceback.format_exc().rstrip())
            return error
        return NORMAL

    def _gone(self, _greenlet: object) -> None:
        """The greenlet is dead; `finish` has run, unless it was killed before it could begin. Runs in the hub."""
        self.finish(KILLED)
        self.let_go()

    def let_go(self) -> None:
        """Drop what the record of a dead process has no use for; its pid may be held for long."""
        # An exception holds the frames that it came through, and with them the state.
        self.greenlet = self.reason = None
        # Each generation would hold all that were before.
        self.parent, self.callers = None, ()

    def finish(self, reason: Any) -> None:
        """The process is dead: free its name, tell its monitors, then its links. Idempotent.

        reason: what it ended with by itself; an exit that was on its way into it is the reason instead.
        """
        if not self.alive:
            return
        # atomic: nobody may see a dead process that still has its name or an unanswered monitor.
        self.alive = False
        if self.thrower is not None:
            self.thrower.stop()
            reason = self.thrower.reason
        self.reason = reason
        monitors, self.monitors = self.monitors, {}
        for down in (lambda _: self.unregister(), *monitors.values()):
            try:
                down(reason)
            except Exception:  # noqa: BLE001  the others must be told all the same
                self.hub.handle_error(self.pid, *sys.exc_info())
        for ref, other in self.monitoring.items():
            other.demonitor(ref)
        self.monitoring.clear()
        links, self.links = self.links, {}
        for linked in links:
            linked.links.pop(self, None)
            linked.signal(self.pid, reason)
        self.inbox.close()
        self.thrower = None
        if self.greenlet is None:
            self.reason = None

    def join(self, seconds: float | None) -> Any:
        """Park until the process is dead; return its reason, or TIMED_OUT."""
        waiter: Waiter[Any] = Waiter(self.hub)
        monitor = self.monitor(lambda reason: self.hub.loop.run_callback(waiter.switch, reason))
        try:
            return answer(waiter, seconds)
        finally:
            self.demonitor(monitor)

    def send(self, message: Any) -> None:
        if bridge.is_foreign(self.hub):
            bridge.hand_over(self.hub, self.send, message)
        elif self.alive:
            self.inbox.put(message)

    def signal(self, sender: Pid | None, reason: Any, *, untrappable: bool = False) -> None:
        """An exit signal arrives: rules 7 of OTP. `untrappable` is `exit_(pid, KILL)`."""
        if bridge.is_foreign(self.hub):
            bridge.hand_over(self.hub, lambda: self.signal(sender, reason, untrappable=untrappable))
        elif not self.alive:
            return
        elif untrappable:
            self.die(KILLED, now=sender is self.pid)
        elif self.trap_exit:
            # Now, and not when it is read: who calls `exit_` may end before that.
            self.inbox.put(ExitSignal(sender, reason, ended=sender is not None and not sender.process.alive))
        elif reason is not NORMAL or sender is self.pid:
            self.die(reason, now=sender is self.pid)

    def die(self, reason: Any, now: bool = False) -> None:
        """End the process with `reason` at its next switch. The first reason stands, but KILLED overrides it.

        now: the running process does this to itself. It is False for what another one's end brings about, however that
             came to be: whoever tells all the links of a process may not be interrupted by one of them.
        """
        thrower = self.thrower
        if not self.alive or (thrower is not None and (reason is not KILLED or thrower.reason is KILLED)):
            return
        if self.greenlet is None:
            self.finish(reason)
            return
        if thrower is not None:
            thrower.stop()
        self.thrower = Thrower(self.hub, self.greenlet, self.pid, reason)
        if now and self.greenlet is getcurrent():
            self.thrower.throw_later()
            raise Exit(reason)
        self.thrower.throw_soon()

    def link(self, other: Process) -> None:
        """Link both ways; idempotent; linking to oneself does nothing.

        raises: NoProc       the other is dead. A process that traps exits gets an ExitSignal instead.
                ConfigError  one of them cannot be linked: it is no process, or they live in different threads.
        """
        if other is self:
            return
        for one in (self, other):
            if not one.linkable:
                raise ConfigError(
                    f"cannot link {one.pid!r}: it is no process, and an exit signal would end a greenlet that does not "
                    "expect it; run that code as a process, with spawn_link(function), or set trap_exit(True) in it"
                )
        if other.hub is not self.hub:
            raise ConfigError(
                f"cannot link {self.pid!r} and {other.pid!r}: they belong to the hubs of different threads; call, cast "
                "and send work between them"
            )
        if other.alive:
            self.links[other] = other.links[self] = None
        elif self.trap_exit:
            self.inbox.put(ExitSignal(other.pid, NOPROC, ended=True))
        else:
            raise NoProc(f"cannot link to {other.pid!r}: it is dead", reason=NOPROC)

    def unlink(self, other: Process) -> None:
        self.links.pop(other, None)
        other.links.pop(self, None)

    def monitor(self, down: Callable[[Any], object], ref: int | None = None) -> int:
        """Have `down(reason)` called once when this process ends; at once, with NOPROC, if it already has.

        down: runs in the ending process's greenlet; it must not park.
        ref:  one of `new_ref`, if it was needed before.
        """
        ref = new_ref() if ref is None else ref
        if self.alive:
            self.monitors[ref] = down
        else:
            down(NOPROC)
        return ref

    def demonitor(self, ref: int) -> None:
        self.monitors.pop(ref, None)

    def register(self, name: str | names.Via) -> None:
        """Give this process a name: a local one, unique in this Python process, or one in a registry.

        raises: AlreadyStarted  a living process has the name.
                ConfigError     it is no name, or this process has one.
        """
        if self.name is not None:
            raise ConfigError(f"{self.pid!r} has a name, {self.name!r}")
        try:
            names.take(name, self.pid)
        except BaseException:
            # A registrar of somebody's own may have parked after it had written the name down.
            names.free(name, self.pid)
            raise
        self.name = name

    def unregister(self) -> None:
        """Free the name, if there is one."""
        if self.name is not None:
            name, self.name = self.name, None
            names.free(name, self.pid)


_refs = itertools.count(1)


def new_ref() -> int:
    """A reference that no other monitor of this Python process has."""
    return next(_refs)


def whereis(name: str | names.Via) -> Pid | None:
    """The pid of the living process with this name, or None."""
    pid: Pid | None = names.holder_of(name)
    return pid


def current() -> Process | None:
    """The process that is running now; None in a greenlet that is no process, or whose process has ended."""
    process: Process | None = getattr(getcurrent(), "erps_process", None)
    return process if process is not None and process.alive else None


def starter() -> Process | None:
    """The running process as the parent of what it starts with a link; None where nothing can be linked."""
    process = current()
    return process if process is not None and process.linkable else None
