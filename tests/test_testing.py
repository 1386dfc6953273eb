"""The pytest plugin: daemons and clients over each transport, and universes, in one session and in several at once."""

from __future__ import annotations

import re
import socket
import sys

import gevent
import pytest
from faces import PATIENCE, Gate, Lab, LabClient, Notes
from support import ROOT, run_python

import erps_gevent as erps
from erps_gevent import Registry
from erps_gevent.testing import Authority, Memory, cut

pytest_plugins = ["pytester"]

TRANSPORTS = ("memory", "tcp", "tls")


@pytest.fixture
def notes():
    return Notes()


def peer(server, from_):
    return erps.Reply((server.peer.common_name, server.peer.address[0]))


ACTS = {"peer": peer}
PEERS = {"memory": (None, "memory"), "tcp": (None, "127.0.0.1"), "tls": ("client", "127.0.0.1")}


def test_two_lines_start_a_daemon_and_a_client_over_memory(erps_daemon, erps_client):
    client = erps_client(erps_daemon(Lab, ACTS))
    assert client.call(("peer",)) == PEERS["memory"]
    assert not client.peer.certificate


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_argument_has_them_speak_another_transport(erps_daemon, erps_client, transport):
    client = erps_client(erps_daemon(Lab, ACTS, transport=transport))
    assert client.call(("peer",)) == PEERS[transport]


@pytest.mark.parametrize("erps_transport", TRANSPORTS)
def test_one_fixture_has_all_of_them_speak_another(erps_daemon, erps_client, erps_transport):
    daemon = erps_daemon(Lab, ACTS)
    assert erps_client(daemon).call(("peer",)) == PEERS[erps_transport]
    by_address = erps_client(daemon.address, LabClient)
    assert by_address.call(("peer",)) == PEERS[erps_transport]


def test_both_take_a_transport_as_it_is(erps_daemon, erps_client, erps_tls):
    daemon = erps_daemon(Lab, ACTS, transport=erps_tls.server())
    assert erps_client(daemon, transport=erps_tls.client("bob")).call(("peer",))[0] == "bob"
    memory = Memory()
    daemon = erps_daemon(Lab, ACTS, transport=memory)
    assert erps_client(daemon).call(("peer",)) == PEERS["memory"]
    assert erps_client(daemon.address, LabClient, transport=memory).call(("peer",)) == PEERS["memory"]


@pytest.mark.parametrize("wanted", ["udp", erps.Tls, 1])
def test_another_transport_is_refused(erps_daemon, wanted):
    with pytest.raises(erps.ConfigError) as caught:
        erps_daemon(Lab, transport=wanted)
    assert str(caught.value) == f"transport={wanted!r} is 'memory', 'tcp' or 'tls', or a transport such as Tls(...)"


def test_a_socket_of_a_network_is_no_listener_over_memory(erps_daemon):
    with (
        socket.socket() as bound,
        pytest.raises(erps.ConfigError, match=r"Memory\(\) has none: pass an address instead"),
    ):
        bound.bind(("127.0.0.1", 0))
        erps_daemon(Lab, listener=bound)


def test_what_the_program_under_test_starts_is_reached_too(erps_client, erps_memory, erps_tls):
    for transport, where in ((erps_memory, "memory"), (erps_tls.server(), "127.0.0.1")):
        with erps.Daemon(("127.0.0.1", 0), Lab, ACTS, transport=transport) as daemon:
            assert erps_client(daemon).call(("peer",))[1] == where


def test_arguments_and_options_are_those_of_daemon_and_client(erps_daemon, erps_client, erps_memory, notes):
    daemon = erps_daemon(Lab, acts=ACTS, listener="erps://lab.example:4747", max_connections=1)
    assert (daemon.address, daemon.info()["max_connections"]) == (("lab.example", 4747), 1)
    client = erps_client(daemon, LabClient, notes, reconnect=1.0)
    assert client.call(("peer",)) == PEERS["memory"]
    assert notes.wait("connect") == [erps.Peer(("lab.example", 4747))]
    with pytest.raises(erps.Disconnected) as caught:
        erps_client(daemon).call(("peer",))
    assert isinstance(caught.value.__cause__, erps.Overloaded)


