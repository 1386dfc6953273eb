"""Applications that a host is given, and the end of several daemons."""

from __future__ import annotations

import logging
import sys
import types

import gevent
import gevent.pool
import pytest
from faces import PATIENCE, Lab, until

import erps_gevent as erps
from erps_gevent.errors import ConfigError
from erps_gevent.integrations.hosting import check_app, daemon_of, load_app, show_log, stop_all

TCP = erps.Tcp()
ANYWHERE = ("127.0.0.1", 0)
REMEDY = "a subclass of erps_gevent.Server, or a factory f(listener, transport) that returns a Daemon"


def factory(listener, transport):
    return erps.Daemon(listener, Lab, {}, transport=transport, max_connections=3)


def wsgi(environ, start_response):
    return []


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("some_app")
    made.Counter, made.make = Lab, factory
    monkeypatch.setitem(sys.modules, "some_app", made)
    return made


@pytest.mark.parametrize(("name", "app"), [("Counter", Lab), ("make", factory)])
def test_a_server_class_and_a_factory_are_applications(module, name, app):
    assert load_app(f"some_app:{name}") is app


@pytest.mark.parametrize("where", ["some_app", ":Counter", "some_app:", ""])
def test_an_application_is_named_with_its_module(module, where):
    with pytest.raises(ConfigError, match="write module:Name, such as myapp:Counter"):
        load_app(where)


def test_a_name_that_is_nearly_right_is_suggested(module):
    with pytest.raises(ConfigError, match="'some_app' has no 'Conter'; did you mean 'Counter'"):
        load_app("some_app:Conter")
    with pytest.raises(ConfigError, match=r"'some_app' has no 'xyz'$"):
        load_app("some_app:xyz")


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"no module 'nowhere_at_all'.*without \.py") as caught:
        load_app("nowhere_at_all.deeper:App")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_what_the_module_itself_misses_is_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "needy_app.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        load_app("needy_app:App")


@pytest.mark.parametrize(
    ("app", "complaint"),
    [
        (erps.Client, "is the class Client, which is no Server"),
        (7, "is 7"),
        (wsgi, "is a WSGI application, which speaks HTTP"),
        (lambda: None, r"cannot be called with \(listener, transport\)"),
        (print, None),
    ],
)
def test_what_is_no_application_is_named_with_what_to_give(app, complaint):
    if complaint is None:
        assert check_app(app, "app:x") is app, "what cannot be told beforehand shows when it is called"
        return
    with pytest.raises(ConfigError, match=f"app:x {complaint}") as caught:
        check_app(app, "app:x")
    assert REMEDY in str(caught.value)


def test_a_daemon_is_no_application_as_it_has_a_listener():
    with pytest.raises(ConfigError, match="is a Daemon, with a listener of its own"):
        check_app(factory(ANYWHERE, TCP), "app:x")


def test_a_class_gets_the_options_and_a_factory_sets_its_own():
    assert daemon_of(Lab, ANYWHERE, TCP, "app:x", max_connections=9).options["max_connections"] == 9
    assert daemon_of(factory, ANYWHERE, TCP, "app:x", max_connections=9).options["max_connections"] == 3


def test_a_factory_that_fails_or_returns_something_else_is_named():
    with pytest.raises(ConfigError, match="the factory app:x failed: ZeroDivisionError") as caught:
        daemon_of(lambda listener, transport: 1 / 0, ANYWHERE, TCP, "app:x")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(ConfigError, match="the factory app:x returned None; it is to return a Daemon"):
        daemon_of(lambda listener, transport: None, ANYWHERE, TCP, "app:x")


def test_all_listeners_are_closed_before_a_client_is_asked_to_move(plain_house):
    daemons = [plain_house.daemon() for _ in range(3)]
    clients = [plain_house.client(daemon) for daemon in daemons]
    for client in clients:
        client.wait_connected(timeout=PATIENCE)
    stopping = stop_all(daemons, PATIENCE)
    assert [daemon.started for daemon in daemons] == [False] * 3
    assert not any(daemon.info()["draining"] for daemon in daemons)
    gevent.joinall(stopping, timeout=PATIENCE, raise_error=True)
    assert [daemon.servers for daemon in daemons] == [[]] * 3
    until(lambda: all(client.stats["moves"] == 1 for client in clients))


def test_places_are_shared_by_all_daemons_of_a_host(plain_house):
    places = gevent.pool.Pool(1)
    daemons = [erps.Daemon(ANYWHERE, Lab, transport=TCP) for _ in range(2)]
    plain_house.daemons += daemons
    for daemon in daemons:
        daemon.hosted(places)
        daemon.start()
    plain_house.client(daemons[0]).wait_connected(timeout=PATIENCE)
    refused = plain_house.client(daemons[1], heal=False)
    with pytest.raises(erps.Disconnected) as caught:
        refused.wait_connected(timeout=PATIENCE)
    assert isinstance(caught.value.__cause__, erps.Overloaded)


def log_of(monkeypatch, root):
    """The library's logger as nobody has arranged it, under a root with these handlers.

    No fixture: pytest gives the root handlers of its own when the test begins.
    """
    logger = logging.getLogger("erps_gevent")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logging.getLogger(), "handlers", root)
    return logger


def test_the_librarys_log_goes_where_the_hosts_does(monkeypatch):
    logger, host = log_of(monkeypatch, []), logging.NullHandler()
    show_log([host])
    show_log([logging.NullHandler()])
    assert logger.handlers == [host]


def test_a_log_that_the_program_has_arranged_is_left_alone(monkeypatch):
    logger = log_of(monkeypatch, [logging.NullHandler()])
    show_log([logging.NullHandler()])
    assert logger.handlers == []
