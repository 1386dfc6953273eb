"""A daemon as a process: what ends it, what it takes along, and what never reaches it."""

from __future__ import annotations

import errno
import logging
import os
import socket

import gevent
import pytest
from faces import PATIENCE, Gate, House, Lab, Notes, Parent, ended, free_port, greenlets, until, wire
from support import MS, Certs
from test_daemon import broken, connected

import erps_gevent as erps
from erps_gevent import Continue, Daemon, Ignore, Ok, Reply, Stop


def can_be_bound(daemon):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(daemon.address)
        sock.listen(1)
    return True


@pytest.fixture
def parent():
    pid = Parent.start()
    yield pid
    erps.kill(pid)


# Starting.


def test_it_serves_and_its_pid_and_its_name_lead_to_the_daemon(house):
    pid = house.process(name="lab daemon")
    daemon = Daemon.of("lab daemon")
    assert Daemon.of(pid) is daemon
    assert daemon.pid is pid
    assert erps.whereis("lab daemon") is pid
    assert repr(pid).endswith(" Daemon>")
    note = Notes()
    client = connected(house, pid, note)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert len(daemon.servers) == daemon.info()["servers"] == daemon.broadcast("news") == 1
    assert note.wait("push") == ["news"]
    assert daemon.server_port


def test_its_name_may_be_kept_in_a_registry(plain_house):
    class Registrar:
        def __init__(self):
            self.pids = {}

        def whereis_name(self, key):
            return self.pids.get(key)

        def register_name(self, key, pid, value):
            return self.pids.setdefault(key, pid) is pid

        def unregister_name(self, key):
            del self.pids[key]

    name = erps.Via(Registrar(), "lab")
    pid = plain_house.process(name=name)
    assert Daemon.of(name).pid is pid
    with pytest.raises(erps.AlreadyStarted) as caught:
        plain_house.process(name=name)
    assert caught.value.pid is pid
    erps.kill(pid)
    ended(pid)
    with pytest.raises(erps.NoProc):
        Daemon.of(name)


def test_an_address_in_use_is_a_start_error_with_that_cause(plain_house):
    first = plain_house.process()
    with pytest.raises(erps.StartError, match="the address is in use") as caught:
        plain_house.process(listener=Daemon.of(first).address, name="second")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EADDRINUSE
    assert erps.whereis("second") is None


def test_what_no_address_can_be_says_that_it_did_not_start(plain_house, tmp_path):
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(erps.StartError, match="Daemon did not start: ConfigError") as caught:
        plain_house.process(listener=str(path))
    assert isinstance(caught.value.__cause__, erps.ConfigError)


def test_what_is_wrong_is_said_at_once_and_starts_nothing():
    with pytest.raises(erps.ConfigError, match="transport"):
        Daemon.start_link(("127.0.0.1", 0), Lab)
    with pytest.raises(TypeError, match="did you mean 'max_connections'"):
        Daemon.start_link(("127.0.0.1", 0), Lab, transport=erps.Tcp(), max_connection=1)
    with pytest.raises(erps.ConfigError, match="timeout"):
        Daemon.start_link(("127.0.0.1", 0), Lab, transport=erps.Tcp(), timeout=-1)


@pytest.mark.parametrize("target", [None, "nobody"])
def test_of_needs_a_process(target):
    with pytest.raises(erps.NoProc if target else erps.ConfigError):
        Daemon.of(target)


def test_of_needs_a_daemon(parent):
    with pytest.raises(TypeError, match="is no daemon"):
        Daemon.of(parent)


# Child specs.


def test_a_child_spec_has_the_class_and_the_listener_for_its_id_and_time_to_stop():
    listener = ("127.0.0.1", 0)
    spec = Daemon.child_spec(listener, Lab, {}, transport=erps.Tcp())
    assert spec["id"] == (Daemon, listener)
    assert spec["start"] == (Daemon.start_link, (listener, Lab, {}), {"transport": spec["start"][2]["transport"]})
    assert (spec["restart"], spec["type"]) == ("permanent", "worker")
    assert spec["shutdown"] > Daemon.stop_timeout


def test_a_child_spec_takes_an_id_a_restart_and_a_shutdown():
    spec = Daemon.child_spec(
        ("127.0.0.1", 0), Lab, transport=erps.Tcp(), id="shop", restart="transient", shutdown="infinity", name="shop"
    )
    assert (spec["id"], spec["restart"], spec["shutdown"]) == ("shop", "transient", "infinity")
    assert spec["start"][2]["name"] == "shop"


def test_a_patient_daemon_has_a_patient_child_spec():
    class Patient(Daemon):
        stop_timeout = 600.0

    assert Patient.child_spec(("127.0.0.1", 0), Lab, transport=erps.Tcp())["shutdown"] > 600.0


