"""Universes: who is in which, how one is handed on, and that a sharded registry keeps them apart."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from otp.kernel import PATIENCE, Native, Probe, as_process, ended, settle, spawn

from erps_gevent.errors import AlreadyRegistered, AlreadyStarted, ConfigError, NotFound
from erps_gevent.otp import universe
from erps_gevent.otp.dynamic_supervisor import DynamicSupervisor
from erps_gevent.otp.gen import call, stop
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.messages import Reply
from erps_gevent.otp.names import Via
from erps_gevent.otp.primitives import current, info, is_alive, kill, monitor, register, unregister
from erps_gevent.otp.process import Down, whereis
from erps_gevent.otp.registry import Registry
from erps_gevent.otp.task import Task
from erps_gevent.otp.words import NORMAL, RESTARTING


class Where(GenServer):
    """Answers with the universe that it is in; given a function, with what that returns in its process."""

    def handle_call(self, request, from_):
        return Reply(universe.current() if request == "where" else request())


class Opted(Where, forward_callers=True):
    """Joins the universe of its starter."""


def answer_of(pid, request="where"):
    got = call(pid, request)
    stop(pid)
    return got


# Who is in which.


def test_a_process_is_its_own_universe_until_it_joins_another():
    assert as_process(lambda process: universe.current() is process.pid and universe.link() == (process.pid,))
    assert as_process(lambda process: current() is universe.current())


def test_a_universe_is_handed_on_by_link_and_left_by_drop():
    """MV server_test: link, port, drop."""

    def main(process):
        link = universe.link()

        def second(process):
            universe.adopt(link)
            seen.append(universe.current())
            third_link = universe.link()
            assert third_link == (process.pid, *link)
            gevent.spawn(third, third_link).join()
            universe.drop()
            return universe.current() is process.pid

        def third(link):
            universe.adopt(link)
            seen.append(universe.current())

        seen = []
        assert as_process(second)
        return seen == [process.pid, process.pid]

    assert as_process(main)


def test_a_greenlet_of_another_thread_may_join():
    def there():
        universe.adopt(link)
        return universe.current()

    link = universe.link()
    assert Native(there).result() is universe.current()


def test_neither_gevent_spawn_nor_spawn_hands_it_on():
    """The parity table's row 142: gevent.spawn does not inherit contextvars; and MV, whose `spawn` does not either."""
    mine = universe.current()
    assert gevent.spawn(universe.current).get() is not mine
    assert as_process(lambda _: universe.current()) is not mine


@pytest.mark.parametrize("link", [None, (), [], "link", 7, ("not", "pids")])
def test_what_is_no_link_is_shown(link):
    with pytest.raises(ConfigError, match=r"what universe\.link\(\) returns") as caught:
        universe.adopt(link)
    assert repr(link) in str(caught.value)


# Servers.


@pytest.mark.parametrize("start", [lambda: Opted.start(), lambda: Where.start_link(forward_callers=True)])
def test_universe_server(start):
    """Case 193, MV server_test, gen_server_test: by class keyword and by start option; from any greenlet."""
    assert answer_of(start()) is universe.current()
    assert gevent.spawn(lambda: answer_of(start()) is universe.current()).get()
    assert as_process(lambda process: answer_of(start()) is process.pid)

    def nested():
        return answer_of(start()) is universe.current()

    assert answer_of(Opted.start(), nested)


def test_a_server_knows_the_callers_of_its_starter_the_nearest_first():
    """The chain of `$callers`."""

    def main(process):
        outer = Opted.start()

        def inner():
            pid = Opted.start()
            callers = info(pid)["callers"]
            stop(pid)
            return callers

        return answer_of(outer, inner) == [outer, process.pid]

    assert as_process(main)


def test_of_many_callers_the_nearest_and_the_root_are_kept():
    def ask(asked):
        pids.append(current())
        if asked:
            Task.start(ask, asked - 1)
        else:
            links.append(universe.link())
            asked_all.set()

    pids, links, asked_all = [], [], Event()
    as_process(lambda _: [ask(3 * universe.KEPT)])
    assert asked_all.wait(PATIENCE)
    (link,) = links
    assert link == (*reversed(pids[-universe.KEPT + 1 :]), pids[0])


def test_a_process_that_has_ended_keeps_no_callers():
    def ask():
        with universe.fresh():
            return gevent.spawn(adopted, universe.link())

    def adopted(link):
        universe.adopt(link)
        ends.append(current())

    ends = []
    pid = as_process(lambda _: Task.start(ends.append, 1))
    assert pid.process.callers != ()
    ended(pid)
    ask().join()
    settle()
    assert pid.process.callers == ends[1].process.callers == ()


def test_universe_off():
    """Case 198, MV non_multiverse_test: no effect when not opted in."""
    for pid in (Where.start(), Where.start_link(), Opted.start(forward_callers=False)):
        assert info(pid)["callers"] == []
        assert answer_of(pid) is pid


