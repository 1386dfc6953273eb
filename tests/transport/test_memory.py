"""Lines inside one process: they are sockets like others, found by port or path, and nobody else is on them."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import threading

import gevent
import pytest
from gevent.hub import get_hub
from gevent.server import StreamServer
from support import MS
from transport.lines import PATIENCE, receive, send

from erps_gevent.errors import ConfigError, Disconnected, StartError
from erps_gevent.transport.address import Peer, parse_address
from erps_gevent.transport.memory import Memory

HERE = ("127.0.0.1", 4747)


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def listen(memory):
    """Listen at an address of `memory`; closed at the end."""
    made = []

    def listen(address=HERE):
        listener, file = memory.listen(address, 128, False)
        assert file is None
        made.append(listener)
        return listener

    yield listen
    for listener in made:
        listener.close()


@pytest.fixture
def dial(memory, ends):
    """A client's end of a line to an address of `memory`."""

    def dial(address=HERE, memory=memory):
        return ends.keep(memory.connect(parse_address(address), PATIENCE))

    return dial


@pytest.fixture
def accept(memory, ends):
    """The server's end of the line that has waited longest at a listener."""

    def accept(listener):
        fileno, address = listener._accept()
        sock = socket.socket(listener.family, listener.type, listener.proto, fileno=fileno)
        return ends.keep(memory.accept(sock, address, PATIENCE))

    return accept


def readable(listener):
    return bool(select.select([listener], [], [], 0)[0])


def test_bytes_travel_both_ways_and_so_does_the_end(listen, dial, accept):
    listener = listen()
    near = dial()
    far = accept(listener)
    send(near, b"ping")
    assert receive(far, 4) == b"ping"
    send(far, b"pong")
    far.close()
    assert receive(near) == b"pong"


def test_waiting_for_the_other_end_parks(listen, dial, accept):
    listener = listen()
    near = dial()
    far = accept(listener)
    assert near.receive() is None
    assert near.wait_readable(5 * MS) is False
    waiting = gevent.spawn(near.wait_readable, PATIENCE)
    gevent.sleep(0)
    send(far, b"x")
    assert waiting.get(timeout=PATIENCE) is True


def test_the_other_end_that_does_not_read_is_felt(listen, dial):
    listen()
    near = dial()
    while near.send(bytes(64 * 1024)):
        pass
    assert near.wait_writable(5 * MS) is False


def test_the_listener_is_readable_while_lines_wait_and_gives_them_out_in_their_order(listen, dial, accept):
    listener = listen()
    assert not readable(listener)
    for number in (1, 2, 3):
        dial().send(b"%d" % number)
    for number in (1, 2, 3):
        assert readable(listener)
        far = accept(listener)
        assert far.peer == Peer(("memory", number))
        assert receive(far, 1) == b"%d" % number
    assert not readable(listener)
    with pytest.raises(BlockingIOError) as caught:
        accept(listener)
    assert caught.value.errno == errno.EAGAIN


def test_a_stream_server_accepts_from_it(listen, dial):
    server = StreamServer(("127.0.0.1", 0), lambda sock, address: sock.sendall(repr(address).encode()))
    server.get_listener = lambda *_: listen()
    server.start()
    assert server.address == HERE
    assert receive(dial()) == b"('memory', 1)"
    server.stop()
    with pytest.raises(Disconnected):
        dial()


@pytest.mark.parametrize(
    ("listening", "name", "dialled"),
    [
        (("127.0.0.1", 4747), ("127.0.0.1", 4747), ("counter.example", 4747)),
        (("", 4747), ("0.0.0.0", 4747), ("localhost", 4747)),
        ("erps://counter.example:4747", ("counter.example", 4747), "erps+tcp://localhost:4747"),
        ("/run/counter.sock", "/run/counter.sock", "erps+unix:///run/counter.sock"),
    ],
)
def test_the_port_or_the_path_finds_the_listener_and_the_host_and_the_scheme_do_not_matter(
    listen, dial, accept, listening, name, dialled
):
    listener = listen(listening)
    assert listener.getsockname() == name
    near = dial(dialled)
    address = parse_address(dialled)
    assert near.peer.address == (address.path or (address.host, address.port))
    assert accept(listener).peer == Peer(("memory", 1))
    assert dial(name).peer.address == name


def test_no_file_is_made(listen, tmp_path):
    listen(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_port_0_is_one_that_nobody_had_before(listen):
    listen(("127.0.0.1", 49153))
    first = listen(("127.0.0.1", 0))
    first.close()
    assert first.getsockname() == ("127.0.0.1", 49152)
    assert listen(("127.0.0.1", 0)).getsockname() == ("127.0.0.1", 49154)


def test_an_address_in_use_is_refused_until_it_is_free(listen):
    taken = listen(HERE)
    with pytest.raises(StartError) as caught:
        listen(("0.0.0.0", 4747))
    assert caught.value.reason == os.strerror(errno.EADDRINUSE)
    assert str(caught.value) == (
        "cannot listen at 0.0.0.0:4747: the address is in use in this Memory(); port 0 takes any free port"
    )
    taken.close()
    successor = listen(HERE)
    taken.close()
    with pytest.raises(StartError):
        listen(HERE)
    successor.close()


def test_where_nobody_listens_the_line_is_refused(dial):
    with pytest.raises(Disconnected) as caught:
        dial()
    assert (caught.value.reason, caught.value.sent) == ("refused", False)
    assert str(caught.value) == (
        "cannot connect to 127.0.0.1:4747: connection refused: nothing listens there in this Memory(), "
        "and both ends need the same one"
    )


def test_two_of_them_do_not_meet(listen, dial):
    listen()
    with pytest.raises(Disconnected, match="both ends need the same one"):
        dial(memory=Memory())


def test_who_waits_when_the_listener_closes_is_cut_off(listen, dial):
    listener = listen()
    lines = [dial(), dial()]
    listener.close()
    assert [receive(near) for near in lines] == [b"", b""]


def test_a_client_of_another_thread_wakes_this_hub(listen, dial, accept):
    listener = listen()
    calling = threading.Thread(target=dial)
    watcher = get_hub().loop.io(listener.fileno(), 1)
    with gevent.Timeout(PATIENCE):
        calling.start()
        get_hub().wait(watcher)
    watcher.close()
    calling.join()
    assert accept(listener).peer == Peer(("memory", 1))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_is_somewhere_else(listen, dial, memory):
    listener = listen()
    pid = os.fork()
    if pid == 0:
        answer = 1
        try:
            dial()
        except Disconnected:
            mine, _ = memory.listen(HERE, 128, False)
            dial()
            answer = 0 if readable(mine) else 2
        finally:
            os._exit(answer)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not readable(listener)


def test_a_socket_of_a_real_network_is_no_listener_for_it(memory):
    with socket.socket() as real, pytest.raises(ConfigError) as caught:
        memory.check_listener(real)
    assert "and Memory() has none: pass an address instead" in str(caught.value)
    assert memory.check_listener(HERE) is None


def test_nothing_is_left_open(memory):
    before = len(os.listdir("/proc/self/fd"))
    listener, _ = memory.listen(HERE, 128, False)
    near = memory.connect(parse_address(HERE), PATIENCE)
    with pytest.raises(Disconnected):
        memory.connect(parse_address(("localhost", 1)), PATIENCE)
    near.close()
    listener.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_is_neither_tls_nor_not(memory):
    assert (memory.secure, repr(memory)) == (None, "Memory()")
