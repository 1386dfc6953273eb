"""The table of a registry: strict keys, names, links, listeners, locks, and the dead."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from gevent.exceptions import LoopExit
from otp.kernel import Log, Native, Probe, as_process, ended, idle, spawn
from support import run_python

from erps_gevent.errors import AlreadyStarted, CallExit, ConfigError, NoProc, StartError
from erps_gevent.otp import registry_table
from erps_gevent.otp.gen import call, cast, stop
from erps_gevent.otp.mailbox import receive, send
from erps_gevent.otp.messages import Reply, Stop
from erps_gevent.otp.names import Via, registrar_of
from erps_gevent.otp.primitives import current, exit_, info, is_alive, kill, link, register, unregister
from erps_gevent.otp.process import ExitSignal, whereis
from erps_gevent.otp.registry import Registry
from erps_gevent.otp.words import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN

# Keys.


KEYS = [1, 1.0, True, (1,), (1.0,), (True, (1,)), (True, (1.0,)), frozenset({1}), frozenset({1.0}), "1", b"1", None]


def test_keys_are_compared_strictly(unique):
    """ERu "compares using ===": rules 14."""

    def main(process):
        for number, key in enumerate(KEYS):
            Registry.register("rooms", key, number)
        assert Registry.count("rooms") == len(KEYS)
        assert [Registry.values("rooms", key, process.pid) for key in KEYS] == [[n] for n in range(len(KEYS))]
        got = Registry.keys("rooms", process.pid)
        return list(map(repr, got)) == list(map(repr, KEYS))

    assert as_process(main)


@pytest.mark.parametrize("use", [Registry.register, Registry.lookup, Registry.unregister])
@pytest.mark.parametrize("key", [["list"], ("nested", {})])
def test_a_key_that_cannot_be_hashed_is_named(either, use, key):
    with pytest.raises(TypeError, match="a registry key must be hashable") as caught:
        use("rooms", key)
    assert repr(key) in str(caught.value)


# Entries and the dead.


def test_reg_lookup_filters_dead(unique, others):
    """Case 164, PR R02: also for a monitor that is told of the death before the registry is, and the key is free."""
    name, seen, heir = Via("rooms", "hello"), [], others()

    def first_to_know(_):
        seen.extend([Registry.lookup("rooms", "hello"), Registry.keys("rooms", process.pid), Registry.select("rooms")])
        seen.append(whereis(name))
        register(heir, name)

    process = spawn(lambda _: Registry.register("rooms", "hello", "old"))
    process.monitor(first_to_know)
    ended(process)
    assert seen == [[], [], [], None]
    assert whereis(name) is heir
    assert Registry.count("rooms") == 1


def test_a_greenlet_that_is_no_process_has_entries_until_it_ends(either):
    """Without a link, which would end code that expects none."""

    def main():
        Registry.register("rooms", "hello")
        seen.append((info(current())["links"], Registry.count("rooms")))

    seen = []
    greenlet = gevent.spawn(main)
    greenlet.join()
    assert seen == [([], 1)]
    gevent.sleep(0)
    assert Registry.count("rooms") == 0


def test_of_many_entries_under_a_key_those_of_the_dead_are_gone_and_the_others_keep_their_order(duplicate, others):
    pids = [others(("topic", number)) for number in range(5)]
    for number in (3, 0):
        kill(pids[number])
        ended(pids[number])
    assert Registry.lookup("rooms", "topic") == [(pids[number], number) for number in (1, 2, 4)]


# Names.


def test_reg_via(unique):
    """Case 165, ERu "via callbacks", "uses value provided in via"."""
    name = Via("rooms", ("lobby", 7), "the value")
    pid = Probe.start(name=name)
    assert whereis(name) is whereis(Via(unique, ("lobby", 7))) is pid
    assert Registry.lookup("rooms", ("lobby", 7)) == [(pid, "the value")]
    assert call(name, "hello") == "hello"
    log = call(name, lambda server, _: Reply(server.log))
    send(name, "message")
    cast(name, "request")
    call(name, "done")
    assert log[-3:] == [("info", "message"), ("cast", "request"), ("call", "done")]
    with pytest.raises(AlreadyStarted) as caught:
        Probe.start(name=name)
    assert caught.value.pid is pid
    assert info(pid)["registered_name"] == name
    stop(name)
    assert whereis(name) is None
    assert Registry.count("rooms") == 0
    with pytest.raises(NoProc):
        send(name, "message")
    cast(name, "nobody's")


def test_reg_via_duplicate_refused(duplicate):
    """Case 166, ERd "raises if attempt to be used on via"."""
    for use in (whereis, lambda name: Probe.start(name=name), lambda name: call(name, 1)):
        with pytest.raises(ConfigError, match="a Via is not supported for duplicate registries") as caught:
            use(Via("rooms", "hello"))
        assert "keys='unique'" in str(caught.value)


def test_a_start_that_fails_leaves_no_entry(unique):
    """Case 12, GS otp_7669, by via: the name is free, and the registry knows nothing of the process any more."""
    for _ in range(5):
        with pytest.raises(StartError):
            Probe.start(None, lambda _: Stop("no"), name=Via("rooms", "hello"))
        assert Registry.count("rooms") == 0
        with pytest.raises(StartError) as caught:
            Probe.start(None, idle, name=Via("rooms", "hello"), timeout=0.001)
        assert caught.value.reason == "timeout"
        assert Registry.count("rooms") == 0
    assert info(unique)["links"] == []


def test_a_living_process_is_given_a_name_and_loses_it(unique, others):
    pid = others()
    name = Via("rooms", "hello")
    register(pid, name)
    assert whereis(name) is pid
    assert info(unique)["links"] == [pid]
    unregister(name)
    assert whereis(name) is None
    assert info(pid)["registered_name"] is None
    assert info(unique)["links"] == []


def test_a_dead_process_is_given_no_name(unique, others):
    pid = others()
    kill(pid)
    ended(pid)
    with pytest.raises(NoProc, match="it is dead") as caught:
        pid.process.register(Via("rooms", "hello"))
    assert caught.value.reason is NOPROC
    assert Registry.count("rooms") == 0


def test_a_name_that_was_unregistered_as_a_key_is_no_name_any_more(unique):
    """The next one to have it keeps it when the first one dies."""
    name = Via("rooms", "hello")

    def give_up(server, _):
        Registry.unregister("rooms", "hello")
        return Reply(None)

    first = Probe.start(name=name)
    call(first, give_up)
    assert info(first)["registered_name"] is None
    second = Probe.start(name=name)
    stop(first)
    assert whereis(name) is second
    stop(second)


def test_who_outlives_the_registry_has_no_name_and_may_have_one_in_the_next(unique, others):
    """A process that traps exits; its stale name would take the key of another from the next registry."""
    name = Via("rooms", "hello")
    pid = others(("world", 1), trap=True)
    register(pid, name)
    kill(unique)
    ended(unique)
    assert list(pid.process.inbox.mailbox) == [ExitSignal(unique, KILLED)]
    assert info(pid)["registered_name"] is None
    assert pid.process.monitors == {}
    again = Registry.start(keys="unique", name="rooms")
    assert Registry.keys("rooms", pid) == []
    register(pid, name)
    assert whereis(name) is pid
    kill(again)
    ended(again)


# Links.


def test_reg_links(either):
    """Optional, ERu/ERd "links and unlinks on register/unregister"."""

    def main(process):
        links = []
        for act, key in [
            (Registry.register, "hello"),
            (Registry.register, "world"),
            (Registry.unregister, "hello"),
            (Registry.unregister, "world"),
        ]:
            act("rooms", key)
            links.append(info(process.pid)["links"])
        return links

    assert as_process(main) == [[either]] * 3 + [[]]
    assert info(either)["monitors"] == []


def test_a_link_that_was_there_before_is_kept(unique):
    """ERu "has unique registrations across processes"; also that of a registry and its parent."""

    def main(process):
        link(unique)
        Registry.register("rooms", "hello")
        Registry.unregister("rooms", "hello")
        mine = Registry.start_link(keys="unique")
        Registry.register(mine, "hello")
        Registry.unregister(mine, "hello")
        return info(process.pid)["links"] == [unique, mine]

    assert as_process(main)


def test_a_registry_ends_with_its_parent_also_if_that_has_entries():
    def main(_):
        mine.append(Registry.start_link(keys="unique"))
        Registry.register(mine[0], "hello")

    mine = []
    ended(spawn(main))
    assert ended(mine[0]) in (NORMAL, NOPROC)


def test_processes_with_entries_end_with_the_registry(either, others):
    with_entry, without = others(("hello", 1)), others()
    exit_(either, KILL)
    assert ended(with_entry) is KILLED
    assert is_alive(without)


def test_a_crash_of_a_process_with_entries_is_no_concern_of_the_registry(either, others):
    exit_(others(("hello", 1)), "why")
    stranger = spawn(lambda _: link(either))
    ended(stranger)
    exit_(either, SHUTDOWN)
    others(("world", 1))
    assert Registry.count("rooms") == 1


# Listeners.


@pytest.mark.parametrize("by", ["name", "pid"])
@pytest.mark.parametrize("keys", ["unique", "duplicate"])
def test_reg_listeners(keys, by):
    """Optional, ERu/ERd "allows listeners": messages of register and unregister, also for a process that ends."""

    def main(process):
        process.register("listener")
        listeners = ["nobody", "listener"] if by == "name" else [process.pid]
        registry = Registry.start(keys=keys, name="rooms", listeners=listeners)
        Registry.register("rooms", "world", "value")
        Registry.unregister("rooms", "world")
        another = spawn(lambda _: Registry.register(registry, "hello", 1))
        ended(another)
        got = [receive(timeout=0) for _ in range(4)]
        kill(registry)
        me, other = process.pid, another.pid
        return got == [
            ("register", "rooms", "world", me, "value"),
            ("unregister", "rooms", "world", me),
            ("register", "rooms", "hello", other, 1),
            ("unregister", "rooms", "hello", other),
        ]

    assert as_process(main)


# Locks.


def test_reg_lock(either):
    """Optional, ER lock tests: one at a time for a key, whatever is registered under it, and strictly compared."""
    log, release = Log(), Event()

    def holder(name, key):
        def work():
            log.append(f"{name} in")
            release.wait()
            log.append(f"{name} out")
            return name

        return Registry.lock("rooms", key, work)

    first = gevent.spawn(holder, "first", 1)
    second = gevent.spawn(holder, "second", 1)
    log.wait_for("first in")
    other = gevent.spawn(holder, "other", 1.0)
    log.wait_for("other in")
    release.set()
    assert [greenlet.get() for greenlet in (first, second, other)] == ["first", "second", "other"]
    assert log.index("second in") > log.index("first out")
    assert not registrar_of("rooms").locks


DEAD_END = """
import gevent, erps_gevent as erps
from gevent.event import Event