def test_a_registry_that_is_not_sharded_knows_no_universes():
    registry = Registry.start(keys="unique")

    def main(process):
        Registry.register(registry, "key")
        with universe.fresh():
            return Registry.lookup(registry, "key") == [(process.pid, None)] and Registry.count(registry) == 1

    assert as_process(main)
    stop(registry)


# A fresh one.


def test_a_fresh_universe_lasts_for_its_block():
    before = universe.current()
    with universe.fresh("a test") as link:
        root = universe.current()
        assert root is not before
        assert link == universe.link() == (current(), root)
        assert "a test" in repr(root)
        assert is_alive(root)
        with universe.fresh():
            assert universe.current() not in (root, before)
        assert universe.current() is root
    assert universe.current() is before


def test_a_monitor_on_a_universe_tells_when_it_is_over():
    def main(process):
        with universe.fresh():
            root = universe.current()
            ref = monitor(root)
        return list(process.inbox.mailbox) == [Down(ref, root, NORMAL)]

    assert as_process(main)


def test_a_fresh_universe_is_left_when_its_block_raises():
    before = universe.current()
    with pytest.raises(KeyError), universe.fresh():
        raise KeyError("boom")
    assert universe.current() is before


# A sharded registry.


@pytest.fixture
def rooms():
    """A sharded registry with unique keys."""
    pid = Registry.start(keys="unique", name="rooms", sharded=True)
    yield pid
    kill(pid)
    ended(pid)


@pytest.fixture
def topics():
    """A sharded registry with duplicate keys."""
    pid = Registry.start(keys="duplicate", name="topics", sharded=True)
    yield pid
    kill(pid)
    ended(pid)


def elsewhere(function):
    """What the function returns in another universe."""
    with universe.fresh():
        return function()


@pytest.fixture
def twins(rooms):
    """Two processes under the same key, "hello": one in this universe, and one in another, whose link is the third."""
    with universe.fresh() as link:
        there = Opted.start()
        call(there, lambda: Registry.register("rooms", "hello", "there"))
    here = Opted.start()
    call(here, lambda: Registry.register("rooms", "hello", "here"))
    yield here, there, link
    stop(here)
    stop(there)


def test_universe_registry(twins):
    """Case 197, MV registry/count, lookup, keys, dispatch, select: the same key in two universes."""
    here, there, link = twins
    dispatched = []

    def look():
        Registry.dispatch("rooms", "hello", dispatched.append)
        return (
            Registry.lookup("rooms", "hello"),
            Registry.count("rooms"),
            Registry.keys("rooms", here),
            Registry.values("rooms", "hello", here),
            Registry.select("rooms"),
            Registry.match("rooms", "hello", lambda _: True),
            whereis(Via("rooms", "hello")),
        )

    def there_look():
        universe.adopt(link)
        return look()

    assert look() == ([(here, "here")], 1, ["hello"], ["here"], [("hello", here, "here")], [(here, "here")], here)
    expected = ([(there, "there")], 1, [], [], [("hello", there, "there")], [(there, "there")], there)
    assert gevent.spawn(there_look).get() == expected
    assert dispatched == [[(here, "here")], [(there, "there")]]
    assert elsewhere(lambda: (Registry.count("rooms"), Registry.lookup("rooms", "hello"))) == (0, [])


def test_universe_registry_unregister_and_update(twins):
    """Case 197, MV registry/unregister, update_value: one's own, in the universe that one is in."""
    here, there, _ = twins

    def change():
        assert Registry.update_value("rooms", "hello", str.upper) == ("HERE", "here")
        with universe.fresh():
            with pytest.raises(NotFound):
                Registry.update_value("rooms", "hello", pytest.fail)
            Registry.unregister("rooms", "hello")
        assert Registry.count("rooms") == 1
        Registry.unregister("rooms", "hello")
        return Registry.count("rooms")

    assert call(here, change) == 0
    assert call(there, lambda: Registry.lookup("rooms", "hello")) == [(there, "there")]


def test_one_process_may_have_a_key_in_two_universes_and_loses_both_when_it_ends(rooms):
    def main(process):
        Registry.register("rooms", "key", 1)
        elsewhere(lambda: Registry.register("rooms", "key", 2))
        with pytest.raises(AlreadyRegistered):
            Registry.register("rooms", "key", 3)
        Registry.unregister("rooms", "key")
        return len(info(rooms)["links"])

    assert as_process(main) == 1
    assert info(rooms)["links"] == []


def test_universe_registry_duplicate(topics):
    """Case 197, MV registry/dispatch with duplicate keys."""
    me = current()
    Registry.register("topics", "news", 1)
    Registry.register("topics", "news", 2)
    elsewhere(lambda: Registry.register("topics", "news", 3))
    assert Registry.lookup("topics", "news") == [(me, 1), (me, 2)]
    Registry.unregister("topics", "news")


