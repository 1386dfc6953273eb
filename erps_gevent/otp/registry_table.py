"""What a Registry keeps: entries by key and by process, for each universe apart if it is sharded.

    Table.shards    universe ──▶ Shard.by_key    key as it is compared ──▶ entries, the oldest first
    Table.members   process  ──▶ Member.entries, and the monitor and the link that it has while there are any

Reads are single steps of the interpreter on plain dicts, so any native thread may read. Only processes of the
registry's own hub write, and writing does not switch; a process that ends takes its entries with it in that same step.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from gevent.exceptions import LoopExit
from gevent.lock import RLock

from erps_gevent.errors import CallExit, ConfigError, NoProc
from erps_gevent.otp import bridge, names, universe
from erps_gevent.otp.plain import record
from erps_gevent.otp.process import Pid, Process, current, whereis
from erps_gevent.otp.reasons import brief
from erps_gevent.otp.words import NOPROC


def strict(key: Any) -> Any:
    """A stand-in for `key` in a dict, equal for keys of the same type and value only: 1, 1.0 and True differ.

    The parts of tuples and frozensets are compared like that too. raises: TypeError  the key cannot be hashed.
    """
    if type(key) is str:
        return key
    try:
        hash(key)
    except TypeError as unhashable:
        raise TypeError(f"a registry key must be hashable, and {key!r} is not ({unhashable}); use a tuple") from None
    if isinstance(key, tuple):
        return type(key), tuple(map(strict, key))
    if isinstance(key, frozenset):
        return type(key), frozenset(map(strict, key))
    return type(key), key


class Entry:
    """One key of one process. Equal to itself only."""

    __slots__ = ("key", "named", "process", "slot", "universe", "value")

    def __init__(self, process: Process, universe: Pid | None, key: Any, value: Any, named: bool) -> None:
        self.process = process
        self.universe = universe
        self.key = key
        self.slot = strict(key)
        self.value = value
        self.named = named  # the process has it for its name


class Shard:
    """The entries of one universe; of all, if the registry is not sharded."""

    __slots__ = ("by_key", "count")

    def __init__(self) -> None:
        self.by_key: dict[Any, dict[Entry, None]] = {}
        self.count = 0


class Member:
    """A process that has entries."""

    __slots__ = ("entries", "linked", "monitor")

    def __init__(self, linked: bool, monitor: int) -> None:
        self.entries: dict[Entry, None] = {}
        self.linked = linked  # by us: a link that was there before is not ours to take away
        self.monitor = monitor


class Table:
    """The entries of the registry `owner`, and the registrar of its names; see names.Registrar."""

    def __init__(self, owner: Process, unique: bool, sharded: bool, listeners: tuple[str | Pid, ...]) -> None:
        self.owner = owner
        self.unique = unique
        self.sharded = sharded
        self.listeners = listeners
        self.shards: dict[Pid | None, Shard] = {}
        self.members: dict[Process, Member] = {}
        self.locks: weakref.WeakValueDictionary[Any, RLock] = weakref.WeakValueDictionary()

    @property
    def label(self) -> Any:
        """What the registry is called: its name, or its pid if it has none."""
        return self.owner.name or self.owner.pid

    def open(self) -> None:
        names.add_registrar(self.owner.pid, self)
        self.owner.monitor(self.close)

    def close(self, _reason: Any = None) -> None:
        """The registry has ended. Who outlives it may have another name."""
        names.remove_registrar(self.owner.pid)
        for member in self.members.values():
            for entry in member.entries:
                _take_name(entry)

    # Reading.

    def here(self) -> Pid | None:
        """The universe whose keys the running process sees; None if that is no matter, or it has no keys yet.

        Asking gives no record to a greenlet that has none: it may be the one of a process that is just ending.
        """
        running = current() if self.sharded else None
        return universe.root_of(running) if running is not None else None

    def at(self, key: Any) -> list[Entry]:
        """The entries of living processes under `key`, the oldest first."""
        slot, shard = strict(key), self.shards.get(self.here())
        found = () if shard is None else shard.by_key.get(slot, ())
        return [entry for entry in list(found) if entry.process.alive]

    def of(self, process: Process) -> list[Entry]:
        """The entries of a process, the oldest first; none if it is dead."""
        member = self.members.get(process)
        if member is None or not process.alive:
            return []
        here = self.here()
        return [entry for entry in list(member.entries) if entry.universe is here]

    def all(self) -> list[Entry]:
        """Every entry of a living process."""
        shard = self.shards.get(self.here())
        held = [] if shard is None else list(shard.by_key.values())
        return [entry for entries in held for entry in list(entries) if entry.process.alive]

    def count(self) -> int:
        shard = self.shards.get(self.here())
        return 0 if shard is None else shard.count

    # Writing.

    def add(self, process: Process, key: Any, value: Any, *, named: bool = False) -> Entry | None:
        """Give `process` an entry; return None, or the one that stands in its way.

        raises: ConfigError  the process belongs to the hub of another thread.
                NoProc       it is dead.
        """
        self.check_hub(process, "register")
        if not process.alive:
            raise NoProc(f"cannot register {process.pid!r} in {self.label!r}: it is dead", reason=NOPROC)
        entry = Entry(process, universe.current() if self.sharded else None, key, value, named)
        # atomic: no switch from here to the end, or two could have the key.
        holder = self._holder(entry) if self.unique else None
        if holder is not None:
            return holder
        member = self.members.get(process) or self._join(process)
        shard = self.shards.setdefault(entry.universe, Shard())
        member.entries[entry] = None
        shard.by_key.setdefault(entry.slot, {})[entry] = None
        shard.count += 1
        self._tell("register", entry, value)
        return None

    def _holder(self, wanted: Entry) -> Entry | None:
        shard = self.shards.get(wanted.universe)
        for entry in [] if shard is None else list(shard.by_key.get(wanted.slot, ())):
            if entry.process.alive:
                return entry
            # It is just ending, and a monitor that runs before ours wants the key.
            self.remove(entry)
        return None

    def check_hub(self, process: Process, what: str) -> None:
        if process.hub is not self.owner.hub or bridge.is_foreign(process.hub):
            raise ConfigError(
                f"cannot {what} {process.pid!r} in the registry {self.label!r}: they belong to the hubs of different "
                "threads; lookups work from any thread, and each thread may have a registry of its own"
            )

    def _join(self, process: Process) -> Member:
        linked = process.linkable and self.owner not in process.links
        if linked:
            process.link(self.owner)
        member = self.members[process] = Member(linked, process.monitor(partial(self._gone, process)))
        self.owner.monitoring[member.monitor] = process
        return member

    def remove(self, entry: Entry) -> None:
        """Take an entry away; with its last one a process is watched no more."""
        # atomic: a member without entries is nobody's to clean up.
        member = self.members[entry.process]
        del member.entries[entry]
        self._forget(entry)
        if not member.entries:
            self._leave(entry.process, member)

    def _gone(self, process: Process, _reason: Any) -> None:
        """The process has ended. Runs in its last step, before anybody else can look."""
        member = self.members.get(process)
        if member is not None:
            for entry in member.entries:
                self._forget(entry)
            self._leave(process, member)

    def _forget(self, entry: Entry) -> None:
        shard = self.shards[entry.universe]
        held = shard.by_key[entry.slot]
        del held[entry]
        shard.count -= 1
        if not held:
            del shard.by_key[entry.slot]
        if not shard.by_key:
            del self.shards[entry.universe]
        _take_name(entry)
        self._tell("unregister", entry)

    def _leave(self, process: Process, member: Member) -> None:
        del self.members[process]
        self.owner.monitoring.pop(member.monitor, None)
        process.demonitor(member.monitor)
        if member.linked:
            process.unlink(self.owner)

    def _tell(self, what: str, entry: Entry, *value: Any) -> None:
        for listener in self.listeners:
            pid = listener if isinstance(listener, Pid) else whereis(listener)
            if pid is not None:
                pid.send((what, self.label, entry.key, entry.process.pid, *value))

    @contextmanager
    def locked(self, key: Any) -> Iterator[None]:
        """Run a block while no other greenlet of this universe is in one with this key."""
        self.check_hub(record(), "lock")
        slot = (self.here(), strict(key))
        lock = self.locks.get(slot)
        if lock is None:
            lock = self.locks[slot] = RLock()
        try:
            lock.acquire()
        except LoopExit as nothing:
            why = "this thread has no greenlet, timer or socket left that could let its holder go on"
            text = f"the lock on {brief(key)} of {self.label!r} will never be free: {why}"
            raise CallExit(text, reason="deadlock") from nothing
        try:
            yield
        finally:
            lock.release()

    # The registrar of the names Via(registry, key).

    def whereis_name(self, key: Any) -> Pid | None:
        self.check_unique("a Via")
        found = self.at(key)
        return found[0].process.pid if found else None

    def register_name(self, key: Any, pid: Pid, value: Any) -> bool:
        self.check_unique("a Via")
        return self.add(pid.process, key, value, named=True) is None

    def unregister_name(self, key: Any) -> None:
        for entry in self.at(key):
            self.remove(entry)

    def check_unique(self, what: str) -> None:
        if not self.unique:
            raise ConfigError(
                f"{what} is not supported for duplicate registries, and {self.label!r} is one: a key of it may lead to "
                "several processes; start the registry with keys='unique'"
            )


def _take_name(entry: Entry) -> None:
    if entry.named:
        entry.process.name = None