def test_a_pair_may_be_a_list():
    spec = Daemon.child_spec(["127.0.0.1", 0], Lab, transport=erps.Tcp())
    assert spec["id"] == (Daemon, ("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"transport": None}, erps.ConfigError, "transport"),
        ({"restart": "always"}, erps.ConfigError, "restart is one of"),
        ({"shutdown": None}, erps.ConfigError, "shutdown is seconds"),
        ({"restrat": "temporary"}, TypeError, "did you mean 'restart'"),
        ({"timeout": "long"}, erps.ConfigError, "timeout"),
    ],
)
def test_what_is_wrong_with_a_child_spec_is_said_before_anything_is_started(change, error, text):
    with pytest.raises(error, match=text):
        Daemon.child_spec(("127.0.0.1", 0), Lab, **{"transport": erps.Tcp(), **change})


def test_a_bound_socket_can_be_started_but_not_restarted(plain_house):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(8)
    with pytest.raises(erps.ConfigError, match="give its address"):
        Daemon.child_spec(sock, Lab, transport=erps.Tcp())
    pid = plain_house.process(listener=sock)
    assert connected(plain_house, pid).call(("echo", 1), timeout=PATIENCE) == 1


# Ending.


def test_an_exit_of_the_parent_has_the_clients_move(house, parent):
    port = free_port()
    gate = Gate()
    pid = parent.call(lambda: house.process(Lab, {"gate": gate}, listener=("127.0.0.1", port), reuse_port=True))
    daemon = Daemon.of(pid)
    client = connected(house, pid)
    busy = gevent.spawn(client.call, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    successor = house.daemon(listener=daemon.address, reuse_port=True)
    parent.cast(erps.SHUTDOWN)
    until(lambda: client.stats["moves"] == 1 and client.connected)
    assert pid.is_alive()
    assert daemon.info()["draining"]
    gate.open()
    assert busy.get(timeout=PATIENCE).startswith("thr")
    assert ended(pid) is erps.SHUTDOWN
    assert client.stats["lost"] == 0
    assert len(successor.servers) == 1


def test_stop_is_a_stop_of_the_daemon(house):
    pid = house.process()
    daemon, client = Daemon.of(pid), connected(house, pid)
    erps.stop(pid)
    assert client.stats["moves"] == 1
    assert daemon.servers == []
    assert can_be_bound(daemon)
    with pytest.raises(erps.NoProc):
        Daemon.of(pid)


def test_a_shutdown_that_is_short_leaves_no_time_to_move(plain_house, parent):
    gate = Gate()
    pid = parent.call(lambda: plain_house.process(Lab, {"gate": gate}, shutdown=100 * MS))
    client = connected(plain_house, pid)
    busy = gevent.spawn(client.call, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    parent.cast(erps.SHUTDOWN)
    assert ended(pid) is erps.SHUTDOWN
    with pytest.raises((erps.ServerExit, erps.Disconnected)):
        busy.get(timeout=PATIENCE)


def test_a_daemon_that_is_closed_ends_its_process_as_serve_forever_returns(house):
    pid = house.process()
    client = connected(house, pid)
    Daemon.of(pid).close()
    assert ended(pid) is erps.NORMAL
    assert client.stats["moves"] == 1


def test_a_kill_closes_the_listening_socket_at_once_and_ends_its_servers(house):
    notes = Notes()
    pid = house.process(Lab, {}, notes)
    daemon, client = Daemon.of(pid), connected(house, pid)
    waiting = house.raw(daemon)
    until(lambda: daemon.info()["handshakes"])
    erps.kill(pid)
    ended(pid)
    assert can_be_bound(daemon)
    successor = house.process(listener=daemon.address)
    assert client.call(("echo", 1), timeout=PATIENCE, wait=True) == 1
    assert notes.of("terminate") == [erps.SHUTDOWN]
    until(lambda: daemon.servers == [])
    assert waiting.recv(1) == b""
    assert len(Daemon.of(successor).servers) == 1


def test_a_kill_removes_the_file_of_a_unix_socket(house, tmp_path):
    path = str(tmp_path / "sock")
    pid = house.process(listener=path)
    assert os.path.exists(path)
    erps.kill(pid)
    ended(pid)
    assert not os.path.exists(path)


def test_a_fatal_accept_error_is_the_exit_reason(plain_house, caplog):
    notes = Notes()
    parent = Parent.start(True, notes)
    pid = parent.call(plain_house.process)
    daemon = Daemon.of(pid)
    connected(plain_house, pid)
    broken(daemon, errno.EBADF)
    plain_house.sockets.append(socket.create_connection(daemon.address))
    (signal,) = notes.wait("info")
    assert signal.pid is pid
    assert isinstance(signal.reason, erps.StartError)
    assert signal.reason.__cause__.errno == errno.EBADF
    assert can_be_bound(daemon)
    until(lambda: daemon.servers == [])
    assert caplog.text.count("terminating") == 1
    erps.kill(parent)


def test_an_exit_of_somebody_else_is_only_logged(plain_house, caplog):
    pid = plain_house.process()
    erps.exit_(pid, "go away")
    assert connected(plain_house, pid).call(("echo", 1), timeout=PATIENCE) == 1
    assert "go away" in caplog.text


def test_it_can_be_killed_while_its_clients_move(plain_house):
    gate = Gate()
    pid = plain_house.process(Lab, {"gate": gate})
    daemon = Daemon.of(pid)
    client = connected(plain_house, pid)
    gevent.spawn(client.call, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    stopping = gevent.spawn(erps.stop, pid)
    until(lambda: client.stats["moves"])
    erps.kill(pid)
    with pytest.raises(erps.ServerExit) as caught:
        stopping.get(timeout=PATIENCE)
    assert caught.value.reason is erps.KILLED
    until(lambda: daemon.servers == [])


# What never reaches it.


class Fragile(erps.Server, identifier="lab", versions="~=1.0"):
    """Its init is what the test has put into `acts`, if anything."""

    def init(self, acts):
        return acts.pop()() if acts else None

    def handle_call(self, request, from_):
        return Reply("alive") if request == "ping" else 1 // 0

    def handle_continue(self, gate):
        gate()


def crash():
    raise LookupError("no such page")


@pytest.fixture
def acts():
    return []


@pytest.fixture
def daemon_pid(house, acts):
    """A daemon as a process, which must be alive, and serve, when the test is over."""
    pid = house.process(Fragile, acts)
    yield pid
    assert connected(house, pid).call("ping", timeout=PATIENCE) == "alive"
    assert pid.is_alive()


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 200, b"erps", b""], ids=repr)
def test_garbage_never_reaches_it(house, daemon_pid, rubbish):
    sock = house.raw(Daemon.of(daemon_pid))
    sock.sendall(rubbish)
    sock.shutdown(socket.SHUT_WR)
    until(lambda: Daemon.of(daemon_pid).info()["handshake_failures"] == 1)


def test_a_bad_tls_handshake_never_reaches_it(house, daemon_pid, impostor_certs):
    if house.wire.kind == "tcp":
        transport = wire("tls1.3", impostor_certs).client
    else:
        transport = wire(house.wire.kind, impostor_certs).client
    client = house.client(daemon_pid, transport=transport)
    with pytest.raises(erps.Disconnected):
        client.call("ping", timeout=PATIENCE)
    until(lambda: Daemon.of(daemon_pid).info()["handshake_failures"] >= 1)


@pytest.mark.parametrize(
    ("act", "cause", "text"),
    [
        (crash, erps.StartError, "no such page"),
        (Ignore, erps.StartIgnored, "Ignore"),
        (lambda: Stop("full"), erps.StartError, "full"),
        (lambda: "nonsense", erps.StartError, "nonsense"),
    ],
)
def test_an_init_that_comes_to_nothing_never_reaches_it(house, daemon_pid, acts, act, cause, text):
    acts.append(act)
    client = house.client(daemon_pid)
    with pytest.raises(erps.Disconnected) as caught:
        client.call("ping", timeout=PATIENCE)
    assert caught.value.sent is False
    assert isinstance(caught.value.__cause__, cause)
    assert text in str(caught.value)


def test_a_slow_handle_continue_never_reaches_it(house, daemon_pid, acts):
    slow = Gate()
    acts.append(lambda: Ok(Continue(slow)))
    client = connected(house, daemon_pid)
    slow.entered.wait(PATIENCE)
    assert connected(house, daemon_pid).call("ping", timeout=PATIENCE) == "alive"
    slow.open()
    assert client.call("ping", timeout=PATIENCE) == "alive"


def test_the_death_of_a_server_never_reaches_it(house, daemon_pid):
    client = connected(house, daemon_pid)
    with pytest.raises(erps.ServerExit):
        client.call("crash", timeout=PATIENCE)
    client.wait_connected(PATIENCE)
    (server,) = Daemon.of(daemon_pid).servers
    erps.kill(server.pid)
    until(lambda: client.stats["lost"] == 2)


def test_stray_messages_calls_and_casts_never_reach_it(daemon_pid, caplog):
    daemon_pid.send("stray")
    daemon_pid.send(None)
    erps.cast(daemon_pid, "stray cast")
    with pytest.raises(erps.ErrorReply, match="takes no calls") as caught:
        erps.call(daemon_pid, "stray call")
    assert caught.value.kind == "unknown_request"
    with caplog.at_level(logging.WARNING):
        assert "stray cast" in caplog.text


def test_nothing_is_left_over(kind, certs: Certs):
    def round_trip():
        house = House(wire(kind, certs))
        for end in (erps.kill, erps.stop):
            pid = house.process()
            connected(house, pid).call(("echo", 1), timeout=PATIENCE)
            if end is erps.kill:  # a stop gives it time to say who it is
                house.raw(Daemon.of(pid))
            end(pid)
        house.close()

    round_trip()
    before, open_before = greenlets(), len(os.listdir("/dev/fd"))
    for _ in range(3):
        round_trip()
    until(lambda: greenlets() <= before, "the greenlets")
    until(lambda: len(os.listdir("/dev/fd")) <= open_before, "the descriptors")
