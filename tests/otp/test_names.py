"""Local names, and names in registries."""

from __future__ import annotations

import pytest
from otp.kernel import Phonebook

from erps_gevent.errors import AlreadyStarted, ConfigError
from erps_gevent.otp import names
from erps_gevent.otp.names import Via


class Holder:
    """What stands for the pid of a process, in a thread that lives until a test says otherwise."""

    def __init__(self):
        self.process = self.hub = self
        self.dead = False


A_PID = Holder()


@pytest.fixture
def held():
    names.take("held", A_PID)
    yield "held"
    names.free("held", A_PID)


def test_a_name_leads_to_its_holder(held):
    assert names.holder_of(held) == A_PID


def test_a_name_that_is_taken_stays_with_its_holder(held):
    with pytest.raises(AlreadyStarted, match=r"'held' belongs to <") as caught:
        names.take(held, "another")
    assert caught.value.pid == A_PID
    assert names.holder_of(held) == A_PID


def test_taking_a_name_again_changes_nothing(held):
    names.take(held, A_PID)
    assert names.holder_of(held) == A_PID


def test_a_freed_name_is_free_and_freeing_it_again_is_no_error(held):
    names.free(held, A_PID)
    names.free(held, A_PID)
    assert names.holder_of(held) is None


@pytest.mark.parametrize("name", ["", b"bytes", 7, ("tuple",), None, 1.0])
@pytest.mark.parametrize("act", [names.holder_of, lambda name: names.take(name, A_PID), names.check_name])
def test_bad_names_are_refused_and_shown(name, act):
    """Case 15, EG "start_link/3"."""
    with pytest.raises(ConfigError) as caught:
        act(name)
    assert repr(name) in str(caught.value)


# Names in registries.


class Keeper:
    """What stands for the pid of a registry."""

    process = None


@pytest.fixture
def book():
    return Phonebook()


@pytest.fixture
def keeper(book):
    keeper = Keeper()
    names.add_registrar(keeper, book)
    names.take("book", keeper)
    yield keeper
    names.free("book", keeper)
    names.remove_registrar(keeper)


@pytest.mark.parametrize("how", ["object", "pid", "name"])
def test_a_name_in_a_registry_is_taken_found_and_freed_there(how, book, keeper):
    name = Via({"object": book, "pid": keeper, "name": "book"}[how], "alice", "a value")
    names.take(name, "a pid")
    assert book.entries == {"alice": ("a pid", "a value")}
    assert names.holder_of(name) == "a pid"
    with pytest.raises(AlreadyStarted, match="belongs to 'a pid'") as caught:
        names.take(name, "another")
    assert caught.value.pid == "a pid"
    names.free(name, "a pid")
    assert names.holder_of(name) is None


def test_a_name_in_a_registry_that_is_not_there_is_nobody_s_and_cannot_be_taken():
    name = Via("no such registry", 1)
    assert names.holder_of(name) is None
    with pytest.raises(ConfigError, match="there is no registry 'no such registry'; start it first"):
        names.take(name, "a pid")
    names.free(name, "a pid")


def test_a_name_that_is_somebody_else_s_by_now_stays_with_them(book):
    name = Via(book, "alice")
    names.take(name, "another")
    names.free(name, "a pid")
    assert names.holder_of(name) == "another"


@pytest.mark.parametrize("registry", [None, "", 7, ("tuple",), object()])
def test_what_is_no_registry_is_refused_where_the_name_is_written(registry):
    """Case 15, EG "start_link/3": the value is shown."""
    with pytest.raises(ConfigError, match="whereis_name, register_name and unregister_name") as caught:
        Via(registry, 1)
    assert repr(registry) in str(caught.value)


def test_a_name_of_a_thread_that_has_ended_is_nobody_s_and_free():
    old, new = Holder(), Holder()
    names.take("passing", old)
    old.dead = True
    assert names.holder_of("passing") is None
    names.take("passing", new)
    assert names.holder_of("passing") is new
    names.free("passing", old)
    assert names.holder_of("passing") is new
    names.free("passing", new)