erps.Registry.start(keys="unique", name="rooms")
erps.spawn(erps.Registry.lock, "rooms", "key", Event().wait)
gevent.sleep(0)
try:
    erps.Registry.lock("rooms", "key", print)
except erps.CallExit as error:
    print(error.reason, type(error.__cause__).__name__, error, sep="; ")
"""


def test_a_lock_that_nobody_will_free_is_an_error_in_the_main_greenlet():
    """gevent's LoopExit would end the program with no word of a lock."""
    done = run_python("-c", DEAD_END)
    assert done.stdout.strip() == (
        "deadlock; LoopExit; the lock on 'key' of 'rooms' will never be free: this thread has no greenlet, timer or "
        "socket left that could let its holder go on"
    ), done.stderr


def test_a_lock_whose_wait_is_a_dead_end_says_so(unique, monkeypatch):
    class Held:
        def acquire(self):
            raise LoopExit("nothing else runs")

    monkeypatch.setattr(registry_table, "RLock", Held)
    with pytest.raises(CallExit, match="the lock on 'key' of 'rooms' will never be free") as caught:
        Registry.lock("rooms", "key", pytest.fail)
    assert caught.value.reason == "deadlock"
    assert isinstance(caught.value.__cause__, LoopExit)


@pytest.mark.parametrize("how", ["raise", "die"])
def test_a_lock_is_free_when_its_holder_raises_or_dies(either, how):
    def work():
        held.set()
        if how == "raise":
            raise ValueError("boom")
        Event().wait()

    held = Event()
    process = spawn(lambda _: Registry.lock("rooms", "key", work))
    held.wait()
    kill(process.pid)
    assert Registry.lock("rooms", "key", lambda: "mine") == "mine"
    ended(process)