def test_universe_registry_via(rooms):
    """Case 197, MV registry/via: the name is in the universe of who starts the process, opted in or not."""
    name = Via("rooms", "lobby")
    here = Where.start(name=name)
    with universe.fresh():
        there = Where.start(name=name)
        assert whereis(name) is there
        with pytest.raises(AlreadyStarted):
            Where.start(name=name)
        stop(name)
        assert whereis(name) is None
    assert whereis(name) is here
    assert answer_of(name) is here
    assert whereis(name) is None


def test_a_name_of_a_sharded_registry_from_a_greenlet_that_was_no_process_before(rooms):
    name = Via("rooms", "lobby")

    def first_use():
        pid = Where.start(name=name)
        return whereis(name) is pid and Registry.count("rooms") == 1

    assert gevent.spawn(first_use).get()
    with universe.fresh():
        pid = Opted.start()
        register(pid, name)
        unregister(name)
        assert whereis(name) is None
        stop(pid)


def test_reads_of_a_sharded_registry_make_no_process_of_a_greenlet(rooms):
    def main():
        seen = (Registry.lookup("rooms", "key"), Registry.keys("rooms", rooms), whereis(Via("rooms", "key")))
        return seen, hasattr(gevent.getcurrent(), "erps_process")

    assert gevent.spawn(main).get() == (([], [], None), False)


def test_locks_of_two_universes_do_not_wait_for_each_other(rooms):
    def hold():
        held.set()
        release.wait()

    held, release = Event(), Event()
    holder = spawn(lambda _: Registry.lock("rooms", "key", hold))
    held.wait()
    assert elsewhere(lambda: Registry.lock("rooms", "key", lambda: "mine")) == "mine"
    release.set()
    ended(holder)


def test_the_start_of_a_process_that_fails_frees_its_name_in_the_universe_of_the_starter(rooms):
    name = Via("rooms", "lobby")
    with universe.fresh():
        for _ in range(2):
            with pytest.raises(Exception, match="longer than"):
                Probe.start(None, lambda _: Event().wait(), name=name, timeout=0.001)
            assert whereis(name) is None
            assert Registry.count("rooms") == 0


# Supervisors.


def restarted(supervisor, pid):
    """Kill the only child, and return the pid of the next one."""
    kill(pid)
    ended(pid)
    while (again := child_of(supervisor)) in (pid, RESTARTING):
        gevent.sleep(0)
    return again


def child_of(supervisor):
    ((_, pid, _, _),) = DynamicSupervisor.which_children(supervisor)
    return pid


@pytest.mark.parametrize("opted", [True, False])
def test_universe_dynamic_supervisor(dynamic, opted):
    """Cases 195 and 198, MV dynamic_supervisor/basic_test: the caller's universe, not the supervisor's, also after a
    restart that happens when the caller is gone."""
    supervisor = dynamic(forward_callers=True)
    spec = (Opted if opted else Where).child_spec()
    with universe.fresh() as link:
        pid = DynamicSupervisor.start_child(supervisor, spec)
        theirs = universe.current()
    assert theirs is not universe.current()
    assert call(pid, "where") is (theirs if opted else pid)
    again = restarted(supervisor, pid)
    assert call(again, "where") is (theirs if opted else again)
    assert info(supervisor)["callers"] == [current()]
    assert info(again)["callers"] == ([supervisor, *link] if opted else [])


@pytest.mark.parametrize("opted", [True, False])
def test_universe_supervisor(supervise, opted):
    """Cases 196 and 198, MV supervisor/basic_test: a static tree is in the universe of its starter, where opted in."""
    with universe.fresh():
        supervisor = supervise(Opted.child_spec(), forward_callers=opted)
        theirs = universe.current()
    pid = child_of(supervisor)
    expected = theirs if opted else supervisor
    assert call(pid, "where") is expected
    again = restarted(supervisor, pid)
    assert call(again, "where") is expected


def test_children_of_one_supervisor_have_the_same_name_in_two_universes(dynamic, rooms):
    """What both are for: names that the tests share, under a supervisor that they share; also after a restart."""
    supervisor = dynamic()
    name = Via("rooms", "lobby")
    here = DynamicSupervisor.start_child(supervisor, Opted.child_spec(name=name))
    with universe.fresh():
        there = DynamicSupervisor.start_child(supervisor, Opted.child_spec(name=name))
        assert whereis(name) is there
        kill(there)
        ended(there)
        while whereis(name) is None:
            gevent.sleep(0)
        assert whereis(name) not in (here, there)
    assert whereis(name) is here


def test_settings_of_a_universe_are_a_dictionary_by_its_root():
    """What Multiverses.Application is for: settings that hide those of everybody, also by being absent."""
    absent = object()
    everybodys, ours = {"retries": 3, "region": "north"}, {}

    def setting(key):
        value = ours.get((universe.current(), key), everybodys.get(key, absent))
        return None if value is absent else value

    with universe.fresh():
        ours[universe.current(), "retries"] = 5
        ours[universe.current(), "region"] = absent
        assert (setting("retries"), setting("region")) == (5, None)
        with universe.fresh():
            assert (setting("retries"), setting("region")) == (3, "north")
    assert (setting("retries"), setting("region")) == (3, "north")
