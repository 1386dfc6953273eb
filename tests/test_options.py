"""The tables of options: the defaults that README promises, and what is said of a bad value."""

from __future__ import annotations

import pytest
from packaging.specifiers import SpecifierSet

from erps_gevent.client import Client
from erps_gevent.daemon import Daemon
from erps_gevent.errors import ConfigError
from erps_gevent.options import CLIENT, DAEMON, SERVER
from erps_gevent.otp.behaviour import checked
from erps_gevent.otp.child_spec import CHILD
from erps_gevent.otp.names import Via
from erps_gevent.server import Server
from erps_gevent.transport.tcp import Tcp
from erps_gevent.wire.signing import Keyring

TABLES = {"server": SERVER, "client": CLIENT, "daemon": DAEMON}

DEFAULTS = {
    "identifier": "",
    "version": (0, 0, 0),
    "versions": None,
    "safe": True,
    "compressed": False,
    "codec": "cbor",
    "signing": None,
    "pacing": 0.15,
    "max_size": 16 * 1024 * 1024,
    "max_pending": 1000,
    "max_pushes": 1000,
    "connect_timeout": 5.0,
    "send_timeout": 30.0,
    "keepalive": 25.0,
    "dead_after": 60.0,
    "reconnect": 60.0,
    "heal": True,
    "hub": "auto",
    "max_connections": 10_000,
    "max_handshakes": 1000,
    "handshake_timeout": 5.0,
    "reuse_port": False,
    "expose_tracebacks": False,
    "id": None,
    "restart": "permanent",
    "forward_callers": False,
    "shutdown": 5.0,
    "server_supervisor": None,
}
OTHER = {"daemon": {"shutdown": None}}  # so many seconds as its stop_timeout asks for

COUNTS = ("max_pending", "max_pushes", "max_connections", "max_handshakes")
FOR_EVER = ("connect_timeout", "keepalive", "dead_after")
SECONDS = (*FOR_EVER, "send_timeout", "reconnect", "handshake_timeout")
FLAGS = ("safe", "heal", "expose_tracebacks", "reuse_port", "forward_callers")


class Keeper:
    def start_child(self, child_spec):
        raise NotImplementedError(child_spec)


CONNECTIONS = Via("supervisors", "connections")
KEEPER = Keeper()
RING = Keyring({"2024": b"open sesame open"})

GOOD = [
    ("identifier", "counter", "counter"),
    ("identifier", "ä" * 18, "ä" * 18),
    ("version", "1.0.3", (1, 0, 3)),
    ("version", "2", (2, 0, 0)),
    ("versions", "~=1.0", SpecifierSet("~=1.0")),
    ("versions", SpecifierSet(">=1,<3"), SpecifierSet(">=1,<3")),
    ("versions", None, None),
    ("compressed", True, True),
    ("compressed", 0, 0),
    ("compressed", 9, 9),
    ("codec", "cbor", "cbor"),
    ("signing", RING, RING),
    ("signing", None, None),
    ("codec", "etf", "etf"),
    ("pacing", 0, 0),
    ("pacing", 0.5, 0.5),
    ("max_size", 1000, 1000),
    ("hub", "here", "here"),
    ("hub", "thread", "thread"),
    ("id", ("any", "thing"), ("any", "thing")),
    ("restart", "transient", "transient"),
    ("shutdown", 0, 0),
    ("shutdown", "brutal_kill", "brutal_kill"),
    ("shutdown", "infinity", "infinity"),
    ("server_supervisor", "connections", "connections"),
    ("server_supervisor", CONNECTIONS, CONNECTIONS),
    ("server_supervisor", KEEPER, KEEPER),
    *((name, 1, 1) for name in COUNTS),
    *((name, 0.25, 0.25) for name in SECONDS),
    *((name, None, None) for name in FOR_EVER),
    *((name, False, False) for name in FLAGS),
]
BAD = [
    ("identifier", "x" * 37),
    ("identifier", "a\0b"),
    ("identifier", b"counter"),
    ("version", "1.0.3rc1"),
    ("version", "256.0.0"),
    ("version", (1, 0, 3)),
    ("version", None),
    ("versions", "about 1"),
    ("versions", 1.0),
    ("versions", b"~=1.0"),
    ("versions", ["~=1.0"]),
    ("compressed", 10),
    ("compressed", -1),
    ("compressed", None),
    ("compressed", 1.5),
    ("codec", "json"),
    ("codec", None),
    ("signing", {"2024": b"open sesame open"}),
    ("signing", b"open sesame open"),
    ("signing", False),
    ("pacing", -0.1),
    ("pacing", None),
    ("max_size", 999),
    ("hub", "there"),
    ("restart", "always"),
    ("shutdown", -1),
    ("shutdown", "soon"),
    ("server_supervisor", ""),
    ("server_supervisor", b"connections"),
    ("server_supervisor", object()),
    ("server_supervisor", Keeper),
    ("shutdown", None),
    *((name, bad) for name in COUNTS for bad in (0, -1, 1.5, True, None, "10")),
    *((name, bad) for name in SECONDS for bad in (0, -1, True, "5", float("nan"), float("inf"))),
    *((name, None) for name in SECONDS if name not in FOR_EVER),
    *((name, bad) for name in FLAGS for bad in (1, "yes", None)),
]


def check(name, value):
    table = next(table for table in TABLES.values() if name in table)
    return checked({name: value}, table, "Lab")[name]


@pytest.mark.parametrize("who", TABLES)
def test_the_defaults_are_those_that_are_promised(who):
    table = TABLES[who]
    assert {name: option.default for name, option in table.items()} == {
        name: DEFAULTS[name] for name in table
    } | OTHER.get(who, {})


def test_every_option_has_an_owner():
    assert set().union(*TABLES.values()) == set(DEFAULTS)


def test_no_option_of_the_daemon_is_one_of_its_servers_but_for_those_of_a_child():
    """One keyword of Daemon(...) would mean both. A child spec is the daemon's there, and the server's in its class."""
    assert DAEMON.keys() & SERVER.keys() == CHILD.keys()


@pytest.mark.parametrize(("name", "value", "taken"), GOOD)
def test_a_good_value_is_taken(name, value, taken):
    found = check(name, value)
    assert found == taken
    assert type(found) is type(taken)


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_an_error_that_names_the_option_and_the_place(name, value):
    with pytest.raises(ConfigError, match=f"Lab: {name}") as caught:
        check(name, value)
    assert caught.value.__cause__ is None
    assert "sesame" not in str(caught.value)


def test_an_option_that_does_not_exist_is_an_error_with_the_nearest_one():
    with pytest.raises(TypeError, match=r"Lab has no option 'reconect'; did you mean 'reconnect'\?"):
        checked({"reconect": 5}, CLIENT, "Lab")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Client(("localhost", 4747), transport=Tcp(), codec="etf", signing=RING),
        lambda: Daemon(("localhost", 0), Server, transport=Tcp(), codec="etf", signing=RING),
        lambda: type("Signed", (Client,), {}, codec="etf", signing=RING)(("localhost", 4747), transport=Tcp()),
    ],
)
def test_lines_of_etf_cannot_be_signed(make):
    with pytest.raises(ConfigError, match=r"codec='etf': Erps 0\.7 does not sign.*Tls"):
        make()
