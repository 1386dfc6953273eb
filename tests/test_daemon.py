"""Daemon: how it listens, whom it lets in, what it shows, and how it stops without a failed call."""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
from time import monotonic

import gevent
import pytest
from faces import PATIENCE, Gate, House, Lab, LabClient, Notes, free_port, greenlets, until, wire
from gevent import socket as green
from gevent.event import Event
from gevent.pool import Pool
from otp.kernel import Native
from support import MS, Certs

import erps_gevent as erps
from erps_gevent import Reply, lines
from erps_gevent.integrations.threads import hub_thread
from erps_gevent.otp import bridge
from erps_gevent.server_connection import ServerConnection


def connected(house, daemon, *args, **options):
    client = house.client(daemon, *args, **options)
    client.wait_connected(timeout=PATIENCE)
    return client


def test_it_counts_and_shows_its_servers(house):
    daemon = house.daemon()
    one, two = connected(house, daemon), connected(house, daemon)
    one.call(("echo", 1), timeout=PATIENCE)
    first, second = daemon.servers
    assert (first.calls, second.calls) == (1, 0)
    assert (first.pending, second.pending) == (0, 0)
    assert first.pid.is_alive()
    assert first.address[0] == "127.0.0.1"
    assert first.connected_since <= second.connected_since
    assert first.received_bytes > 0
    if house.wire.kind != "tcp":
        assert "CN=alice" in first.subject
    info = daemon.info()
    assert info["address"] == daemon.address
    assert (info["servers"], info["handshakes"], info["accepted"], info["served"]) == (2, 0, 2, 2)
    assert info["accepting"]
    assert not info["draining"]
    two.close()
    until(lambda: len(daemon.servers) == 1)


def test_a_broadcast_reaches_every_client(house):
    daemon = house.daemon()
    notes = [Notes() for _ in range(3)]
    for note in notes:
        connected(house, daemon, note)
    assert daemon.broadcast(("news", 1)) == 3
    for note in notes:
        assert note.wait("push") == [("news", 1)]
    assert gevent.get_hub().threadpool.apply(daemon.broadcast, ("from a thread",)) == 3


def test_a_broadcast_that_cannot_be_sent_reaches_nobody(plain_house):
    daemon = plain_house.daemon()
    note = Notes()
    client = connected(plain_house, daemon, note)
    with pytest.raises(erps.EncodeError, match=r"message\[1\]"):
        daemon.broadcast([1, object()])
    daemon.broadcast("fine")
    assert note.wait("push") == ["fine"]
    assert client.connected


def test_a_broadcast_leaves_out_a_client_that_takes_only_smaller_messages(plain_house, caplog):
    daemon = plain_house.daemon()
    small, large = Notes(), Notes()
    connected(plain_house, daemon, small, max_size=1000)
    connected(plain_house, daemon, large)
    assert daemon.broadcast(b"x" * 2000) == 1
    assert large.wait("push") == [b"x" * 2000]
    assert "broadcast left out" in caplog.text


# Listeners.


@pytest.mark.parametrize(
    "form",
    [
        lambda port: ("127.0.0.1", port),
        lambda port: f"127.0.0.1:{port}",
        lambda port: port,
        lambda port: f"erps+tcp://127.0.0.1:{port}",
    ],
    ids=["pair", "text", "port", "url"],
)
def test_a_listener_has_many_forms(plain_house, form):
    port = free_port()
    daemon = plain_house.daemon(listener=form(port))
    assert daemon.server_port == port
    assert plain_house.client(("127.0.0.1", port)).call(("echo", 1), timeout=PATIENCE) == 1


def test_a_url_with_tcp_in_it_needs_no_transport(plain_house):
    daemon = erps.Daemon("erps+tcp://127.0.0.1:0", Lab)
    plain_house.daemons.append(daemon)
    daemon.start()
    client = LabClient(f"erps+tcp://127.0.0.1:{daemon.server_port}", hub="here")
    plain_house.clients.append(client)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1


