"""What OTP's processes do with each other: spawn, link, monitor, exit.

All of these may be used by processes, by plain greenlets and by the main one; the first use gives a greenlet that is
no process a record without links (`otp/plain.py`).

gevent is not the BEAM. An exit lands when the target next parks: a loop that computes is not interrupted, and
`finally:` blocks run, and may outlast it. A bare `except:` that swallows an exit has it thrown again, with a warning.
gevent's monitor thread (`gevent.config.monitor_thread`, `max_blocking_time`) finds loops that do not park. Contextvars
are not inherited.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from erps_gevent.errors import ConfigError, NoProc
from erps_gevent.otp import behaviour, names
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.plain import record
from erps_gevent.otp.process import Down, Pid, Process, new_ref, starter, whereis
from erps_gevent.otp.process import current as running
from erps_gevent.otp.words import KILL, NOPROC


def current() -> Pid:
    """The pid of the running process, or of the running greenlet as one. source: self/0"""
    return record().pid


def spawn(function: Callable[..., object], *args: Any, **kwargs: Any) -> Pid:
    """Run `function(*args, **kwargs)` as a process of its own, and return its pid at once.

    What the function raises is the exit reason, and is logged; returning is NORMAL.
    source: spawn/3
    """
    process = _process(function, None)
    process.spawn(partial(function, *args, **kwargs))
    return process.pid


def spawn_link(function: Callable[..., object], *args: Any, **kwargs: Any) -> Pid:
    """`spawn`, linked to the running process, and with no moment in between.

    A greenlet that is no process is not linked, unless it traps exits: the new process is on its own then.
    source: spawn_link/3
    """
    parent = starter()
    process = _process(function, parent)
    if parent is not None:
        process.link(parent)
    process.spawn(partial(function, *args, **kwargs))
    return process.pid


def spawn_monitor(function: Callable[..., object], *args: Any, **kwargs: Any) -> tuple[Pid, int]:
    """`spawn`, and the reference of a monitor on it. source: spawn_monitor/3"""
    process = _process(function, None)
    ref = monitor(process.pid)
    process.spawn(partial(function, *args, **kwargs))
    return process.pid, ref


def _process(function: Callable[..., object], parent: Process | None) -> Process:
    if not callable(function):
        raise TypeError(f"a process runs a function, not {function!r}")
    return Process(Inbox(), getattr(function, "__qualname__", type(function).__name__), parent)


def link(pid: Pid) -> None:
    """Link the running process with another: if one ends abnormally so does the other, or has an ExitSignal.

    raises: NoProc       the other is dead; a process that traps exits has an ExitSignal with NOPROC instead.
            ConfigError  one of them is a greenlet that is no process and does not trap exits, or they belong to the
                         hubs of different threads.
    source: Process.link/1
    """
    record().link(_process_of(pid, "link"))


def unlink(pid: Pid) -> None:
    """Undo `link`; no ExitSignal of `pid` comes after this. source: Process.unlink/1"""
    record().unlink(_process_of(pid, "unlink"))


def monitor(target: Pid | str | names.Via) -> int:
    """Have one `Down(ref, target, reason)` in the mailbox when `target` ends; return the ref.

    target: a pid or a name. A dead or unknown one gives Down with NOPROC at once.
    raises: ConfigError  it is neither, or belongs to the hub of another thread.
    source: Process.monitor/1
    """
    me, ref = record(), new_ref()
    pid = target if isinstance(target, Pid) else whereis(target)

    def down(reason: Any) -> None:
        me.monitoring.pop(ref, None)
        me.send(Down(ref, target, reason))

    if pid is None:
        down(NOPROC)
        return ref
    other = pid.process
    if other.hub is not me.hub:
        raise ConfigError(f"cannot monitor {pid!r}: it belongs to the hub of another thread; call, cast and send work")
    if other.alive:
        me.monitoring[ref] = other
    other.monitor(down, ref)
    return ref


def demonitor(ref: int, flush: bool = False) -> None:
    """End a monitor of the running process; one that has ended, or is not its own, is no error.

    flush:  True also removes its Down, if that is in the mailbox already.
    source: Process.demonitor/2
    """
    me = record()
    other = me.monitoring.pop(ref, None)
    if other is not None:
        other.demonitor(ref)
    elif flush:
        for message in list(me.inbox.mailbox):
            if isinstance(message, Down) and message.ref == ref:
                me.inbox.mailbox.remove(message)
                break


def exit_(pid: Pid, reason: Any) -> None:
    """Send `pid` an exit signal. KILL cannot be trapped. From any thread; a dead process drops it.

    switch: does not park; the signal lands at the target's next switch. A loop that computes is not interrupted.
    source: Process.exit/2
    """
    sender = running()
    _process_of(pid, "exit_").signal(sender.pid if sender else None, reason, untrappable=reason is KILL)


def kill(pid: Pid) -> None:
    """`exit_(pid, KILL)`: the process ends with KILLED, whether it traps exits or not."""
    exit_(pid, KILL)


def trap_exit(on: bool = True) -> bool:
    """Have exit signals as `ExitSignal` messages from now on, or not; return how it was.

    raises: ConfigError  `on` is not True or False.
    source: Process.flag(:trap_exit, on)
    """
    me = record()
    before, me.trap_exit = me.trap_exit, behaviour.flag("trap_exit", on)
    return before


def is_alive(pid: Pid) -> bool:
    """Whether the process has not ended. source: Process.alive?/1"""
    return _process_of(pid, "is_alive").alive


def register(pid: Pid, name: str | names.Via) -> None:
    """Give a living process a name. A process has one at most.

    raises: AlreadyStarted  a living process has the name.
            NoProc          the process is dead.
            ConfigError     it is no name, or the process has one.
    source: Process.register/2
    """
    process = _process_of(pid, "register")
    if not process.alive:
        raise NoProc(f"cannot name {pid!r}: it is dead", reason=NOPROC)
    process.register(name)


def unregister(name: str) -> None:
    """Take a local name from the process that has it. raises: NoProc  nobody has. source: Process.unregister/1"""
    pid = whereis(name)
    if pid is None:
        raise NoProc(f"there is no process {name!r}", reason=NOPROC)
    pid.process.unregister()


def info(pid: Pid) -> dict[str, Any] | None:
    """What a process is about, or None if it is dead.

    Its keys: label, registered_name, links, monitors (pids that it watches), monitored_by (a count), trap_exit,
    message_queue_len, status ("waiting", "hibernating" or "running"), parent and callers (pids).
    source: Process.info/1
    """
    process = _process_of(pid, "info")
    if not process.alive:
        return None
    return {
        "label": process.label,
        "registered_name": process.name,
        "links": [linked.pid for linked in process.links],
        "monitors": [watched.pid for watched in process.monitoring.values()],
        "monitored_by": len(process.monitors),
        "trap_exit": process.trap_exit,
        "message_queue_len": len(process.inbox.mailbox),
        "status": _status_of(process),
        "parent": process.parent.pid if process.parent else None,
        "callers": list(process.callers),
    }


def _status_of(process: Process) -> str:
    if process.inbox.parked is None:
        return "running"
    return "hibernating" if process.hibernating else "waiting"


def _process_of(pid: Pid, what: str) -> Process:
    if not isinstance(pid, Pid):
        raise TypeError(f"{what} takes a Pid, not {pid!r}; whereis(name) has the pid of a name")
    return pid.process