@pytest.mark.parametrize(
    "versions",
    [None, "~=1.2", "!=0.0.0", ">1.5,<2", "<2", ">=1.2,!=1.2.0", "==2.*", "==3.1.0", "> 1.5.0 and < 2.0.0 or == 3.1.0"],
)
def test_a_plain_client_fits_the_daemon(erps_daemon, erps_client, versions):
    daemon = erps_daemon(Lab, ACTS, identifier="another", versions=versions)
    assert erps_client(daemon).call(("peer",)) == PEERS["memory"]


@pytest.mark.parametrize(
    "options",
    [{"codec": "etf"}, {"signing": erps.Keyring({"key": bytes(range(32))})}],
    ids=lambda options: str(*options),
)
def test_it_speaks_and_signs_as_the_daemon_does(erps_daemon, erps_client, options):
    assert erps_client(erps_daemon(Lab, {"one": lambda *_: erps.Reply(1)}, **options)).call(("one",)) == 1


@pytest.mark.parametrize("versions", ["<0", "==1.2.3.4", ">=300"])
def test_where_no_version_fits_the_client_is_told(erps_daemon, erps_client, versions):
    with pytest.raises(erps.Disconnected) as caught:
        erps_client(erps_daemon(Lab, versions=versions)).call(("peer",))
    assert isinstance(caught.value.__cause__, erps.VersionMismatch)


def test_what_the_class_or_the_test_says_is_not_made_to_fit(erps_daemon, erps_client):
    class Old(erps.Client, version="0.9.0"):
        pass

    class Stranger(erps.Client, identifier="stranger"):
        pass

    daemon = erps_daemon(Lab)
    for client, error in (
        (erps_client(daemon, Old), erps.VersionMismatch),
        (erps_client(daemon, version="2.0.0"), erps.VersionMismatch),
        (erps_client(daemon, Stranger), erps.IdentifierMismatch),
        (erps_client(daemon, identifier="stranger"), erps.IdentifierMismatch),
    ):
        with pytest.raises(erps.Disconnected) as caught:
            client.call(("peer",))
        assert isinstance(caught.value.__cause__, error)


def test_a_client_lives_in_the_hub_of_the_test_unless_it_is_told_otherwise(erps_daemon, erps_client):
    class Elsewhere(erps.Client, hub="thread"):
        pass

    daemon = erps_daemon(Lab, ACTS)
    clients = [erps_client(daemon), erps_client(daemon, hub="thread"), erps_client(daemon, Elsewhere)]
    assert [client.call(("peer",)) for client in clients] == [PEERS["memory"]] * 3
    assert [client.info()["hub"] for client in clients] == ["here", "thread", "thread"]


def test_a_client_heals_onto_a_daemon_that_is_started_again(erps_daemon, erps_client, notes):
    daemon = erps_daemon(Lab, ACTS)
    client = erps_client(daemon, LabClient, notes)
    client.call(("peer",))
    daemon.stop(timeout=0)
    daemon.start()
    client.connect()
    assert client.call(("peer",), wait=True) == PEERS["memory"]
    assert len(notes.of("connect")) == 2


END = """
    import pytest
    import erps_gevent as erps

    class Noting(erps.Server):
        def handle_call(self, request, from_):
            return erps.Reply(request)

        def terminate(self, reason):
            ends.append(reason)

    kept, ends = [], []

    @pytest.fixture(params=["memory", "tcp", "tls"])
    def erps_transport(request):
        return request.param

    def test_first(erps_client, erps_daemon):
        for hub in ("here", "thread"):
            daemon = erps_daemon(Noting)
            client = erps_client(daemon, hub=hub)
            assert client.call(1) == 1
            kept.append((daemon, client))
        erps_daemon(Noting).stop()
        erps_client(kept[0][0]).close()
        erps_client(kept[0][0])

    def test_second():
        assert [(daemon.info()["servers"], daemon.started) for daemon, _ in kept] == [(0, False)] * 6
        assert [client.info()["state"] for _, client in kept] == ["closed"] * 6
        assert ends == [erps.Shutdown("disconnected")] * 6  # the clients left before the daemons stopped
"""