@pytest.mark.parametrize("url", [False, True])
def test_it_listens_at_a_unix_socket(house, tmp_path, url):
    path = str(tmp_path / "sock")
    daemon = house.daemon(listener=f"erps+unix://{path}" if url else path)
    assert daemon.address == path
    assert house.client(path).call(("echo", 1), timeout=PATIENCE) == 1
    daemon.stop()
    assert not os.path.exists(path)


def test_two_daemons_share_a_port_when_both_ask_for_it(plain_house):
    first = plain_house.daemon(reuse_port=True)
    second = plain_house.daemon(listener=first.address, reuse_port=True)
    assert second.server_port == first.server_port
    first.stop()
    assert plain_house.client(second).call(("echo", 1), timeout=PATIENCE) == 1


@pytest.mark.parametrize("make", [green.socket, socket.socket], ids=["gevent", "plain"])
def test_it_takes_a_bound_socket(plain_house, make):
    sock = make()
    sock.bind(("127.0.0.1", 0))
    sock.listen(8)
    daemon = plain_house.daemon(listener=sock)
    one, two = plain_house.client(daemon), plain_house.client(daemon)
    assert one.call(("echo", 1), timeout=PATIENCE) == 1
    assert two.call(("echo", 2), timeout=PATIENCE) == 2


def test_an_address_that_is_taken_is_a_start_error(plain_house):
    daemon = plain_house.daemon()
    with pytest.raises(erps.StartError, match="in use") as caught:
        plain_house.daemon(listener=daemon.address)
    assert isinstance(caught.value.__cause__, OSError)


WRONG = [
    ({"transport": None}, erps.ConfigError, "no transport.*Tls.*Tcp"),
    ({"transport": "tls"}, erps.ConfigError, "no transport"),
    ({"transport": erps.Tcp}, erps.ConfigError, r"Tcp\(\.\.\.\)"),
    ({"spawn": None}, erps.ConfigError, "gevent Pool or its size"),
    ({"spawn": gevent.spawn_raw}, erps.ConfigError, "gevent Pool or its size"),
    ({"spawn": "raw"}, erps.ConfigError, "gevent Pool or its size"),
    ({"certfile": "x.pem"}, erps.ConfigError, r"transport=Tls\("),
    ({"ssl_context": 1}, erps.ConfigError, r"transport=Tls\("),
    ({"listener": "nonsense"}, erps.ConfigError, "host"),
    ({"listener": ("127.0.0.1", "80")}, erps.ConfigError, "port"),
    ({"listener": "erps://127.0.0.1:0"}, erps.ConfigError, r"erps\+tcp://"),
    ({"max_connection": 1}, TypeError, "did you mean 'max_connections'"),
    ({"max_connections": 0}, erps.ConfigError, "max_connections"),
    ({"handshake_timeout": "5"}, erps.ConfigError, "handshake_timeout"),
    ({"versions": "about 1"}, erps.ConfigError, "specifier"),
    ({"identifier": "x" * 37}, erps.ConfigError, "identifier"),
    ({"server": 7}, TypeError, "subclass of erps_gevent.Server"),
    ({"server": erps.GenServer}, TypeError, "subclass of erps_gevent.Server"),
    ({"args": (1, 2, 3)}, TypeError, r"Lab.init\("),
]


