"""Connecting says why it failed and keeps to its time; listening never takes a place that is somebody's."""

from __future__ import annotations

import errno
import os
import socket
from time import monotonic

import gevent
import pytest
from gevent import socket as green
from support import MS
from transport.lines import PATIENCE, receive, send

from erps_gevent.errors import ConfigError, Disconnected, StartError
from erps_gevent.transport import sockets
from erps_gevent.transport.address import Address, parse_address
from erps_gevent.transport.sockets import Deadline, PlainSocket, SocketFile, dial, listen
from erps_gevent.transport.tcp import Tcp

FREE = ("127.0.0.1", 1)  # nothing listens at port 1


@pytest.fixture
def resolver(monkeypatch):
    """Names resolve to the addresses that are put in here; an exception is raised."""
    original = sockets.getaddrinfo
    answers = {}

    def getaddrinfo(host, port, *args):
        if host not in answers:
            return original(host, port, *args)
        answer = answers[host]
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        families = [socket.AF_INET6 if ":" in name else socket.AF_INET for name, _ in answer]
        return [(family, socket.SOCK_STREAM, 6, "", name) for family, name in zip(families, answer, strict=True)]

    monkeypatch.setattr(sockets, "getaddrinfo", getaddrinfo)
    return answers


@pytest.fixture
def black_hole(monkeypatch):
    """A connection to 127.0.0.9 is under way for ever, as to a host whose firewall drops packets."""
    original = PlainSocket.connect_ex

    def connect_ex(sock, address):
        return errno.EINPROGRESS if address[0] == "127.0.0.9" else original(sock, address)

    def wait(sock, writable, seconds):
        gevent.sleep(seconds)
        return False

    class Socket(PlainSocket):
        pass

    monkeypatch.setattr(Socket, "connect_ex", connect_ex, raising=False)
    monkeypatch.setattr(sockets, "PlainSocket", Socket)
    original_wait = sockets.wait
    monkeypatch.setattr(
        sockets,
        "wait",
        lambda sock, writable, seconds: (wait if unconnected(sock) else original_wait)(sock, writable, seconds),
    )
    return ("127.0.0.9", 4747)


def unconnected(sock):
    return sock.getsockname()[1] == 0


def test_a_refused_connection_says_so():
    with pytest.raises(Disconnected) as caught:
        Tcp().connect(parse_address(FREE), PATIENCE)
    assert str(caught.value) == "cannot connect to 127.0.0.1:1: connection refused: nothing listens there"
    assert caught.value.reason == "refused"
    assert not caught.value.sent
    assert caught.value.__cause__.errno == errno.ECONNREFUSED


def test_a_socket_that_met_itself_is_a_refusal(monkeypatch):
    # What the kernel does by chance to a client that keeps dialling a free port of the range it is given ports from.
    class Unlucky(PlainSocket):
        def connect_ex(self, address):
            self.bind(address)
            return super().connect_ex(address)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(sockets, "PlainSocket", Unlucky)
    with pytest.raises(Disconnected, match="nothing listens there") as caught:
        dial(Address("127.0.0.1", port), Deadline(PATIENCE))
    assert caught.value.reason == "refused"


def test_a_missing_socket_file_says_so(tmp_path):
    with pytest.raises(Disconnected, match="there is no such socket file: nothing listens there") as caught:
        Tcp().connect(parse_address(tmp_path / "s"), PATIENCE)
    assert caught.value.reason == "refused"
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_stale_socket_file_is_a_refusal(tmp_path):
    listen(tmp_path / "s").close()
    with pytest.raises(Disconnected, match="connection refused") as caught:
        Tcp().connect(parse_address(tmp_path / "s"), None)
    assert caught.value.reason == "refused"