def test_clients_are_closed_and_daemons_stopped_at_the_end_of_the_test(pytester):
    pytester.makepyfile(END)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=4)


def test_the_tests_in_the_documentation_pass(pytester):
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    pytester.makepyfile("\n\n".join(blocks))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    # erps_transport stands among them too, with three values. One test has no fixture.
    in_turns = re.findall(r"^def test_\w+\(erps_", page, flags=re.MULTILINE)
    result.assert_outcomes(passed=3 * len(in_turns) + 1)


@pytest.mark.parametrize("erps_transport", TRANSPORTS)
@pytest.mark.parametrize("hub", ["here", "thread"])
def test_a_cut_line_fails_what_is_pending_and_heals(erps_daemon, erps_client, notes, hub):
    gate, mine = Gate(), Notes()
    client = erps_client(erps_daemon(Lab, {"gate": gate, **ACTS}, notes), LabClient, mine, hub=hub)
    calling = gevent.spawn(client.call, ("gate",))
    assert gate.entered.wait(PATIENCE)
    cut(client)
    with pytest.raises(erps.Disconnected) as caught:
        calling.get(timeout=PATIENCE)
    assert caught.value.sent is True
    assert "the test has cut the line" in str(caught.value)
    client.call(("peer",))
    assert [error.reason for error in mine.wait("disconnect")] == ["reset"]
    assert (client.stats["lost"], client.stats["connects"]) == (1, 2)
    gate.open()
    assert notes.wait("terminate") == [erps.Shutdown("disconnected")]


def test_only_a_line_that_is_up_can_be_cut(erps_daemon, erps_client):
    client = erps_client(erps_daemon(Lab))
    for _ in range(2):
        with pytest.raises(erps.Disconnected) as caught:
            cut(client)
        assert caught.value.reason == "disconnected"
        assert "has no line to cut; wait_connected() waits for one" in str(caught.value)
        client.disconnect()


def test_an_authority_names_both_ends(erps_tls):
    assert erps_tls.ca.startswith(b"-----BEGIN CERTIFICATE-----")
    assert erps_tls.client(server_hostname="elsewhere").server_hostname == "elsewhere"


def test_a_server_may_have_another_name(erps_daemon, erps_client, erps_tls):
    daemon = erps_daemon(Lab, ACTS, transport=erps_tls.server("counter.example"))
    named = erps_tls.client(server_hostname="counter.example")
    assert erps_client(daemon, transport=named).call(("peer",)) == PEERS["tls"]
    with pytest.raises(erps.Disconnected, match="certificate"):
        erps_client(daemon).call(("peer",))


def test_a_second_authority_is_not_believed(erps_daemon, erps_client, erps_tls):
    stranger = Authority().client("mallory", ca=erps_tls.ca)
    with pytest.raises(erps.Disconnected) as caught:
        erps_client(erps_daemon(Lab, transport="tls"), transport=stranger).call(("peer",))
    assert caught.value.__cause__.reason == "certificate_refused"


def test_what_is_no_name_is_refused(erps_tls):
    with pytest.raises(erps.ConfigError, match="not a host name"):
        erps_tls.server("no name at all")


def test_without_trustme_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(erps.ConfigError) as caught:
        Authority()
    assert "pip install 'erps_gevent[testing]'" in str(caught.value)
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.fixture
def before():
    """The universe of this greenlet when no test has another; it is back at the end, as this fixture checks."""
    mine = erps.universe.current()
    yield mine
    assert erps.universe.current() is mine


