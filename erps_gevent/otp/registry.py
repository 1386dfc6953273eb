"""Registry: processes by key, of which they may have many, and a name for a process that is any value.

    rooms = Registry.start_link(keys="unique", name="rooms")
    Room.start_link(name=Via("rooms", ("lobby", 7)))          a name
    Registry.register("rooms", "lobby", {"since": now})       an entry of the running process, with a value
    Registry.lookup("rooms", "lobby")                         [(pid, {"since": now})]

An entry belongs to the process that made it, and is gone at the moment in which that ends. With keys="duplicate" a key
may have many entries: a topic, whose subscribers `dispatch` finds. Reads and writes go straight to tables
(registry_table.py) and never wait for the registry's process, which owns them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from erps_gevent.errors import AlreadyRegistered, AlreadyStarted, ConfigError, ErrorReply, NotFound, StartError
from erps_gevent.otp import behaviour, names
from erps_gevent.otp.behaviour import Option
from erps_gevent.otp.child_spec import child_spec_of
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.messages import From
from erps_gevent.otp.plain import record
from erps_gevent.otp.process import ExitSignal, Pid, Process
from erps_gevent.otp.registry_table import Entry, Table


def _listeners(name: str, value: Any) -> tuple[str | Pid, ...]:
    """A check: names and pids."""
    if isinstance(value, list | tuple) and all(isinstance(one, Pid) or (isinstance(one, str) and one) for one in value):
        return tuple(value)
    raise ConfigError(f"{name} is a list of local names and Pids, not {value!r}")


_OPTIONS = {
    "name": Option(None, lambda _, value: None if value is None else names.check_name(value)),
    "keys": Option(None, behaviour.one_of("unique", "duplicate")),
    "listeners": Option((), _listeners),
    "sharded": Option(False, behaviour.flag),
}


class Registry(GenServer):
    """Start it with `start_link`, with these options, or under a supervisor by `child_spec`; then use its functions.

    keys:      "unique", a key has one process, or "duplicate", it may have many. There is no default.
    name:      what it is called in its functions and in a Via, as for every GenServer; its Pid does too.
    listeners: local names and Pids that are sent ("register", registry, key, pid, value) and
               ("unregister", registry, key, pid), where registry is its name, or its Pid if it has none.
    sharded:   True keeps the keys of each universe apart (otp/universe.py): the functions see and change those of the
               universe of the process that uses them. A name by Via is in the universe of who started its process.

    A key is any value that can be hashed. Keys are the same if their types are too: 1, 1.0 and True are three, also
    within tuples and frozensets.

    The functions take the name or the Pid of a registry, and raise ConfigError if there is none. They may be used from
    any greenlet. From another native thread than the registry's, those that only read; each thread may have its own.

    A process that has entries is linked to the registry, and ends if that crashes. A greenlet that is no process cannot
    be linked, and has its entries all the same.
    """

    START_OPTIONS = {option: check for option, check in GenServer.START_OPTIONS.items() if option != "name"}

    @classmethod
    def child_spec(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As for every GenServer, but the id is the name, so that several registries can be children of one supervisor.

        source: Registry.child_spec/1
        """
        return child_spec_of(kwargs.get("name") or cls, cls.start_link, args, kwargs, cls.class_options)

    @classmethod
    def _start(
        cls,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parent: Process | None,
        prepare: Callable[[Process], object] | None = None,
    ) -> Pid:
        given, rest = behaviour.split(kwargs, _OPTIONS)
        options = behaviour.checked(given, _OPTIONS, f"{cls.__name__}.start")
        try:
            return super()._start(args, {**rest, **options}, parent, prepare)
        except StartError as error:
            if isinstance(error.reason, AlreadyStarted | ConfigError):
                raise error.reason from None  # of the name
            raise

    def init(  # type: ignore[override]  # every behaviour has arguments of its own
        self,
        *,
        keys: str,
        name: str | names.Via | None = None,
        listeners: tuple[str | Pid, ...] = (),
        sharded: bool = False,
    ) -> Any:
        # The end of a process that has entries is not the registry's.
        self.trap_exit = True
        Table(self._process, keys == "unique", sharded, listeners).open()
        # Last, so that a registry whose name is found can be used.
        if name is not None:
            self._process.register(name)

    def handle_call(self, request: Any, from_: From) -> Any:
        raise ErrorReply("unknown_request", "a Registry answers no calls; use its functions, such as Registry.lookup")

    def handle_cast(self, request: Any) -> Any:
        return super().handle_info(request)

    def handle_info(self, message: Any) -> Any:
        return None if isinstance(message, ExitSignal) else super().handle_info(message)

    # The functions.

    @staticmethod
    def register(registry: str | Pid, key: Any, value: Any = None) -> None:
        """Give the running process an entry under `key`; in a duplicate registry it may have several.

        value:  anything; it is kept as it is.
        raises: AlreadyRegistered  a living process has the key; `pid` is it, and may be the running one. Unique only.
                ConfigError        the running process belongs to the hub of another thread than the registry.
                TypeError          the key cannot be hashed.
        source: Registry.register/3
        """
        holder = _table(registry).add(record(), key, value)
        if holder is not None:
            pid = holder.process.pid
            raise AlreadyRegistered(f"the key {key!r} of the registry {registry!r} belongs to {pid!r}", pid=pid)

    @staticmethod
    def unregister(registry: str | Pid, key: Any) -> None:
        """Take away all that the running process has under `key`; nothing is no error. source: Registry.unregister/2"""
        table = _table(registry)
        for entry in _own(table, key):
            table.remove(entry)

    @staticmethod
    def lookup(registry: str | Pid, key: Any) -> list[tuple[Pid, Any]]:
        """The pids and values under `key`, the oldest first. source: Registry.lookup/2"""
        return [(entry.process.pid, entry.value) for entry in _table(registry).at(key)]

    @staticmethod
    def keys(registry: str | Pid, pid: Pid) -> list[Any]:
        """The keys of a process, the oldest first; as often as it has entries. source: Registry.keys/2"""
        return [entry.key for entry in _table(registry).of(_process(pid))]

    @staticmethod
    def values(registry: str | Pid, key: Any, pid: Pid) -> list[Any]:
        """What a process has under `key`, the oldest first. source: Registry.values/3"""
        process = _process(pid)
        return [entry.value for entry in _table(registry).at(key) if entry.process is process]

    @staticmethod
    def count(registry: str | Pid) -> int:
        """How many entries there are, in constant time. source: Registry.count/1"""
        return _table(registry).count()

    @staticmethod
    def dispatch(registry: str | Pid, key: Any, function: Callable[[list[tuple[Pid, Any]]], object]) -> None:
        """Call `function` with what `lookup` returns; not at all if that is nothing.

        function: runs here, and may park.
        source:   Registry.dispatch/3
        """
        found = Registry.lookup(registry, key)
        if found:
            function(found)

    @staticmethod
    def update_value(registry: str | Pid, key: Any, function: Callable[[Any], Any]) -> tuple[Any, Any]:
        """Replace what the running process has under `key` by `function(value)`; return the new value and the old one.

        raises: NotFound     the running process does not have the key.
                ConfigError  it is a duplicate registry.
        source: Registry.update_value/3, which returns :error for NotFound
        """
        table = _table(registry)
        table.check_unique("update_value")
        own = _own(table, key)
        if not own:
            raise NotFound(f"{record().pid!r} has no key {key!r} in the registry {registry!r}; register it first")
        (entry,) = own
        old = entry.value
        entry.value = function(old)
        return entry.value, old

    @staticmethod
    def select(
        registry: str | Pid, match: Callable[[Any, Pid, Any], object] | None = None
    ) -> list[tuple[Any, Pid, Any]]:
        """Every (key, pid, value) for which `match(key, pid, value)` is true; all of them if there is no `match`.

        source: Registry.select/2, whose match specification is a function here
        """
        found = [(entry.key, entry.process.pid, entry.value) for entry in _table(registry).all()]
        return found if match is None else [each for each in found if match(*each)]

    @staticmethod
    def match(registry: str | Pid, key: Any, match: Callable[[Any], object]) -> list[tuple[Pid, Any]]:
        """The pids and values under `key` for whose values `match(value)` is true.

        source: Registry.match/4, whose pattern and guards are a function here
        """
        return [(pid, value) for pid, value in Registry.lookup(registry, key) if match(value)]

    @staticmethod
    def count_match(registry: str | Pid, key: Any, match: Callable[[Any], object]) -> int:
        """How many there are of what `match` returns. source: Registry.count_match/4"""
        return len(Registry.match(registry, key, match))

    @staticmethod
    def lock(registry: str | Pid, key: Any, function: Callable[[], Any]) -> Any:
        """Return `function()`, which runs while no other greenlet is in a `lock` with this key.

        key:    any; it need not be, and is not, registered.
        raises: what the function raises; the lock is free then, as it is when the process ends.
                ConfigError  the running process belongs to the hub of another thread than the registry.
                CallExit     "deadlock": in the main greenlet, when nothing is left that could free the lock.
        switch: parks until the lock is free. Within itself it does not.
        source: Registry.lock/3
        """
        with _table(registry).locked(key):
            return function()


def _table(registry: Any) -> Table:
    if not isinstance(registry, str | Pid) or registry == "":
        raise ConfigError(f"a registry is given by its name or its Pid, not by {registry!r}")
    table = names.registrar_of(registry)
    if not isinstance(table, Table):
        example = "Registry.start_link(keys='unique', name='rooms')"
        raise ConfigError(f"unknown registry {registry!r}; start it first, as in {example}")
    return table


def _own(table: Table, key: Any) -> list[Entry]:
    me = record()
    return [entry for entry in table.at(key) if entry.process is me]


def _process(pid: Any) -> Process:
    if not isinstance(pid, Pid):
        raise TypeError(f"the entries of a process are asked for by its Pid, not by {pid!r}; whereis(name) has it")
    return pid.process