# Other native threads.


def test_any_thread_may_read(either, others):
    pid = others(("hello", 1))

    def read():
        return (
            Registry.lookup("rooms", "hello"),
            Registry.keys("rooms", pid),
            Registry.values("rooms", "hello", pid),
            Registry.count("rooms"),
            Registry.select("rooms"),
        )

    assert Native(read).result() == ([(pid, 1)], ["hello"], [1], 1, [("hello", pid, 1)])


@pytest.mark.parametrize(
    "use",
    [
        lambda: Registry.register("rooms", "hello"),
        lambda: Registry.lock("rooms", "hello", pytest.fail),
        lambda: Probe.start(name=Via("rooms", "hello")),
    ],
)
def test_a_process_of_another_thread_has_no_entries(unique, use):
    with pytest.raises(ConfigError, match="hubs of different threads; lookups work from any thread"):
        Native(use).result()
    assert Registry.count("rooms") == 0


def test_another_thread_does_not_name_a_process_of_this_one(unique, others):
    pid = others()
    with pytest.raises(ConfigError, match="hubs of different threads"):
        Native(pid.process.register, Via("rooms", "hello")).result()
    assert Registry.count("rooms") == 0


def test_unregistering_from_another_thread_finds_nothing(either, others):
    others(("hello", 1))
    Native(Registry.unregister, "rooms", "hello").result()
    assert Registry.count("rooms") == 1
