"""Registry: entries of processes by key; names in registries; listeners, locks, and a model of it all."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from otp.kernel import Probe, as_process, ended, spawn

from erps_gevent.errors import (
    AlreadyRegistered,
    AlreadyStarted,
    ConfigError,
    ErrorReply,
    NotFound,
    StartError,
)
from erps_gevent.otp.gen import call, cast, stop
from erps_gevent.otp.gen_server import GenServer
from erps_gevent.otp.mailbox import receive, send
from erps_gevent.otp.messages import Reply
from erps_gevent.otp.names import Via
from erps_gevent.otp.primitives import exit_, info, is_alive, kill
from erps_gevent.otp.process import whereis
from erps_gevent.otp.registry import Registry
from erps_gevent.otp.words import KILL, SHUTDOWN

# Registering.


def test_reg_count(either, others):
    """Case 159, ERu/ERd "counts 0 keys in an empty registry", "counts the number of keys in a registry"."""
    assert Registry.count("rooms") == 0
    others(("hello", 1))
    others(("world", 1))
    assert Registry.count("rooms") == 2


def test_reg_unique(unique, others):
    """Case 160, ERu "has unique registrations", "... across processes"."""
    another = others(("hello", "value"))

    def main(process):
        with pytest.raises(AlreadyRegistered, match=r"'hello' of the registry 'rooms' belongs to <Pid") as taken:
            Registry.register("rooms", "hello", "recent")
        assert taken.value.pid is another
        assert Registry.keys("rooms", process.pid) == []
        Registry.register("rooms", "world")
        with pytest.raises(AlreadyRegistered) as own:
            Registry.register("rooms", "world", "again")
        assert own.value.pid is process.pid
        assert Registry.keys("rooms", process.pid) == ["world"]
        assert Registry.values("rooms", "world", process.pid) == [None]
        return True

    assert as_process(main)
    assert Registry.keys("rooms", another) == ["hello"]
    assert Registry.values("rooms", "hello", another) == ["value"]
    assert Registry.values("rooms", "world", another) == []
    assert Registry.lookup("rooms", "hello") == [(another, "value")]


def test_reg_duplicate(duplicate, others):
    """Case 161, ERd "has duplicate registrations", "... across processes"."""
    first = others(("hello", 1), ("hello", 2), ("world", 3))
    second = others(("hello", 4))
    assert Registry.keys("rooms", first) == ["hello", "hello", "world"]
    assert Registry.values("rooms", "hello", first) == [1, 2]
    assert Registry.lookup("rooms", "hello") == [(first, 1), (first, 2), (second, 4)]
    assert Registry.count("rooms") == 4


@pytest.mark.parametrize("how", ["kill", "crash", "return"])
def test_reg_cleanup(either, others, how):
    """Case 162, ER "clean up registry on process crash"."""

    def main(_):
        Registry.register("rooms", "one")
        Registry.register("rooms", "two")
        go.wait()
        if how == "crash":
            raise ValueError("boom")

    go = Event()
    process = spawn(main)
    gevent.sleep(0)
    assert Registry.count("rooms") == 2
    if how == "kill":
        kill(process.pid)
    go.set()
    ended(process)
    assert Registry.count("rooms") == 0
    assert Registry.select("rooms") == []
    assert Registry.keys("rooms", process.pid) == []
    assert info(either)["links"] == info(either)["monitors"] == []
    assert is_alive(either)
    assert not either.process.inbox.mailbox


def test_reg_unregister(either, others):
    """Case 168, ERu/ERd "unregisters ...", "... with no entries": one's own only, all of a key, and again."""
    another = others(("other", 1))

    def main(process):
        Registry.unregister("rooms", "hello")
        Registry.register("rooms", "hello", 1)
        Registry.register("rooms", "world", 2)
        Registry.unregister("rooms", "other")
        Registry.unregister("rooms", "hello")
        Registry.unregister("rooms", "hello")
        assert Registry.keys("rooms", process.pid) == ["world"]
        assert Registry.lookup("rooms", "hello") == []
        Registry.unregister("rooms", "world")
        assert Registry.keys("rooms", process.pid) == []
        return True

    assert as_process(main)
    assert Registry.keys("rooms", another) == ["other"]


def test_all_of_one_s_entries_under_a_key_are_unregistered(duplicate, others):
    """ERd "allows process unregistering"."""
    another = others(("hello", 0))

    def main(process):
        Registry.register("rooms", "hello", 1)
        Registry.register("rooms", "hello", 2)
        Registry.unregister("rooms", "hello")
        return Registry.lookup("rooms", "hello")

    assert as_process(main) == [(another, 0)]


def test_reg_unknown():
    """Case 171, ERu "raises on unknown registry name"."""
    with pytest.raises(ConfigError, match="unknown registry 'nowhere'; start it first"):
        Registry.register("nowhere", "hello")
    pid = Probe.start()
    with pytest.raises(ConfigError, match="unknown registry <Pid"):
        Registry.lookup(pid, "hello")
    stop(pid)