def test_a_name_that_does_not_resolve_says_so(resolver):
    resolver["nowhere.example"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(Disconnected) as caught:
        dial(Address("nowhere.example", 4747), Deadline(PATIENCE))
    assert str(caught.value) == "cannot resolve the host name 'nowhere.example': Name or service not known"
    assert caught.value.reason == "dns"
    assert not caught.value.sent
    assert isinstance(caught.value.__cause__, socket.gaierror)


def test_a_name_that_no_resolver_can_encode_says_so(resolver):
    resolver["odd.example"] = UnicodeError("label too long")
    with pytest.raises(Disconnected, match=r"cannot resolve the host name 'odd.example': label too long"):
        dial(Address("odd.example", 4747), Deadline(PATIENCE))


def test_a_silent_resolver_is_bounded_by_the_timeout(resolver):
    resolver["slow.example"] = lambda: gevent.sleep(PATIENCE)
    began = monotonic()
    with pytest.raises(Disconnected, match=r"timed out, DNS did not answer in 0\.02 s") as caught:
        dial(Address("slow.example", 4747), Deadline(20 * MS))
    assert caught.value.reason == "dns"
    assert monotonic() - began < PATIENCE / 2


def test_names_are_looked_up_by_gevents_resolver(place, ends):
    near = ends.keep(Tcp().connect(Address("localhost", place.address.port), None))
    assert near.peer.address == ("127.0.0.1", place.address.port)


def test_all_addresses_of_a_name_are_tried(resolver, place, ends):
    resolver["two.example"] = [FREE, ("127.0.0.1", place.address.port)]
    near = ends.keep(Tcp().connect(Address("two.example", 4747), PATIENCE))
    assert near.peer.address == ("127.0.0.1", place.address.port)


def test_when_no_address_answers_each_is_named(resolver):
    resolver["two.example"] = [("::1", 1, 0, 0)[:2], FREE]
    with pytest.raises(Disconnected) as caught:
        dial(Address("two.example", 4747), Deadline(PATIENCE))
    refused = "connection refused: nothing listens there"
    assert str(caught.value) == f"cannot connect to two.example:4747: ::1: {refused}; 127.0.0.1: {refused}"


def test_a_black_hole_is_bounded_by_the_timeout(black_hole):
    with pytest.raises(Disconnected, match=r"timed out while connecting \(connecting had 0\.02 s\)") as caught:
        dial(parse_address(black_hole), Deadline(20 * MS))
    assert caught.value.reason == "connect_timeout"
    assert not caught.value.sent
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_a_black_hole_does_not_use_up_the_time_of_the_next_address(resolver, black_hole, place, ends):
    resolver["two.example"] = [black_hole, ("127.0.0.1", place.address.port)]
    near = ends.keep(Tcp().connect(Address("two.example", 4747), 200 * MS))
    assert near.peer.address == ("127.0.0.1", place.address.port)


def test_an_unreachable_network_says_so(monkeypatch):
    def unreachable(sock, sockaddr, deadline):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(sockets, "_connect", unreachable)
    with pytest.raises(Disconnected, match="the network is unreachable") as caught:
        dial(parse_address(FREE), Deadline(None))
    assert caught.value.reason == "unreachable"


def test_a_greenlet_killed_while_connecting_leaves_no_socket(black_hole):
    before = len(os.listdir("/dev/fd"))
    greenlet = gevent.spawn(dial, parse_address(black_hole), Deadline(PATIENCE))
    gevent.sleep(0)
    greenlet.kill()
    assert len(os.listdir("/dev/fd")) == before


def test_a_full_unix_backlog_is_waited_for(tmp_path, ends):
    with listen(tmp_path / "s", backlog=0) as listener:
        address = parse_address(tmp_path / "s")
        first = ends.keep(Tcp().connect(address, PATIENCE))
        with pytest.raises(Disconnected, match="timed out while connecting"):
            Tcp().connect(address, 5 * MS)
        second = gevent.spawn(Tcp().connect, address, PATIENCE)
        gevent.sleep(0)
        for _ in range(2):
            green.wait_read(listener.fileno())
            far = ends.keep(Tcp().accept(*listener.accept(), PATIENCE))
            send(far, b"in")
        assert receive(first, 2) == receive(ends.keep(second.get(timeout=PATIENCE)), 2) == b"in"


def test_a_deadline_counts_down_and_never_below_nothing():
    assert Deadline(None).left() is None
    assert not Deadline(None).passed
    assert Deadline(None).share(3).left() is None
    assert Deadline(-1.0).left() == 0.0
    assert Deadline(0.0).passed
    assert 0.0 < Deadline(30.0).share(3).left() <= 10.0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", ""])
def test_a_listener_is_a_gevent_socket(host):
    with listen((host, 0)) as listener:
        assert isinstance(listener, green.socket)
        port = listener.getsockname()[1]
        with dial(Address(host or "127.0.0.1", port), Deadline(PATIENCE)):
            green.wait_read(listener.fileno())
            listener.accept()[0].close()


def test_a_port_in_use_says_so(place):
    with pytest.raises(StartError, match=r"cannot listen at 127.0.0.1:.*the address is in use") as caught:
        listen(("127.0.0.1", place.address.port))
    assert caught.value.__cause__.errno == errno.EADDRINUSE


def test_several_may_listen_at_one_port_when_all_ask_for_it():
    with listen(("127.0.0.1", 0), reuse_port=True) as first:
        with listen(first.getsockname(), reuse_port=True) as second:
            assert first.getsockname() == second.getsockname()


def test_the_file_of_a_unix_socket_is_removed_by_who_made_it(tmp_path):
    path = tmp_path / "s"
    with listen(path) as listener:
        file = SocketFile.of(listener)
    file.remove()
    assert not path.exists()
    file.remove()


def test_the_file_of_a_successor_is_left_alone(tmp_path):
    path = tmp_path / "s"
    with listen(path) as listener:
        file = SocketFile.of(listener)
    keep = tmp_path / "keeps the inode taken"
    path.rename(keep)
    with listen(path):
        file.remove()
        assert path.exists()


def test_a_forked_copy_removes_no_file(tmp_path, monkeypatch):
    path = tmp_path / "s"
    with listen(path) as listener:
        file = SocketFile.of(listener)
    monkeypatch.setattr(sockets.os, "getpid", lambda: -1)
    file.remove()
    assert path.exists()


def test_a_listener_at_a_port_has_no_file(place):
    with listen(("127.0.0.1", 0)) as listener:
        assert SocketFile.of(listener) is None


def test_an_address_of_another_machine_says_so():
    with pytest.raises(StartError, match="this machine has no such address"):
        listen(("192.0.2.1", 0))


def test_a_host_that_does_not_resolve_says_so(resolver):
    resolver["nowhere.example"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(StartError, match=r"cannot listen at nowhere.example:0: Name or service not known"):
        listen(("nowhere.example", 0))


def test_a_forbidden_address_says_so(monkeypatch):
    def forbidden(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(sockets, "_bound", forbidden)
    with pytest.raises(StartError, match="ports below 1024 and other users' directories need rights") as caught:
        listen(("127.0.0.1", 80))
    assert isinstance(caught.value.__cause__, PermissionError)


def test_a_missing_directory_says_so(tmp_path):
    with pytest.raises(StartError, match="there is no such directory"):
        listen(tmp_path / "no" / "s")


def test_a_stale_socket_file_is_replaced(tmp_path):
    listen(tmp_path / "s").close()
    assert (tmp_path / "s").is_socket()
    with listen(tmp_path / "s"), dial(parse_address(tmp_path / "s"), Deadline(PATIENCE)) as client:
        assert client.getpeername() == str(tmp_path / "s")


def test_a_live_socket_file_is_left_alone(tmp_path):
    with listen(tmp_path / "s"):
        with pytest.raises(StartError, match="the address is in use"):
            listen(tmp_path / "s")
        dial(parse_address(tmp_path / "s"), Deadline(PATIENCE)).close()


def test_any_other_file_is_left_alone(tmp_path):
    (tmp_path / "s").write_text("mine")
    with pytest.raises(ConfigError, match="the file there is no socket; remove it or choose another path"):
        listen(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "mine"


def test_a_socket_of_another_kind_is_left_alone(tmp_path):
    with PlainSocket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "s"))
        with pytest.raises(StartError, match="cannot listen at") as caught:
            listen(tmp_path / "s")
    assert caught.value.__cause__.errno == errno.EPROTOTYPE
    assert (tmp_path / "s").is_socket()


def test_a_listener_that_cannot_be_bound_leaves_no_descriptor(place):
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        with pytest.raises(StartError):
            listen(("127.0.0.1", place.address.port))
    gevent.sleep(0)
    assert len(os.listdir("/dev/fd")) <= before