@pytest.mark.parametrize(("change", "error", "text"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_said_at_once(change, error, text):
    given = {"listener": ("127.0.0.1", 0), "server": Lab, "args": (), "transport": erps.Tcp(), **change}
    with pytest.raises(error, match=text):
        erps.Daemon(given.pop("listener"), given.pop("server"), *given.pop("args"), **given)


def test_a_transport_that_has_nothing_to_present_is_refused_at_once(certs):
    with pytest.raises(erps.ConfigError, match="cert= and key="):
        erps.Daemon(("127.0.0.1", 0), Lab, transport=erps.OneWayTls(ca=certs.ca))


def test_an_option_of_the_class_loses_against_the_daemons(plain_house):
    daemon = plain_house.daemon(identifier="other", max_pending=7)
    assert daemon.options["identifier"] == "other"
    assert daemon.options["max_pending"] == 7
    assert str(daemon.options["versions"]) == "~=1.0"


# Who is let in.


def test_silent_peers_hold_no_slot(house):
    daemon = house.daemon(max_connections=1, spawn=1)
    for _ in range(5):
        house.raw(daemon)
    client = house.client(daemon)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert daemon.info()["handshakes"] == 5


def test_a_silent_peer_is_dropped_after_the_handshake_timeout(house):
    daemon = house.daemon(handshake_timeout=30 * MS)
    sock = house.raw(daemon)
    assert sock.recv(100) == b""
    until(lambda: daemon.info()["handshake_failures"] == 1)
    assert daemon.info()["handshakes"] == 0


def test_the_oldest_silent_peer_gives_way_to_a_new_one(house):
    daemon = house.daemon(max_handshakes=2)
    oldest, older = house.raw(daemon), house.raw(daemon)
    until(lambda: daemon.info()["handshakes"] == 2)
    client = house.client(daemon)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert oldest.recv(100) == b""
    older.settimeout(20 * MS)
    with pytest.raises(TimeoutError):
        older.recv(100)


def test_peers_that_come_in_one_burst_give_way_too(house):
    daemon = house.daemon(max_handshakes=1)
    socks = [socket.create_connection(daemon.address) for _ in range(20)]
    until(lambda: daemon.info()["accepted"] == 20)
    until(lambda: daemon.info()["handshakes"] == 1)
    for sock in socks:
        sock.close()
    until(lambda: daemon.info()["handshakes"] == 0)
    gc.collect()


@pytest.mark.parametrize("spawn", [1, Pool(1)], ids=["size", "pool"])
def test_a_pool_bounds_the_servers_and_a_slot_comes_back(plain_house, spawn):
    daemon = plain_house.daemon(spawn=spawn)
    first = connected(plain_house, daemon)
    second = plain_house.client(daemon)
    with pytest.raises(erps.Disconnected) as caught:
        second.call(("echo", 1), timeout=PATIENCE)
    assert isinstance(caught.value.__cause__, erps.Overloaded)
    first.close()
    until(lambda: not daemon.servers)
    second.connect()
    assert second.call(("echo", 2), timeout=PATIENCE, wait=True) == 2
    assert daemon.info()["refused"] >= 1


class SlowStarter(erps.Server, identifier="lab"):
    def init(self, gate):
        gate()


@pytest.mark.parametrize("option", [{"spawn": 2}, {"max_connections": 2}], ids=str)
def test_servers_that_are_starting_take_their_slots(plain_house, option):
    gate = Gate()
    daemon = plain_house.daemon(SlowStarter, gate, **option)
    clients = [plain_house.client(daemon) for _ in range(3)]
    for client in clients:
        client.connect()
    until(lambda: daemon.info()["refused"])
    gate.open()
    until(lambda: len(daemon.servers) == 2)
    assert daemon.info()["refused"] >= 1


def test_garbage_on_one_line_leaves_the_others_alone(house):
    daemon = house.daemon()
    client = connected(house, daemon)
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(64), b"\0" * 500, b"erps" + b"\xff" * 9, b"\x16\x03\x01"):
        sock = house.raw(daemon)
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
        sock.close()
        assert client.call(("echo", garbage), timeout=PATIENCE) == garbage
    until(lambda: daemon.info()["handshake_failures"] == 5)
    assert len(daemon.servers) == 1


def test_garbage_after_the_welcome_ends_that_line_only(plain_house):
    noted = Notes()
    daemon = plain_house.daemon(Lab, {}, noted)
    client, other = connected(plain_house, daemon), connected(plain_house, daemon)
    client._lifeline.healer.line.outbox.write(b"erps\x00\x00\x00\x00\x77" + b"\0" * 87)
    assert noted.wait("terminate") == [erps.Shutdown("disconnected")]
    assert other.call(("echo", 1), timeout=PATIENCE) == 1
    assert other.stats["connects"] == 1


# Accepting.


class Failing:
    """A listening socket whose accept fails as often as it is told to."""

    def __init__(self, sock, errors):
        self._sock = sock
        self.errors = errors

    def _accept(self):
        if self.errors:
            raise self.errors.pop(0)
        return self._sock._accept()

    def __getattr__(self, name):
        if name == "_sock":
            raise AttributeError(name)
        return getattr(self.__dict__["_sock"], name)


def broken(daemon, *codes):
    """Have the next accepts fail with these errnos."""
    errors = [OSError(code, os.strerror(code)) for code in codes]
    listening = daemon.socket
    fake = Failing.__new__(Failing)
    fake.__dict__.update(_sock=listening, errors=errors)
    daemon.socket = fake
    return errors


def test_a_lack_of_descriptors_is_logged_once_and_heals(house, caplog):
    daemon = house.daemon()
    left = broken(daemon, *[errno.EMFILE] * 4)
    with caplog.at_level(logging.INFO, "erps_gevent"):
        client = house.client(daemon)
        assert client.call(("echo", 1), timeout=PATIENCE) == 1
        until(lambda: "accepting at" in caplog.text)
    assert not left
    assert caplog.text.count("cannot accept at") == 1
    assert caplog.text.count("accepting at") == 1
    assert daemon.info()["accept_errors"] == 4


def test_a_fatal_accept_error_comes_out_of_serve_forever(plain_house):
    daemon = plain_house.daemon()
    serving = gevent.spawn(daemon.serve_forever)
    gevent.idle()
    broken(daemon, errno.EBADF)
    plain_house.sockets.append(socket.create_connection(daemon.address))
    with pytest.raises(erps.StartError, match="impossible") as caught:
        serving.get(timeout=PATIENCE)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EBADF


# Stopping.


def test_with_starts_and_stops_it(house):
    with erps.Daemon(("127.0.0.1", 0), Lab, transport=house.wire.server) as daemon:
        assert daemon.started
        client = house.client(daemon)
        assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert not daemon.started
    assert daemon.servers == []
    until(lambda: not client.connected)


def test_serve_forever_returns_after_stop(plain_house):
    daemon = plain_house.daemon()
    serving = gevent.spawn(daemon.serve_forever)
    client = connected(plain_house, daemon)
    daemon.stop(timeout=PATIENCE)
    serving.get(timeout=PATIENCE)
    until(lambda: not client.connected)
    assert daemon.servers == []


def test_it_can_be_stopped_from_another_thread(plain_house):
    daemon = plain_house.daemon()
    connected(plain_house, daemon)
    gevent.get_hub().threadpool.apply(daemon.stop)
    assert daemon.servers == []


def test_it_can_be_started_again(plain_house):
    daemon = plain_house.daemon()
    address = daemon.address
    connected(plain_house, daemon).close()
    daemon.stop()
    daemon.start()
    assert daemon.address == address
    assert plain_house.client(daemon).call(("echo", 1), timeout=PATIENCE) == 1


def test_a_parked_handler_is_waited_for_and_then_ended(house):
    noted = Notes()
    gate = Gate()
    daemon = house.daemon(Lab, {"gate": gate}, noted)
    client = connected(house, daemon)
    call = gevent.spawn(client.call, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    daemon.stop(timeout=50 * MS)
    assert daemon.servers == []
    with pytest.raises(erps.CallExit) as caught:
        call.get(timeout=PATIENCE)
    assert isinstance(caught.value, erps.ServerExit)
    assert caught.value.reason is erps.KILLED
    assert caught.value.sent


def test_a_handler_that_ends_in_time_is_answered_during_the_stop(house):
    gate = Gate()
    daemon = house.daemon(Lab, {"gate": gate})
    client = connected(house, daemon)
    call = gevent.spawn(client.call, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    stopping = gevent.spawn(daemon.stop, timeout=PATIENCE)
    until(lambda: daemon.info()["draining"])
    assert not daemon.info()["accepting"]
    gate.open()
    assert call.get(timeout=PATIENCE) == "through"
    stopping.get(timeout=PATIENCE)


def test_a_drain_tells_whether_all_have_left(plain_house):
    gate = Gate()
    daemon = plain_house.daemon(Lab, {"gate": gate})
    client = connected(plain_house, daemon)
    gevent.spawn(client.call, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    assert daemon.drain(timeout=20 * MS) is False
    assert not daemon.started
    gate.open()
    assert daemon.drain(timeout=PATIENCE) is True
    assert daemon.servers == []


def test_a_drain_waits_until_a_client_has_heard_that_it_was_refused(plain_house, monkeypatch):
    told, go_on = Event(), Event()
    say = ServerConnection.say_farewell

    def slowly(connection, error):
        told.set()
        go_on.wait()
        say(connection, error)

    monkeypatch.setattr(ServerConnection, "say_farewell", slowly)
    daemon = plain_house.daemon(max_connections=1)
    plain_house.client(daemon).wait_connected(timeout=PATIENCE)
    plain_house.client(daemon).connect()
    assert told.wait(PATIENCE)
    assert daemon.drain(timeout=100 * MS) is False
    go_on.set()
    assert daemon.drain(timeout=PATIENCE) is True


def test_stop_waits_no_longer_than_a_drain_that_is_under_way(plain_house):
    gate = Gate()
    daemon = plain_house.daemon(Lab, {"gate": gate})
    client = connected(plain_house, daemon)
    call = gevent.spawn(client.call, ("gate",), timeout=PATIENCE)
    gate.entered.wait(PATIENCE)
    draining = gevent.spawn(daemon.drain, timeout=50 * MS)
    serving = gevent.spawn(daemon.stop)
    serving.get(timeout=5)
    assert draining.get(timeout=PATIENCE) is False
    with pytest.raises(erps.CallExit):
        call.get(timeout=PATIENCE)


def dup(daemon):
    return socket.socket(fileno=os.dup(daemon.socket.fileno()))


def second(house, daemon, *args):
    """A daemon on a dup of the first one's listening socket, as a reload has it."""
    return house.daemon(Lab, *args, listener=dup(daemon))


def test_a_successor_takes_over_under_load_and_every_token_is_executed_once(house):
    executed = []

    def execute(server, from_, token):
        executed.append(token)
        gevent.sleep(0)
        return Reply(token)

    daemon = house.daemon(Lab, {"execute": execute})
    clients = [house.client(daemon) for _ in range(4)]
    failures, stopping = [], []

    def load(client, name):
        for number in range(120):
            try:
                assert client.call(("execute", (name, number)), timeout=PATIENCE) == (name, number)
            except Exception as error:  # noqa: BLE001
                failures.append(error)
            if number == 40 and not stopping:
                stopping.append(daemon)
                successors.append(second(house, daemon, {"execute": execute}))
                stopping.append(gevent.spawn(daemon.stop, timeout=PATIENCE))

    successors = []
    loads = [gevent.spawn(load, client, (i, j)) for i, client in enumerate(clients) for j in range(5)]
    gevent.joinall(loads, timeout=PATIENCE, raise_error=True)
    stopping[1].get(timeout=PATIENCE)
    assert failures == []
    assert len(executed) == len(set(executed)) == 120 * 20
    assert daemon.servers == []
    assert len(successors[0].servers) == 4
    assert all(client.stats["moves"] == 1 for client in clients)


def test_a_line_that_is_being_greeted_during_a_drain_is_welcomed_and_moved(house):
    class Slow(Lab):
        def init(self, gate):
            super().init()
            gate()

    gate = Gate()
    daemon = house.daemon(Slow, gate)
    client = house.client(daemon)
    client.connect()
    gate.entered.wait(PATIENCE)
    successor = house.daemon(Lab, listener=dup(daemon))
    stopping = gevent.spawn(daemon.stop, timeout=PATIENCE)
    until(lambda: daemon.info()["draining"])
    call = gevent.spawn(client.call, ("echo", "new"), timeout=PATIENCE)
    gate.open()
    assert call.get(timeout=PATIENCE) == "new"
    stopping.get(timeout=PATIENCE)
    until(lambda: len(successor.servers) == 1)
    assert client.stats["moves"] == 1


def test_a_process_that_is_starting_is_ended_too(plain_house):
    gate = Gate()
    daemon = plain_house.daemon(SlowStarter, gate)
    plain_house.client(daemon).connect()
    gate.entered.wait(PATIENCE)
    daemon.stop(timeout=0)
    assert daemon.info()["servers"] == 0
    until(lambda: daemon.drain(timeout=0))


def test_a_server_that_swallows_its_exit_has_its_line_cut(plain_house, caplog):
    enough = []

    def stubborn(server, from_):
        while not enough:
            try:
                gevent.sleep(PATIENCE)
            except BaseException:  # noqa: BLE001  this is what the test is about
                continue
        return Reply("never")

    daemon = plain_house.daemon(Lab, {"stubborn": stubborn})
    client = connected(plain_house, daemon)
    call = gevent.spawn(client.call, ("stubborn",), timeout=PATIENCE)
    until(lambda: daemon.servers[0].pending)
    daemon.stop(timeout=0)
    with pytest.raises(erps.Disconnected) as caught:
        call.get(timeout=PATIENCE)
    assert caught.value.sent
    assert "its line is cut" in caplog.text
    enough.append(True)
    until(lambda: daemon.servers == [])


def test_nothing_is_left_over(kind, certs: Certs):
    def round_trip():
        house = House(wire(kind, certs))
        daemon = house.daemon()
        for _ in range(3):
            connected(house, daemon).call(("echo", 1), timeout=PATIENCE)
        house.raw(daemon)
        house.close()

    round_trip()
    before, open_before = greenlets(), len(os.listdir("/dev/fd"))
    for _ in range(3):
        round_trip()
    until(lambda: greenlets() <= before, "the greenlets")
    until(lambda: len(os.listdir("/dev/fd")) <= open_before, "the descriptors")


@pytest.fixture
def quick_looks(monkeypatch):
    """Lines are looked at every few milliseconds."""
    monkeypatch.setattr(lines, "LOOK_EVERY", 5 * MS)


def test_a_line_that_is_too_old_is_moved_and_the_daemon_goes_on_accepting(house, quick_looks):
    daemon = house.daemon(max_connection_age=100 * MS)
    client = connected(house, daemon)
    until(lambda: client.stats["moves"] >= 2)
    assert client.call(("echo", 1), timeout=PATIENCE) == 1
    assert daemon.started
    assert client.stats["lost"] == 0
    client.close()
    until(lambda: not daemon.servers)
    assert daemon._lines._due == {}


def test_lines_are_of_any_age_unless_it_is_limited(plain_house, quick_looks):
    daemon = plain_house.daemon()
    connected(plain_house, daemon)
    assert daemon.options["max_connection_age"] is None
    assert daemon._lines._due == {}


def test_ages_differ_a_little_so_that_not_all_clients_move_at_once(plain_house):
    daemon = plain_house.daemon(max_connection_age=1000.0)
    for _ in range(5):
        connected(plain_house, daemon)
    dues = [due - monotonic() for due in daemon._lines._due.values()]
    assert len(set(dues)) == 5
    assert all(890 < due <= 1100 for due in dues)


def test_the_count_of_calls_has_refusals_and_lines_that_have_ended(plain_house):
    daemon = plain_house.daemon()
    client = connected(plain_house, daemon)
    client.call(("echo", 1), timeout=PATIENCE)
    with pytest.raises(erps.ErrorReply):
        client.call("nonsense", timeout=PATIENCE)
    assert daemon.info()["calls"] == 2
    client.close()
    until(lambda: not daemon.servers)
    assert daemon.info()["calls"] == 2


def test_a_pool_that_was_given_is_not_replaced_by_a_hosts(plain_house):
    own = Pool(1)
    daemon = plain_house.daemon(spawn=own)
    daemon.hosted(Pool(5))
    assert daemon.places is own


# In the hub thread, for programs without gevent.


@pytest.fixture
def threaded(house):
    """A daemon that serves in the hub thread."""
    daemon = erps.Daemon(("127.0.0.1", 0), WhereAmI, transport=house.wire.server)
    house.daemons.append(daemon)
    daemon.start_in_thread()
    return daemon


class WhereAmI(Lab):
    """Answers where it runs."""

    def handle_call(self, request, from_):
        return Reply(gevent.get_hub() is hub_thread()) if request == "where" else super().handle_call(request, from_)


def test_in_a_thread_it_listens_when_start_in_thread_returns(house, threaded):
    assert threaded.server_port > 0
    assert threaded.info()["accepting"]
    assert house.client(threaded).call("where", timeout=PATIENCE) is True


@pytest.mark.parametrize("elsewhere", [lambda use: use(), lambda use: Native(use).result()], ids=["greenlet", "thread"])
def test_in_a_thread_all_of_it_can_be_used_from_any_other(house, threaded, elsewhere):
    notes = Notes()
    client = connected(house, threaded, notes)
    assert [server.calls for server in elsewhere(lambda: threaded.servers)] == [0]
    assert elsewhere(threaded.info)["servers"] == 1
    assert elsewhere(lambda: threaded.broadcast("news")) == 1
    assert notes.wait("push") == ["news"]
    client.close()
    assert elsewhere(lambda: threaded.drain(PATIENCE)) is True
    elsewhere(threaded.stop)
    assert threaded.closed
    assert not threaded.info()["accepting"]


def test_in_a_thread_serve_forever_parks_whoever_calls_it_until_it_is_stopped(house, threaded):
    connected(house, threaded)
    serving = Native(threaded.serve_forever)
    until(threaded._stop_event.linkcount, "who serves for ever")
    threaded.stop(timeout=PATIENCE)
    serving.result()
    assert threaded.servers == []


def test_close_from_another_thread_closes_the_socket_before_it_returns(threaded):
    address = threaded.address
    Native(threaded.close).result()
    with pytest.raises(ConnectionRefusedError):
        green.create_connection(address)


def test_in_a_thread_an_address_that_is_taken_is_an_error_here(threaded):
    second = erps.Daemon(threaded.address, Lab, transport=threaded.transport)
    with pytest.raises(erps.StartError) as caught:
        second.start_in_thread()
    assert isinstance(caught.value.__cause__, OSError)
    assert not second.started


def test_it_is_started_in_a_thread_only_once(threaded):
    with pytest.raises(erps.ConfigError, match=r"is started already; stop\(\) it first"):
        threaded.start_in_thread()


def test_the_daemon_of_a_process_is_not_started_in_a_thread(plain_house):
    daemon = erps.Daemon.of(plain_house.process())
    with pytest.raises(erps.ConfigError, match="belongs to the process"):
        daemon.start_in_thread()


def test_what_was_stopped_can_serve_in_the_thread_again(plain_house, threaded):
    threaded.stop(timeout=0)
    threaded.start_in_thread()
    assert threaded.started


@pytest.mark.parametrize("first", ["start", "start_in_thread"])
def test_it_serves_in_one_hub_only(plain_house, first):
    daemon = erps.Daemon(("127.0.0.1", 0), Lab, transport=plain_house.wire.server)
    plain_house.daemons.append(daemon)
    getattr(daemon, first)()
    daemon.stop(timeout=0)
    with pytest.raises(erps.ConfigError, match="hub of another thread; make a new one"):
        (daemon.start if first == "start_in_thread" else daemon.start_in_thread)()


def test_start_in_thread_may_be_called_in_that_thread(plain_house):
    daemon = erps.Daemon(("127.0.0.1", 0), WhereAmI, transport=plain_house.wire.server)
    plain_house.daemons.append(daemon)
    bridge.run_in(hub_thread(), daemon.start_in_thread)
    assert plain_house.client(daemon).call("where", timeout=PATIENCE) is True
