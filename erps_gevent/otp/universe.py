"""Universes: several worlds of the same names in one Python process, so that tests which run at once do not meet.

    test A ── link() ──▶ process ──▶ its process        one universe: its root is test A
    test B ── link() ──▶ process ──▶ its process        another one

A process has callers, the nearest first: who asked for it, who asked for that one, and so on, KEPT of them at most. Its
universe is the last of them, or itself if it has none. A Registry that is started with `sharded=True` keeps the keys of
each universe apart.

A universe is handed on explicitly, never by itself: gevent.spawn does not inherit contextvars, and `spawn` is not told
who asked. A GenServer joins its starter's with `forward_callers=True`; any other greenlet, also one of another native
thread, is given `link()` and says `adopt(link)`. A TCP line leads out of a universe: its other end has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from erps_gevent.errors import ConfigError
from erps_gevent.otp.inbox import Inbox
from erps_gevent.otp.plain import record
from erps_gevent.otp.process import Pid, Process
from erps_gevent.otp.words import NORMAL

Link = tuple[Pid, ...]


KEPT = 8  # callers of a process. Enough to see in a log who asked; more would grow with a chain of tasks, without end.


def root_of(process: Process) -> Pid:
    """The universe of a process."""
    return process.callers[-1] if process.callers else process.pid


def current() -> Pid:
    """The universe of the running process, which is the pid of its root: a value to compare, and to monitor.

    source: Multiverses.self/0
    """
    return root_of(record())


def link() -> Link:
    """What another process adopts to be in this universe: the running process and its callers, the nearest first.

    source: Multiverses.link/0
    """
    return link_of(record())


def link_of(process: Process) -> Link:
    """`link`, of another process. Of more than KEPT, the nearest are in it, and the root, which is the universe."""
    whole = (process.pid, *process.callers)
    return whole if len(whole) <= KEPT else (*whole[: KEPT - 1], whole[-1])


def adopt(link: Link) -> None:
    """Join the universe of `link`; the running process leaves the one that it is in.

    link:   what `link()` returned in a process of that universe, in this Python process.
    raises: ConfigError  it is something else.
    source: Multiverses.port/1
    """
    if not (isinstance(link, tuple) and link and all(isinstance(pid, Pid) for pid in link)):
        raise ConfigError(f"adopt takes what universe.link() returns in a process of that universe, not {link!r}")
    record().callers = link


def drop() -> None:
    """Leave the universe: the running process has no callers any more, and is the root of its own.

    source: Multiverses.drop/0
    """
    record().callers = ()


@contextmanager
def fresh(label: str = "universe") -> Iterator[Link]:
    """`with universe.fresh() as link:` runs a block in a new universe, and then returns to the one before.

    label: shown in the pid of its root, which is alive as long as the block runs: a monitor on `current()` tells what
           was started for it that it is over.
    """
    me, root = record(), Process(Inbox(), label)
    before, me.callers = me.callers, (root.pid,)
    try:
        yield link()
    finally:
        me.callers = before
        root.finish(NORMAL)
