"""A line in clear: what arrives, how it ends, how it fails, over every kind of socket; and which transport to use."""

from __future__ import annotations

import errno
import os
import socket
import struct

import gevent
import pytest
from gevent import socket as green
from support import MS
from transport.lines import KINDS, PATIENCE, receive, send

from erps_gevent.errors import ConfigError, Disconnected
from erps_gevent.transport import sockets
from erps_gevent.transport.address import Address, Peer, parse_address
from erps_gevent.transport.tcp import READ_SIZE, Tcp, Transport, check_transport
from erps_gevent.transport.tls import OneWayTls


@pytest.fixture
def line(place, ends):
    return ends.line(place, Tcp(), Tcp())


def reset(stream):
    """Close rudely: with a RST instead of a FIN."""
    stream._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_travel_both_ways(places, ends, kind):
    near, far = ends.line(places(kind), Tcp(), Tcp())
    send(near, b"ping")
    assert receive(far, 4) == b"ping"
    send(far, b"pong")
    assert receive(near, 4) == b"pong"


def test_nothing_there_is_none_and_drained(line):
    near, _ = line
    assert near.receive() is None
    assert near.drained


def test_a_full_read_is_not_drained_and_a_short_one_is(line):
    near, far = line
    near._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ_SIZE)
    sender = gevent.spawn(send, near, bytes(READ_SIZE + 1))
    sender.get(timeout=PATIENCE)
    sizes = []
    while sum(sizes) < READ_SIZE + 1:
        far.wait_readable(PATIENCE)
        sizes.append(len(far.receive()))
        assert far.drained == (sizes[-1] < READ_SIZE)


def test_the_end_of_the_stream_is_empty_bytes(line):
    near, far = line
    send(near, b"last")
    assert near.farewell() == b""
    near.shutdown_write()
    assert receive(far) == b"last"
    assert far.receive() == b""
    send(far, b"heard")
    assert receive(near, 5) == b"heard"


def test_a_reset_while_reading_says_so(line):
    near, far = line
    reset(near)
    far.wait_readable(PATIENCE)
    with pytest.raises(Disconnected, match="lost while reading: the other end reset the connection") as caught:
        far.receive()
    assert caught.value.sent
    assert caught.value.reason == "reset"
    assert caught.value.__cause__.errno == errno.ECONNRESET


def test_a_reset_while_writing_says_so(line):
    near, far = line
    reset(near)
    far.wait_readable(PATIENCE)
    with pytest.raises(Disconnected, match="lost while writing: the other end") as caught:
        far.send(b"x")
    assert caught.value.sent
    assert caught.value.reason == "reset"


def test_what_was_said_before_a_write_error_can_still_be_read(line):
    near, far = line
    send(near, b"goodbye")
    far.wait_readable(PATIENCE)
    reset(near)
    with pytest.raises(Disconnected):
        while True:
            far.send(b"x")
    assert receive(far, 7) == b"goodbye"


def test_a_full_kernel_takes_nothing(line):
    near, _ = line
    while near.send(bytes(READ_SIZE)):
        pass
    assert near.send(b"x") == 0


def test_waiting_ends_at_its_timeout(line):
    near, _ = line
    assert near.wait_readable(5 * MS) is False
    assert near.wait_writable(5 * MS) is True
    while near.send(bytes(READ_SIZE)):
        pass
    assert near.wait_writable(5 * MS) is False


def test_anothers_timeout_passes_through_a_wait(line):
    near, _ = line
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(5 * MS) as timeout:
        near.wait_readable(PATIENCE)
    assert caught.value is timeout


