"""The tables of options: the defaults that README promises, and what is said of a bad value."""

from __future__ import annotations

import pytest
from packaging.specifiers import SpecifierSet

import erps_gevent as erps
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
    "max_connection_age": None,
    "max_handshakes": 1000,
    "handshake_timeout": 5.0,
    "reuse_port": False,
    "blocking_threshold": 0.25,
    "expose_tracebacks": False,
    "id": None,
    "restart": "permanent",
    "forward_callers": False,
    "shutdown": 5.0,
    "server_supervisor": None,
}
OTHER = {"daemon": {"shutdown": None}}  # so many seconds as its stop_timeout asks for

COUNTS = ("max_pending", "max_pushes", "max_connections", "max_handshakes")
FOR_EVER = ("connect_timeout", "keepalive", "dead_after", "blocking_threshold")
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


def test_versions_may_be_a_requirement_of_elixir():
    found = check("versions", "~> 1.0 and < 2.0.0 or == 3.1.0")
    assert found.contains("3.1.0")
    assert not found.contains("2.0.0")


def test_a_bad_requirement_is_an_error_that_names_the_part():
    with pytest.raises(ConfigError) as caught:
        check("versions", "~> 1.0 and < 2")
    text = "Lab: versions: '< 2' in '~> 1.0 and < 2': '2' is no version of three numbers, as in '< 1.0.0'"
    assert str(caught.value) == text


# In class statements and at starts.

CHANGED = {
    "identifier": ("counter", "shop"),
    "version": ("1.0.3", "2.0.0"),
    "versions": ("~=1.0", "~> 2.0"),
    "safe": (False, True),
    "compressed": (True, 9),
    "codec": ("etf", "cbor"),
    "pacing": (0.5, 0),
    "signing": (RING, None),
    "max_size": (2000, 3000),
    "max_pending": (2, 3),
    "max_pushes": (2, 3),
    "connect_timeout": (2.0, None),
    "send_timeout": (2.0, 3.0),
    "keepalive": (2.0, None),
    "dead_after": (2.0, None),
    "reconnect": (2.0, 3.0),
    "heal": (False, True),
    "hub": ("here", "thread"),
    "expose_tracebacks": (True, False),
    "id": ("one", "other"),
    "restart": ("transient", "temporary"),
    "shutdown": (2.0, "infinity"),
    "forward_callers": (True, False),
}
FACES = {"server": erps.Server, "client": erps.Client}
OF_FACES = [(who, name) for who in FACES for name in TABLES[who]]
# What a daemon is told of these is about the daemon; its servers have them from their class.
AT_STARTS = [(who, name) for who, name in OF_FACES if (who, name) not in {("server", child) for child in CHILD}]


def stated(who, **keywords):
    """What `class Stated(erps.Server, ...)` makes."""
    return type("Stated", (FACES[who],), {}, **keywords)


def started(who, cls, **given):
    """The options that hold when it is started with those given."""
    if who == "client":
        return cls(("localhost", 1), transport=erps.Tcp(), **given)._lifeline.chosen
    return erps.Daemon(("127.0.0.1", 0), cls, transport=erps.Tcp(), **given).options


def test_each_option_of_a_class_is_tried():
    assert set(CHANGED) == {name for _, name in OF_FACES}


@pytest.mark.parametrize(("who", "name"), OF_FACES)
def test_a_class_keyword_wins_over_the_default_and_is_inherited(who, name):
    value = CHANGED[name][0]
    heir = type("Heir", (stated(who, **{name: value}),), {})
    assert str(heir.class_options[name]) == str(check(name, value))
    assert stated(who).class_options == {}


@pytest.mark.parametrize(("who", "name"), AT_STARTS)
def test_an_option_of_the_start_wins_over_the_class_keyword(who, name):
    of_class, of_start = CHANGED[name]
    cls = stated(who, **{name: of_class})
    found = [started(who, stated(who)), started(who, cls), started(who, cls, **{name: of_start})]
    wanted = [DEFAULTS[name], check(name, of_class), check(name, of_start)]
    assert [str(chosen[name]) for chosen in found] == list(map(str, wanted))


@pytest.mark.parametrize(("who", "name"), OF_FACES)
def test_a_misspelt_class_keyword_is_refused_at_the_class_statement(who, name):
    wrong = name[:-1] + "_" + name[-1]
    with pytest.raises(TypeError, match=f"class Stated has no option '{wrong}'; did you mean '{name}'"):
        stated(who, **{wrong: CHANGED[name][0]})


@pytest.mark.parametrize(("who", "name"), AT_STARTS)
def test_a_misspelt_option_is_refused_at_the_start(who, name):
    wrong = name[:-1] + "_" + name[-1]
    with pytest.raises(TypeError, match=f"'{wrong}'; did you mean '{name}'"):
        started(who, stated(who), **{wrong: CHANGED[name][0]})


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: str(value)[:20])
def test_a_bad_value_is_refused_at_the_class_statement_and_at_the_start(name, value):
    for who in FACES:
        if name in TABLES[who]:
            with pytest.raises(ConfigError, match=f"class Stated: {name}"):
                stated(who, **{name: value})
        if (who, name) in AT_STARTS:
            with pytest.raises(ConfigError, match=f"Stated: {name}"):
                started(who, stated(who), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    # None is the default of its shutdown: as long as its stop_timeout needs.
    [(name, value) for name, value in BAD if name in DAEMON and (name, value) != ("shutdown", None)],
)
def test_a_bad_value_is_refused_by_the_daemon(name, value):
    with pytest.raises(ConfigError, match=f"Daemon: {name}"):
        started("server", erps.Server, **{name: value})


@pytest.mark.parametrize("name", DAEMON)
def test_a_misspelt_option_is_refused_by_the_daemon(name):
    wrong = name[:-1] + "_" + name[-1]
    with pytest.raises(TypeError, match=f"'{wrong}'; did you mean '{name}'"):
        started("server", erps.Server, **{wrong: 1})


@pytest.mark.parametrize("name", [name for name in DAEMON if name not in CHILD])
def test_an_option_of_the_daemon_is_no_class_keyword(name):
    """A class does not listen: what is about listening is said where it is done."""
    with pytest.raises(TypeError, match=f"class Stated has no option '{name}'"):
        stated("server", **{name: 1})


@pytest.mark.parametrize(
    "name",
    ["base_packet", "decode_opts", "encode_opts", "hmac_key", "reply_cache", "reply_ttl", "sign_with", "tls_opts"],
)
@pytest.mark.parametrize("who", FACES)
def test_what_is_no_option_does_not_become_one_by_being_given(who, name):
    """Erps takes these, or lets them into its state, and most have no effect."""
    with pytest.raises(TypeError, match=f"class Stated has no option '{name}'"):
        stated(who, **{name: 1})
    with pytest.raises(TypeError, match=name):
        started(who, stated(who), **{name: 1})


@pytest.mark.parametrize("name", ["server_options", "timeout", "verification"])
def test_what_is_no_option_of_the_daemon_is_refused(name):
    with pytest.raises(TypeError, match=name):
        started("server", erps.Server, **{name: 1})


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