@pytest.mark.parametrize("registry", [None, "", 7, Registry, Via("rooms", 1)])
def test_what_is_no_registry_is_shown(registry):
    with pytest.raises(ConfigError, match="given by its name or its Pid, not by") as caught:
        Registry.lookup(registry, "hello")
    assert repr(registry) in str(caught.value)


def test_the_entries_of_a_process_are_asked_for_by_its_pid(either):
    with pytest.raises(TypeError, match="by its Pid, not by 'somebody'; whereis"):
        Registry.keys("rooms", "somebody")


# Update, dispatch, select.


def test_reg_update_value(unique, others):
    """Case 167, ERu "updates current process value"."""
    another = others(("hello", 0))

    def main(process):
        for key in ("hello", "nobody's"):
            with pytest.raises(NotFound, match=rf"has no key {key!r} in the registry 'rooms'; register it first"):
                Registry.update_value("rooms", key, pytest.fail)
        Registry.register("rooms", "world", 1)
        assert Registry.update_value("rooms", "world", lambda value: value + 1) == (2, 1)
        with pytest.raises(ZeroDivisionError):
            Registry.update_value("rooms", "world", lambda value: value / 0)
        return Registry.values("rooms", "world", process.pid)

    assert as_process(main) == [2]
    assert Registry.lookup("rooms", "hello") == [(another, 0)]


def test_update_value_of_a_duplicate_registry_is_refused(duplicate):
    """Case 167, ERd "update_value is not supported"."""
    with pytest.raises(ConfigError, match="update_value is not supported for duplicate registries, and 'rooms' is one"):
        Registry.update_value("rooms", "hello", pytest.fail)


def test_reg_dispatch(duplicate, others):
    """Case 169, ERu "dispatches to a single key"; ERd "... multiple keys in serial"."""
    calls = []
    Registry.dispatch("rooms", "hello", calls.append)
    assert calls == []
    first = others(("hello", 1), ("world", 3))
    second = others(("hello", 2))
    Registry.dispatch("rooms", "hello", calls.append)
    assert calls == [[(first, 1), (second, 2)]]
    Registry.dispatch("rooms", "world", calls.append)
    assert calls[1:] == [[(first, 3)]]


def test_reg_select_match(duplicate, others):
    """Optional, ERu/ERd select, match, count_match, whose patterns are functions here."""
    first = others(("hello", 1), ("hello", 2))
    second = others(("world", 3))
    assert Registry.select("rooms") == [("hello", first, 1), ("hello", first, 2), ("world", second, 3)]
    assert Registry.select("rooms", lambda key, pid, value: pid is first and value > 1) == [("hello", first, 2)]
    assert Registry.match("rooms", "hello", lambda value: value < 2) == [(first, 1)]
    assert Registry.match("rooms", "nobody's", lambda _: True) == []
    assert Registry.count_match("rooms", "hello", lambda _: True) == 2


def test_a_lock_does_not_wait_for_itself(either):
    assert Registry.lock("rooms", "key", lambda: Registry.lock("rooms", "key", lambda: "inner")) == "inner"


# The process of a registry.


def test_a_registry_answers_no_calls_and_drops_what_it_is_sent(either, caplog):
    with pytest.raises(ErrorReply, match=r"use its functions, such as Registry\.lookup") as caught:
        call("rooms", "hello")
    assert caught.value.kind == "unknown_request"
    cast("rooms", "a cast")
    send("rooms", "a message")
    with pytest.raises(ErrorReply):
        call("rooms", "hello")
    assert caplog.text.count("dropped") == 2
    assert is_alive(either)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, TypeError, "argument: 'keys'"),
        ({"keys": "uniq"}, ConfigError, "Registry.start: keys is one of 'unique', 'duplicate', not 'uniq'"),
        ({"keys": "unique", "sharded": 1}, ConfigError, "sharded is True or False, not 1"),
        ({"keys": "unique", "shard": True}, TypeError, "did you mean 'sharded'"),
        ({"keys": "unique", "listeners": "me"}, ConfigError, "listeners is a list of local names and Pids, not 'me'"),
        ({"keys": "unique", "listeners": [""]}, ConfigError, "listeners is a list"),
        ({"keys": "unique", "listeners": [7]}, ConfigError, "listeners is a list"),
    ],
)
def test_bad_options_are_refused_in_the_caller(options, error, text):
    with pytest.raises(error) as caught:
        Registry.start(name="rooms", **options)
    assert text in str(caught.value)
    assert whereis("rooms") is None


@pytest.mark.parametrize("name", ["", b"bytes", 7])
def test_a_bad_name_is_refused_in_the_caller(name):
    with pytest.raises(ConfigError, match="a non-empty str or a Via") as caught:
        Registry.start(keys="unique", name=name)
    assert repr(name) in str(caught.value)