def test_a_test_is_in_a_universe_of_its_own_and_its_value_is_the_link(before, universe):
    mine = erps.universe.current()
    assert mine is not before
    assert universe == erps.universe.link() == (erps.current(), mine)
    assert "test_a_test_is_in_a_universe_of_its_own" in repr(mine)


def test_others_adopt_the_value(universe):
    def main():
        erps.universe.adopt(universe)
        return erps.universe.current()

    assert gevent.spawn(main).get() is erps.universe.current()


@pytest.mark.parametrize("forward", [True, False])
def test_a_daemon_of_the_test_is_in_its_universe_if_it_forwards_its_callers(
    universe, erps_daemon, erps_client, forward
):
    seen = []

    def look(*_):
        seen.append(erps.universe.current())
        return erps.Reply(None)

    erps_client(erps_daemon(Lab, {"look": look}, forward_callers=forward)).call(("look",))
    assert (seen == [erps.universe.current()]) is forward


def test_a_universe_is_over_when_it_is_left(pytester):
    pytester.makepyfile("""
        import erps_gevent as erps

        seen = []

        def test_first(universe):
            seen.append(erps.universe.current())
            assert erps.is_alive(seen[0])

        def test_second(universe):
            assert erps.universe.current() is not seen[0]
            assert not erps.is_alive(seen[0])

        def test_third_asks_for_none():
            assert erps.universe.link() == (erps.current(),)
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


@pytest.fixture
def rooms():
    """A registry that other tests leave their entries in."""
    pid = Registry.start(keys="unique", name="rooms", sharded=True)
    yield pid
    erps.kill(pid)


def test_what_was_registered_before_is_not_seen(before, rooms, request):
    Registry.register("rooms", "lobby", "older")
    request.getfixturevalue("universe")
    Registry.register("rooms", "lobby", "mine")
    assert Registry.lookup("rooms", "lobby") == [(erps.current(), "mine")]


TESTS = """\
import erps_gevent as erps
from run import in_both

def test_one(universe):
    in_both(erps.universe.current())

def test_two(universe):
    in_both(erps.universe.current())
"""

# Each session waits in the middle of its test until the other one is there too.
RUN = """\
import queue, sys, threading
import gevent, gevent.queue, pytest

threads = "threads" in sys.argv
boxes = [queue.Queue() if threads else gevent.queue.Queue() for _ in range(2)]
mine = {{}}

def in_both(universe):
    number = mine[threading.get_ident() if threads else gevent.getcurrent()]
    boxes[1 - number].put(universe)
    assert boxes[number].get(timeout=30) is not universe
    boxes[1 - number].put("done")
    assert boxes[number].get(timeout=30) == "done"

def session(number, name):
    mine[threading.get_ident() if threads else gevent.getcurrent()] = number
    ends.append(int(pytest.main([*{options!r}, "test_it.py::" + name], plugins=[])))

if __name__ == "__main__":
    sys.modules["run"] = sys.modules["__main__"]
    ends = []
    def start(number, name):
        if not threads:
            return gevent.spawn(session, number, name)
        thread = threading.Thread(target=session, args=(number, name))
        thread.start()
        return thread
    for one in [start(0, "test_one"), start(1, "test_two")]:
        one.join()
    print(ends)
"""
OPTIONS = ["-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--capture=no"]


@pytest.mark.parametrize("where", ["greenlets", "threads"])
def test_tests_that_run_at_the_same_time_in_one_python_have_different_ones(where, tmp_path):
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "run.py").write_text(RUN.format(options=OPTIONS))
    child = run_python("run.py", where, cwd=tmp_path)
    assert (child.stdout, child.stderr) == ("[0, 0]\n", "")


def test_importing_it_starts_neither_hub_nor_thread():
    program = (
        "import erps_gevent.testing, threading; from gevent._hub_local import get_hub_if_exists as hub;"
        "print(hub(), threading.active_count())"
    )
    assert run_python("-c", program).stdout.strip() == "None 1"