def test_a_closed_line_says_that_it_is_closed(line):
    near, _ = line
    near.close()
    near.close()
    near.shutdown_write()
    assert near.fileno() == -1
    for use in (near.receive, lambda: near.send(b"x")):
        with pytest.raises(Disconnected, match="this end closed the connection") as caught:
            use()
        assert caught.value.reason == "closed"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_that_abandons_its_copy_does_not_disturb_the_parent(line):
    near, far = line
    pid = os.fork()
    if pid == 0:
        far.abandon()
        far.abandon()
        near.abandon()
        os._exit(0 if far.fileno() == near.fileno() == -1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    send(near, b"still here")
    assert receive(far, 10) == b"still here"
    send(far, b"so am I")
    assert receive(near, 7) == b"so am I"


def test_an_abandoned_line_is_closed_in_this_process(line):
    near, _ = line
    near.abandon()
    near.abandon()
    assert near.fileno() == -1


def test_a_stream_prints_its_peer(line, place):
    near, _ = line
    assert repr(near) == f"<Stream {place.address} fd={near.fileno()}>"


@pytest.mark.parametrize("kind", ["ipv4", "ipv6"])
def test_both_ends_know_each_others_address(places, ends, kind):
    place = places(kind)
    near, far = ends.line(place, Tcp(), Tcp())
    assert near.peer == Peer((place.address.host, place.address.port))
    assert far.peer == Peer(near._sock.getsockname()[:2])


def test_a_unix_client_is_known_by_its_process(places, ends, monkeypatch):
    place = places("unix")
    near, far = ends.line(place, Tcp(), Tcp())
    assert near.peer == Peer(place.address.path)
    assert far.peer == Peer(f"unix:pid={os.getpid()},uid={os.getuid()}")
    monkeypatch.delattr(socket, "SO_PEERCRED")
    _, far = ends.line(place, Tcp(), Tcp())
    assert str(far.peer) == "unix"


def option(stream, name, level=socket.IPPROTO_TCP):
    return stream._sock.getsockopt(level, getattr(socket, name))


@pytest.mark.parametrize("end", [0, 1])
def test_every_tcp_line_is_tuned(place, ends, end):
    stream = ends.line(place, Tcp(), Tcp(), dead_after=7.5)[end]
    assert option(stream, "TCP_NODELAY")
    assert option(stream, "SO_KEEPALIVE", socket.SOL_SOCKET)
    keepalive = [option(stream, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")]
    assert keepalive == [15, 5, 4]
    assert option(stream, "TCP_USER_TIMEOUT") == 7500


def test_dead_after_is_a_minute_and_none_leaves_it_to_the_kernel(place, ends):
    assert option(ends.line(place, Tcp(), Tcp())[0], "TCP_USER_TIMEOUT") == 60_000
    assert option(ends.line(place, Tcp(), Tcp(), dead_after=None)[0], "TCP_USER_TIMEOUT") == 0


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this kernel has no such option")
def test_dead_after_may_be_longer_than_the_kernel_can_count(place, ends):
    assert option(ends.line(place, Tcp(), Tcp(), dead_after=1e9)[0], "TCP_USER_TIMEOUT") == 2_000_000_000


def test_tuning_skips_what_the_platform_has_not(place, ends, monkeypatch):
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
        monkeypatch.delattr(socket, name)
    near, _ = ends.line(place, Tcp(), Tcp())
    assert option(near, "TCP_NODELAY")


def test_a_client_that_is_gone_before_it_is_tuned_is_reported(place, monkeypatch):
    def tune(sock, dead_after):
        raise OSError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr("erps_gevent.transport.tcp.tune", tune)
    accepting = place.accepting(Tcp())
    with place.raw():
        failure = accepting.get(timeout=PATIENCE)
    assert isinstance(failure, Disconnected)
    assert str(failure) == "lost while being set up: the other end reset the connection"
    assert not failure.sent
    assert failure.reason == "reset"
    assert failure.__cause__.errno == errno.ECONNRESET


def test_accept_takes_a_plain_socket_too(place, ends):
    with place.raw() as client:
        green.wait_read(place.listener.fileno())
        sock, address = place.listener.accept()
        owned = sockets.PlainSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        stream = ends.keep(Tcp().accept(owned, address, PATIENCE))
        client.sendall(b"hello")
        assert receive(stream, 5) == b"hello"
        assert owned.fileno() == -1


def test_a_transport_given_is_the_one_used():
    transport = Tcp()
    assert check_transport(transport) is transport


def test_no_transport_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"no transport was given: pass transport=Tls\(ca=.*or transport=Tcp\(\)"):
        check_transport(None)
    with pytest.raises(ConfigError, match="no transport was given"):
        check_transport(None, parse_address("erps://h:1"))


def test_a_url_may_ask_for_tcp_by_name():
    assert isinstance(check_transport(None, parse_address("erps+tcp://h:1")), Tcp)


def test_the_class_in_place_of_a_transport_is_refused():
    with pytest.raises(ConfigError, match=r"transport=Tcp is the class itself: write Tcp\(\.\.\.\)"):
        check_transport(Tcp)


def test_anything_else_in_place_of_a_transport_is_refused():
    with pytest.raises(ConfigError, match=r"transport='tls' is no transport: pass transport=Tls"):
        check_transport("tls")


def test_tcp_has_nothing_to_check():
    assert Tcp().check_target(Address("h", 1)) is None
    assert Tcp().check_listener() is None
    assert (Tcp().secure, OneWayTls().secure, repr(Tcp())) == (False, True, "Tcp()")


def test_a_transport_of_ones_own_must_say_how_it_connects():
    with pytest.raises(NotImplementedError):
        Transport().connect(Address("h", 1), None)
    with pytest.raises(NotImplementedError):
        Transport().accept(None, None, None)


def test_a_stream_costs_no_watcher_while_idle(line):
    near, _ = line
    assert type(near._sock) is sockets.PlainSocket
    assert not isinstance(near._sock, green.socket)