def test_a_name_that_is_taken_or_cannot_be_is_told_as_for_every_process(either):
    with pytest.raises(AlreadyStarted, match="'rooms' belongs to") as taken:
        Registry.start(keys="unique", name="rooms")
    assert taken.value.pid is either
    with pytest.raises(ConfigError, match="there is no registry 'nowhere'"):
        Registry.start(keys="unique", name=Via("nowhere", "rooms"))
    with pytest.raises(StartError):
        Broken.start(keys="unique")


class Broken(Registry):
    def init(self, **options):
        raise ValueError("boom")


def test_a_registry_whose_name_is_found_can_be_used():
    """Whoever starts it if it is not there, and finds that somebody else just does."""
    starting = gevent.spawn(Registry.start, keys="unique", name="rooms")
    while whereis("rooms") is None:
        gevent.sleep(0)
    assert Registry.count("rooms") == 0
    stop(starting.get())


def test_a_child_spec_has_the_name_for_its_id():
    spec = Registry.child_spec(keys="unique", name="rooms")
    assert spec["id"] == "rooms"
    function, args, kwargs = spec["start"]
    pid = function(*args, **kwargs)
    assert Registry.count("rooms") == 0
    stop(pid)
    assert Registry.child_spec(keys="unique")["id"] is Registry


def test_listeners_of_a_registry_without_a_name_are_told_its_pid():
    def main(process):
        registry = Registry.start(keys="unique", listeners=(process.pid,))
        Registry.register(registry, "hello", 1)
        kill(registry)
        return receive(timeout=0) == ("register", registry, "hello", process.pid, 1)

    assert as_process(main)


# A model.


class Owner(GenServer):
    """Does in its own process what the machine tells it."""

    def handle_call(self, request, from_):
        function, *args = request
        try:
            return Reply(function(*args))
        except (AlreadyRegistered, NotFound) as error:
            return Reply(error)


class RegistryMachine(RuleBasedStateMachine):
    """A registry against lists of (key, owner, value): the keys of the model are their reprs, which differ."""

    keys = "unique"
    owners = Bundle("owners")
    some_keys = st.sampled_from([1, 1.0, True, "a", (1,), (1.0,)])

    def __init__(self):
        super().__init__()
        self.registry = Registry.start(keys=self.keys)
        self.model = []
        self.alive = []
        self.value = 0

    def teardown(self):
        for pid in [*self.alive, self.registry]:
            kill(pid)
            ended(pid)

    @rule(target=owners)
    def start(self):
        pid = Owner.start()
        self.alive.append(pid)
        return pid

    @rule(pid=owners, key=some_keys)
    def register(self, pid, key):
        self.value += 1
        got = call(pid, (Registry.register, self.registry, key, self.value))
        held = [owner for k, owner, _ in self.model if k == repr(key)]
        if self.keys == "unique" and held:
            assert got.pid is held[0]
        else:
            assert got is None
            self.model.append((repr(key), pid, self.value))

    @rule(pid=owners, key=some_keys)
    def unregister(self, pid, key):
        call(pid, (Registry.unregister, self.registry, key))
        self.model = [each for each in self.model if each[:2] != (repr(key), pid)]

    @rule(pid=owners, key=some_keys)
    def update(self, pid, key):
        if self.keys == "duplicate":
            return
        got = call(pid, (Registry.update_value, self.registry, key, lambda value: -value))
        own = [n for n, each in enumerate(self.model) if each[:2] == (repr(key), pid)]
        if not own:
            assert isinstance(got, NotFound)
            return
        (index,) = own
        old = self.model[index][2]
        assert got == (-old, old)
        self.model[index] = (repr(key), pid, -old)

    @rule(pid=consumes(owners), reason=st.sampled_from([KILL, "why", SHUTDOWN]))
    def die(self, pid, reason):
        exit_(pid, reason)
        ended(pid)
        self.alive.remove(pid)
        self.model = [each for each in self.model if each[1] is not pid]

    @rule(key=some_keys)
    def look_up(self, key):
        expected = [(pid, value) for k, pid, value in self.model if k == repr(key)]
        assert Registry.lookup(self.registry, key) == expected

    @invariant()
    def the_registry_is_the_model(self):
        assert Registry.count(self.registry) == len(self.model)
        found = [(repr(key), pid, value) for key, pid, value in Registry.select(self.registry)]
        assert sorted(found, key=repr) == sorted(self.model, key=repr)
        owners = {pid for _, pid, _ in self.model}
        assert set(info(self.registry)["links"]) == set(info(self.registry)["monitors"]) == owners
        for pid in self.alive:
            assert list(map(repr, Registry.keys(self.registry, pid))) == [k for k, who, _ in self.model if who is pid]


class DuplicateMachine(RegistryMachine):
    keys = "duplicate"


TestTheUniqueModel = RegistryMachine.TestCase
TestTheUniqueModel.settings = settings(max_examples=40, stateful_step_count=30)
TestTheDuplicateModel = DuplicateMachine.TestCase
TestTheDuplicateModel.settings = settings(max_examples=40, stateful_step_count=30)
